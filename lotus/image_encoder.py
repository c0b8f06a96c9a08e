"""What a small UNet cannot learn from few pictures: features of a network that has seen many photos.

The trunk of EfficientNet-lite0 (Tan and Le 2019; "lite": no squeeze-excitation, ReLU6), without its
classifier and with its batch norms folded into the convolutions. Its maps at strides 8, 16 and 32 are
projected to a few channels, brought to the latent's grid and given to the UNet beside the photo's latent.
Published Lotus checkpoints have no such part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import nn

STEM_CHANNELS = 32
STAGES = (  # (blocks, kernel, stride, expansion, channels): table 1 of the paper
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FEATURE_STAGES = (2, 4, 6)  # the last ones at strides 8, 16 and 32
CLASS_NAME = "EfficientNetLite0Features"


class ImageEncoder(nn.Module):
    """The frozen trunk, and a trainable 1 x 1 projection per stride."""

    def __init__(self, channels: Sequence[int] = (32, 32, 32)) -> None:
        super().__init__()
        self.stem = Convolution(3, STEM_CHANNELS, 3, 2)
        self.stages = nn.ModuleList()
        inner = STEM_CHANNELS
        for blocks, kernel, stride, expansion, outer in STAGES:
            strides = [stride] + [1] * (blocks - 1)
            inputs = [inner] + [outer] * (blocks - 1)
            parts = [
                Block(i, outer, kernel, s, expansion=expansion) for i, s in zip(inputs, strides, strict=True)
            ]
            self.stages.append(nn.Sequential(*parts))
            inner = outer
        widths = [STAGES[index][-1] for index in FEATURE_STAGES]
        self.projections = nn.ModuleList(
            nn.Conv2d(wide, narrow, 1) for wide, narrow in zip(widths, channels, strict=True)
        )
        self.channels = sum(channels)

    def trunk(self) -> nn.ModuleList:
        """Returns all but the projections."""
        return nn.ModuleList([self.stem, self.stages])

    def forward(self, pixels: Float32[torch.Tensor, "b 3 h w"]) -> Float32[torch.Tensor, "b c h8 w8"]:
        """Returns projected features of pictures in [-1, 1] whose sides are multiples of 8."""
        return self.project(self.features(pixels))

    def features(self, pixels: Float32[torch.Tensor, "b 3 h w"]) -> tuple[torch.Tensor, ...]:
        """Returns the trunk's maps at strides 8, 16 and 32: 40, 112 and 320 channels."""
        hidden = F.relu6(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        found = []
        for index, stage in enumerate(self.stages):
            hidden = stage(hidden)
            if index in FEATURE_STAGES:
                found.append(hidden.contiguous())
        return tuple(found)

    def project(self, features: Sequence[Float[torch.Tensor, "..."]]) -> Float[torch.Tensor, "b c h8 w8"]:
        """Returns the maps of `features`, projected, enlarged to the first one's grid and concatenated."""
        maps = [projection(each.float()) for projection, each in zip(self.projections, features, strict=True)]
        size = maps[0].shape[2:]
        return torch.cat([maps[0], *(F.interpolate(each, size, mode="bilinear") for each in maps[1:])], dim=1)


class Convolution(nn.Conv2d):
    """A convolution padded as TensorFlow does it: the odd row and column go to the bottom and right."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(inner, outer, kernel, stride, groups=groups)

    def forward(self, input: Float[torch.Tensor, "b c h w"]) -> Float[torch.Tensor, "b d h2 w2"]:
        """Returns the convolved map, its sides divided by the stride and rounded up."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:]
        )
        if height % 2 == 0 and width % 2 == 0:
            padding = height // 2, width // 2
            return F.conv2d(input, self.weight, self.bias, self.stride, padding, groups=self.groups)
        padded = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project (Sandler et al. 2018)."""

    def __init__(self, inner: int, outer: int, kernel: int, stride: int, *, expansion: int) -> None:
        super().__init__()
        middle = inner * expansion
        self.expand = Convolution(inner, middle, 1, 1) if expansion > 1 else None
        self.depthwise = Convolution(middle, middle, kernel, stride, groups=middle)
        self.project = Convolution(middle, outer, 1, 1)
        self.is_residual = stride == 1 and inner == outer

    def forward(self, hidden: Float[torch.Tensor, "b c h w"]) -> Float[torch.Tensor, "b d h2 w2"]:
        """Returns the block's output."""
        inner = hidden if self.expand is None else F.relu6(self.expand(hidden))
        update = self.project(F.relu6(self.depthwise(inner)))
        return hidden + update if self.is_residual else update
