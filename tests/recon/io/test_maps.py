import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.errors import InputError, ViewError
from recon.io.maps import (
    colorize,
    colorize_depth,
    colorize_normals,
    colorize_sigma,
    read_depth_map,
    read_depth_png,
    read_prediction,
    write_depth_map,
    write_depth_png,
    write_prediction,
)
from recon.scene import Camera, DepthMap, Prediction

RNG = np.random.default_rng(0)
SHAPE = (6, 8)


def facing_normals() -> np.ndarray:
    normals = RNG.normal(size=(*SHAPE, 3)) - [0, 0, 6]
    return (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)


def values() -> np.ndarray:
    return RNG.uniform(1, 5, SHAPE).astype(np.float32)


def test_a_prediction_survives_the_file_exactly(tmp_path):
    written = Prediction(values(), "affine_disparity", facing_normals(), values() / 5)
    written.values[0, 0] = np.nan
    write_prediction(tmp_path / "new" / "a.npz", written)
    read = read_prediction(tmp_path / "new" / "a.npz")
    assert read.kind == written.kind
    assert np.array_equal(read.values, written.values, equal_nan=True)
    assert np.array_equal(read.confidence, written.confidence)
    assert np.allclose(read.normals, written.normals, atol=1e-7)


def test_a_prediction_without_normals_has_none(tmp_path):
    write_prediction(tmp_path / "a.npz", Prediction(values(), "scale"))
    read = read_prediction(tmp_path / "a.npz")
    assert read.normals is None
    assert read.confidence is None


def test_the_same_prediction_gives_the_same_bytes(tmp_path):
    prediction = Prediction(values(), "scale", facing_normals())
    write_prediction(tmp_path / "a.npz", prediction)
    write_prediction(tmp_path / "b.npz", prediction)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_converted(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", values=np.full(SHAPE, 2.5, dtype), kind=np.bytes_(b"metric"))
    assert (read_prediction(tmp_path / "a.npz").values == np.float32(2.5)).all()


def test_depth_that_says_nothing_is_nan_but_disparity_may_be_negative(tmp_path):
    odd = np.full(SHAPE, 2.0, np.float32)
    odd[0, :4] = [0, -1, np.inf, np.nan]
    np.savez(tmp_path / "depth.npz", values=odd, kind="metric")
    np.savez(tmp_path / "disparity.npz", values=odd, kind="affine_disparity")
    assert np.isnan(read_prediction(tmp_path / "depth.npz").values).sum() == 4
    assert np.isnan(read_prediction(tmp_path / "disparity.npz").values).sum() == 2


def test_nearly_unit_normals_become_unit_and_nan_ones_none(tmp_path):
    normals = facing_normals() * np.float32(1.2)
    normals[0, 0], normals[0, 1] = np.nan, 0
    np.savez(tmp_path / "a.npz", values=values(), kind="metric", normals=normals)
    length = np.linalg.norm(read_prediction(tmp_path / "a.npz").normals, axis=-1)
    assert length[0, :2].tolist() == [0, 0]
    assert np.allclose(length.ravel()[2:], 1, atol=1e-6)


GOOD = {"values": values(), "kind": np.array("metric"), "normals": facing_normals()}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"values": None}, "no field 'values', it has kind, normals"),
        ({"kind": None}, "no field 'kind'"),
        ({"kind": np.array("depth")}, "kind: 'depth', wanted one of metric"),
        ({"kind": np.array(3)}, "kind: int64 .* wanted one text"),
        ({"values": np.ones((6, 8, 1), np.float32)}, r"values: shape \(6, 8, 1\), wanted \(n, n\)"),
        ({"values": np.ones(SHAPE, np.int64)}, "values: int64, wanted float32"),
        ({"values": np.full(SHAPE, np.nan, np.float32)}, "values: 0 of 48 pixels are known"),
        ({"values": np.zeros(SHAPE, np.float32)}, "wanted depth above 0"),
        ({"values": np.zeros((0, 0), np.float32)}, r"values: shape \(0, 0\)"),
        ({"normals": np.ones((3, 6, 8), np.float32)}, r"normals: shape \(3, 6, 8\), wanted \(6, 8, 3\)"),
        ({"normals": np.full((6, 8, 3), 7, np.float32)}, "normals: 48 of 48 have a length outside"),
        ({"normals": -facing_normals()}, "48 of 48 point away from the camera"),
        ({"confidence": np.full(SHAPE, 2, np.float32)}, "confidence: 2 to 2, wanted 0 to 1"),
        ({"values": np.array([{}, {}], object)}, "no npz file, or a damaged one"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(tmp_path, change, fault):
    fields = {name: value for name, value in (GOOD | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **fields)
    with pytest.raises(ViewError, match=f"a.npz: .*{fault}") as caught:
        read_prediction(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip file at all", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_a_view_error(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ViewError, match=r"a\.npz: no npz file"):
        read_prediction(tmp_path / "a.npz")


@settings(max_examples=30, deadline=None)
@given(cut=st.floats(0, 0.999), flip=st.integers(0, 10_000))
def test_no_damage_to_a_file_gets_past_as_anything_but_a_view_error(tmp_path_factory, cut, flip):
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    np.savez(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 0x55
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(ViewError):
        read_prediction(path)


def test_a_missing_file_and_a_bare_array_are_named(tmp_path):
    np.save(tmp_path / "a.npy", values())
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(ViewError, match=r"a\.npz: a single array"):
        read_prediction(tmp_path / "a.npz")
    with pytest.raises(ViewError, match=r"b\.npz: no such file"):
        read_prediction(tmp_path / "b.npz")


def depth_map() -> DepthMap:
    depth = values()
    depth[0, 0] = 0
    return DepthMap(Camera.from_fov(8, 6, 60.0), depth, facing_normals(), depth * np.float32(0.01))


def test_a_depth_map_survives_the_file_exactly(tmp_path):
    written = depth_map()
    write_depth_map(tmp_path / "a.jpg.npz", written)
    read = read_depth_map(tmp_path / "a.jpg.npz")
    for name in ("depth", "normals", "sigma"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    assert np.array_equal(read.camera.K, written.camera.K)
    assert (read.camera.width, read.camera.height) == (8, 6)


def test_a_depth_map_that_does_not_fit_its_camera_says_both_sizes(tmp_path):
    write_depth_map(tmp_path / "a.npz", depth_map())
    with np.load(tmp_path / "a.npz") as file:
        fields = dict(file)
    np.savez(tmp_path / "size.npz", **(fields | {"width": np.array(9)}))
    np.savez(tmp_path / "negative.npz", **(fields | {"depth": -fields["depth"]}))
    with pytest.raises(ViewError, match=r"size.npz: depth: shape \(6, 8\), camera says \(6, 9\)"):
        read_depth_map(tmp_path / "size.npz")
    with pytest.raises(ViewError, match=r"negative.npz: .*depth must be at least 0"):
        read_depth_map(tmp_path / "negative.npz")


def test_depth_in_16_bit_png_is_good_to_half_a_step(tmp_path):
    depth = values()
    depth[0, 0] = 0
    write_depth_png(tmp_path / "a.png", depth, scale=1000.0)
    read = read_depth_png(tmp_path / "a.png", scale=1000.0)
    assert np.abs(read - depth).max() <= 0.00051
    assert read[0, 0] == 0


def test_0_and_65535_in_a_depth_png_are_none(tmp_path):
    from PIL import Image

    Image.fromarray(np.array([[0, 1, 65534, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.allclose(read_depth_png(tmp_path / "a.png", scale=1000.0), [[0, 0.001, 65.534, 0]])


def test_depth_that_16_bits_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"at 20000 per unit, 16 bits hold 0 to 3\.2767"):
        write_depth_png(tmp_path / "a.png", values(), scale=20000.0)
    assert not list(tmp_path.iterdir())


def test_an_8_bit_picture_is_no_depth(tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ViewError, match=r"a\.png: a picture of mode L, wanted depth as 16-bit grey"):
        read_depth_png(tmp_path / "a.png", scale=1000.0)


def test_near_is_warm_far_is_cold_and_none_is_black():
    depth = np.linspace(1, 10, 100, dtype=np.float32).reshape(10, 10)
    depth[5, 5] = 0
    picture = colorize_depth(depth).astype(int)
    assert picture[0, 0, 0] > 2 * picture[0, 0, 2]
    assert picture[-1, -1, 2] > picture[-1, -1, 0]
    assert picture[5, 5].tolist() == [0, 0, 0]
    assert (colorize_depth(np.zeros((2, 2), np.float32)) == 0).all()


def test_the_picture_of_depth_does_not_depend_on_the_unit():
    assert np.array_equal(colorize_depth(values() * 0 + 2), colorize_depth(values() * 0 + 2000))
    depth = values()
    assert np.abs(colorize_depth(depth).astype(int) - colorize_depth(depth * 1000)).max() <= 3


def test_every_step_of_the_colours_is_seen():
    ramp = colorize(np.linspace(0, 1, 64, dtype=np.float32)[None], 0.0, 1.0)[0].astype(float)
    steps = np.linalg.norm(np.diff(ramp, axis=0), axis=-1)
    assert steps.min() > 4
    assert steps.max() < 25


def test_colours_of_known_normals():
    normals = np.array([[[0, 0, -1], [1, 0, 0], [0, -1, 0], [0, 0, 0], [np.nan, 0, 0]]], np.float32)
    assert colorize_normals(normals)[0].tolist() == [
        [128, 128, 255],  # a facing wall
        [255, 128, 128],  # facing right
        [128, 255, 128],  # a floor, facing up
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_relative_sigma_of_one_tenth_is_the_warmest_and_none_is_black():
    depth = np.array([[1.0, 10.0, 1.0, 0.0]], np.float32)
    sigma = np.array([[0.1, 0.01, 0.01, 0.0]], np.float32)
    picture = colorize_sigma(sigma, depth)
    expected = colorize(np.array([[1.0, 0.0, 0.5, np.nan]], np.float32), 0.0, 1.0)
    assert np.abs(picture.astype(int) - expected).max() <= 3
