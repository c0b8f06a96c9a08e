"""The image encoder: padding by hand, geometry of its maps, linearity of its projections."""

import torch
import torch.nn.functional as F

from lotus.image_encoder import Convolution, ImageEncoder


def test_padding_puts_the_odd_row_at_the_bottom_and_right() -> None:
    layer = Convolution(1, 1, 3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(9.0).reshape(1, 1, 3, 3))
        layer.bias.zero_()
        picture = torch.arange(16.0).reshape(1, 1, 4, 4)
        expected = F.conv2d(F.pad(picture, (0, 1, 0, 1)), layer.weight, stride=2)
        torch.testing.assert_close(layer(picture), expected)
        odd = F.conv2d(F.pad(picture[..., :3, :3], (1, 1, 1, 1)), layer.weight, stride=2)
        torch.testing.assert_close(layer(picture[..., :3, :3]), odd)


def test_maps_have_strides_8_16_and_32_rounded_up_and_one_grid_when_projected() -> None:
    encoder = ImageEncoder((2, 3, 4)).eval()
    with torch.no_grad():
        pixels = torch.rand(1, 3, 72, 104)
        maps = encoder.features(pixels)
        assert [tuple(each.shape[1:]) for each in maps] == [(40, 9, 13), (112, 5, 7), (320, 3, 4)]
        assert encoder(pixels).shape == (1, 9, 9, 13)


def test_the_trunk_has_as_many_parameters_as_efficientnet_lite0_with_its_norms_folded() -> None:
    trunk = [part for name, part in ImageEncoder().named_parameters() if not name.startswith("projections")]
    assert sum(part.numel() for part in trunk) == 2_939_120  # the package's, but for classifier and head
