"""Photos to predictions: conventions of values and normals, confidence, sharing, order."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lotus
from lotus import LotusPredictor, inference
from lotus.inference import ERROR_FLOOR, ensemble
from lotus.sizes import map_size
from recon.errors import InputError
from recon.geometry import normals_from_depth

RES = 64
AS_IT_IS = np.array([False])


def values_from_raw(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, confidence = inference.values_from_raw(torch.from_numpy(raw))
    return values.numpy(), confidence.numpy()


def normals_from_raw(raw: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    return inference.normals_from_raw(torch.from_numpy(raw), torch.from_numpy(mirrored)).numpy()


def predictor(home: Path, depth: str | None, normals: str | None = None, **options: object) -> LotusPredictor:
    paths = [str(home / name) if name else None for name in (depth, normals)]
    return LotusPredictor(*paths, **({"processing_res": RES, "device": "cpu", "dtype": "float32"} | options))


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [((0, 0, 1), (0, 0, -1)), ((0, 1, 0), (0, -1, 0)), ((-1, 0, 0), (1, 0, 0))],
    ids=["wall ahead", "floor", "wall at the left"],
)
def test_normals_become_ours(drawn: tuple[int, ...], expected: tuple[int, ...]) -> None:
    # What Lotus draws for these surfaces is in LOTUS 3, from the authors' ground-truth code.
    raw = np.full((1, 2, 2, 3), drawn, np.float32)
    np.testing.assert_array_equal(normals_from_raw(raw, AS_IT_IS), np.full((2, 2, 3), expected, np.float32))


def test_normals_of_a_sphere_equal_those_of_its_depth() -> None:
    size, focal, distance = 48, 60.0, 4.0
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    v, u = np.mgrid[:size, :size] + 0.5
    rays = np.stack([(u - size / 2) / focal, (v - size / 2) / focal, np.ones_like(u)], axis=-1)
    a, b = (rays**2).sum(-1), rays[..., 2] * distance
    root = b**2 - a * (distance**2 - 1)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    outward = depth[..., None] * rays - [0, 0, distance]  # OpenCV frame, unit on the sphere
    drawn = np.where(depth[..., None] > 0, outward * [-1, -1, -1], 0)  # left, up, toward the camera
    ours = normals_from_raw(drawn[None].astype(np.float32), AS_IT_IS)
    from_depth = normals_from_depth(K, depth.astype(np.float32))
    inner = (from_depth != 0).any(-1) & (root > 0.3)
    assert inner.sum() > 100
    assert np.einsum("nc,nc->n", ours[inner], from_depth[inner]).min() > np.cos(np.radians(3))


def test_normals_are_unit_and_none_where_passes_contradict() -> None:
    raw = np.array([[[[0, 0, 0.5], [0.3, 0.0, 0.0]]], [[[0, 0, 0.9], [0.3, 0.0, 0.0]]]], np.float32)
    normals = normals_from_raw(raw, np.array([False, True]))  # x of the mirrored pass points the other way
    np.testing.assert_allclose(normals, [[[0, 0, -1], [0, 0, 0]]])


def test_clipped_values_have_low_confidence() -> None:
    raw = np.repeat(
        np.array([-1.2, -0.99, -0.5, 0.5, 0.99, 1.2], np.float32)[None, None, :, None], 3, axis=-1
    )
    values, confidence = values_from_raw(raw)
    np.testing.assert_allclose(values, [[0, 0.005, 0.25, 0.75, 0.995, 1]], atol=1e-6)
    np.testing.assert_allclose(confidence, [[0.1, 0.25, 1, 1, 0.25, 0.1]], atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(0.5, 1.0), shift=st.floats(-0.2, 0.2))
def test_passes_that_differ_by_scale_and_shift_agree(scale: float, shift: float) -> None:
    first = np.random.default_rng(0).uniform(-0.6, 0.6, (6, 5, 3)).astype(np.float32)
    raw = np.stack([first, scale * first + shift]).astype(np.float32)
    values, confidence = values_from_raw(raw)
    np.testing.assert_allclose(values, (first / 2 + 0.5).mean(-1), atol=1e-5)
    np.testing.assert_allclose(confidence, 1, atol=1e-4)


def test_disagreement_of_passes_lowers_confidence_where_it_is() -> None:
    first = np.random.default_rng(0).uniform(-0.6, 0.6, (16, 16, 1)).repeat(3, axis=-1).astype(np.float32)
    second = first.copy()
    second[3, 4] += 0.3
    _, confidence = values_from_raw(np.stack([first, second]))
    assert confidence[3, 4] < 0.3
    assert confidence[:7, 5:8].min() > 2 * confidence[3, 4]  # its neighbourhood loses a little
    assert confidence[7:].min() > 0.99


def simulated(passes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth truth, and passes with an error they share, ERROR_FLOOR, beside own ones of 0.004 to 0.09."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:160, :192]
    truth = 0.5 + 0.3 * np.sin(u / 40) * np.cos(v / 31)
    own = 0.004 + 0.086 * (0.5 + 0.5 * np.sin(u / 23) * np.sin(v / 19)) ** 2
    errors = ERROR_FLOOR * rng.normal(size=truth.shape) + own * rng.normal(size=(passes, *truth.shape))
    return truth, np.repeat((2 * (truth + errors) - 1)[..., None], 3, axis=-1).astype(np.float32)


@pytest.mark.parametrize("passes", [2, 3, 8])
def test_confidence_is_calibrated(passes: int) -> None:
    # Mean square error must be ERROR_FLOOR^2 / confidence at every level. 6144 pixels each: 2 % of luck; the
    # rest is that the range is the noisy first pass's, a little too wide.
    truth, raw = simulated(passes, 0)
    values, confidence = values_from_raw(raw)
    levels = np.array_split(np.argsort(confidence, axis=None), 5)
    error = np.array([((values - truth).ravel()[level] ** 2).mean() for level in levels])
    expected = np.array([(ERROR_FLOOR**2 / confidence.ravel()[level]).mean() for level in levels])
    np.testing.assert_allclose(error / expected, 1, atol=0.1)
    assert (np.diff(error) < 0).all()
    assert error[0] > 2 * error[-1]


def test_more_passes_mean_more_confidence() -> None:
    means = [values_from_raw(simulated(passes, 1)[1])[1].mean() for passes in (2, 4, 8)]
    assert means == sorted(means)


def test_map_sizes_are_multiples_of_8_near_the_ratio() -> None:
    assert map_size(4000, 3000, 768) == (768, 576)
    assert map_size(3000, 2000, 768) == (768, 512)
    assert map_size(1920, 1080, 768) == (768, 432)
    assert map_size(101, 75, 0) == (104, 72)


def test_wide_maps_keep_a_least_side_up_to_a_limit() -> None:
    assert map_size(1920, 1080, 256, 128) == (256, 144)
    assert map_size(1242, 375, 256, 128) == (424, 128)
    assert map_size(375, 1242, 256, 128) == (128, 424)
    assert map_size(10000, 100, 256, 128) == (1024, 8)


def test_the_published_size_has_no_least_side(checkpoints: Path) -> None:
    wide = np.zeros((24, 96, 3), np.uint8)
    (published,) = predictor(checkpoints, "disparity-d", processing_res=64)([wide])
    assert published.values.shape == (16, 64)
    assert LotusPredictor("jingheya/lotus-depth-d-v2-0-disparity", device="cpu").least_side() == 0


@pytest.mark.parametrize(("said", "least"), [(None, 0), (64, 32), (256, 128), (768, 128)])
def test_the_least_side_is_half_of_what_the_checkpoint_says_up_to_a_limit(
    said: int | None, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lotus.predictor.processing_res_of", lambda _: said)
    assert LotusPredictor("any", device="cpu").least_side() == least


def test_values_equal_the_raw_annotation(checkpoints: Path, photo: np.ndarray) -> None:
    (prediction,) = predictor(checkpoints, "disparity-d", processing_res=0)([photo])
    raw = lotus.load(checkpoints / "disparity-d", "cpu", "float32").annotate(photo, processing_res=0)
    assert prediction.kind == "affine_disparity"
    assert prediction.normals is None
    np.testing.assert_allclose(prediction.values, raw[0].mean(-1), atol=1e-6)


def test_normals_equal_the_negated_annotation(checkpoints: Path, photo: np.ndarray) -> None:
    (prediction,) = predictor(checkpoints, "depth-d", "normal-g", processing_res=0, seed=3)([photo])
    model = lotus.load(checkpoints / "normal-g", "cpu", "float32")
    drawn = 2 * model.annotate(photo, processing_res=0, seed=3)[0] - 1
    clear = np.linalg.norm(drawn, axis=-1) > 0.1
    expected = -drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    assert prediction.kind == "affine"
    np.testing.assert_allclose(prediction.normals[clear], expected[clear], atol=1e-4)
    assert clear.mean() > 0.9


def test_equal_vaes_are_one_object_and_others_are_not(checkpoints: Path) -> None:
    depth, same = (lotus.load(checkpoints / name, "cpu", "float32") for name in ("depth-d", "normal-g"))
    assert depth.vae is same.vae
    assert lotus.load(checkpoints / "normal-other-vae-g", "cpu", "float32").vae is not depth.vae


def test_sharing_the_vae_changes_nothing(checkpoints: Path, photo: np.ndarray) -> None:
    (joint,) = predictor(checkpoints, "depth-d", "normal-g")([photo])
    (depth,) = predictor(checkpoints, "depth-d")([photo])
    (normals,) = predictor(checkpoints, None, "normal-g")([photo])
    np.testing.assert_array_equal(joint.values, depth.values)
    np.testing.assert_array_equal(joint.confidence, depth.confidence)
    np.testing.assert_array_equal(joint.normals, normals.normals)
    assert np.isnan(normals.values).all()


def test_each_model_decodes_with_its_own_vae(checkpoints: Path, photo: np.ndarray) -> None:
    (joint,) = predictor(checkpoints, "depth-d", "normal-other-vae-g")([photo])
    (normals,) = predictor(checkpoints, None, "normal-other-vae-g")([photo])
    np.testing.assert_array_equal(joint.normals, normals.normals)


def test_photos_of_mixed_sizes_come_back_in_order_and_unchanged(checkpoints: Path, photo: np.ndarray) -> None:
    both = predictor(checkpoints, "disparity-d", "normal-g")
    photos = [photo, photo[:, :80].copy(), photo[::-1].copy(), photo[:90].copy()]
    together = both(photos)
    for image, prediction in zip(photos, together, strict=True):
        (alone,) = both([image])
        np.testing.assert_array_equal(prediction.values, alone.values)
        np.testing.assert_array_equal(prediction.normals, alone.normals)
    assert [p.values.shape for p in together] == [(48, 64), (64, 48), (48, 64), (32, 64)]


def test_the_mean_over_the_mirrored_photo_is_mirrored(checkpoints: Path, photo: np.ndarray) -> None:
    flipping = predictor(checkpoints, None, "normal-other-vae-g", flip=True, space="depth")
    symmetric = np.concatenate([photo[:, :80], photo[:, 79::-1]], axis=1)
    (prediction,) = flipping([symmetric])
    np.testing.assert_allclose(prediction.normals[:, ::-1] * [-1, 1, 1], prediction.normals, atol=2e-3)


def test_an_ensemble_holds_every_seed_at_every_scale_both_ways() -> None:
    passes = ensemble(5, 2, True, (1.0, 0.75))
    assert len(set(passes)) == 8
    assert (passes[0].seed, passes[0].is_flipped, passes[0].scale) == (5, False, 1.0)


def test_the_mean_over_two_scales_keeps_the_first_ones_size_and_range(
    checkpoints: Path, photo: np.ndarray
) -> None:
    (single,) = predictor(checkpoints, "disparity-d", "normal-g", processing_res=96)([photo])
    (both,) = predictor(checkpoints, "disparity-d", "normal-g", processing_res=96, scales=(1.0, 0.75))(
        [photo]
    )
    assert both.values.shape == single.values.shape
    assert np.corrcoef(both.values.ravel(), single.values.ravel())[0, 1] > 0.7
    assert both.confidence.mean() < single.confidence.mean()
    np.testing.assert_allclose(np.linalg.norm(both.normals, axis=-1).max(), 1, atol=1e-5)


def test_photos_of_a_size_see_the_same_noise(checkpoints: Path, photo: np.ndarray) -> None:
    # so the prediction of a photo does not depend on its place in the batch
    first, second = predictor(checkpoints, "depth-wide-g")([photo, photo])
    np.testing.assert_array_equal(first.values, second.values)


def test_an_ensemble_of_seeds_lowers_confidence_and_repeats(checkpoints: Path, photo: np.ndarray) -> None:
    several = predictor(checkpoints, "depth-wide-g", seeds=3)
    first, second = several([photo])[0], several([photo])[0]
    (single,) = predictor(checkpoints, "depth-wide-g")([photo])
    np.testing.assert_array_equal(first.values, second.values)
    assert first.confidence.mean() < single.confidence.mean()


def test_what_cannot_be_is_said(checkpoints: Path, lotus_golden: Path, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="its name does not say what it draws; say depth or disparity"):
        predictor(lotus_golden, "checkpoint_d")([photo])
    with pytest.raises(InputError, match="a normals checkpoint by its name"):
        predictor(checkpoints, "normal-g")([photo])
    with pytest.raises(InputError, match="by its name a depth checkpoint, wanted normals"):
        predictor(checkpoints, "depth-d", "depth-d")
    with pytest.raises(InputError, match="2 seeds want a generative checkpoint"):
        predictor(checkpoints, "depth-d", seeds=2)([photo])
    with pytest.raises(InputError, match="4 steps want a generative checkpoint"):
        predictor(checkpoints, "depth-d", steps=4)([photo])
    with pytest.raises(InputError, match=r"scales .*wanted some between"):
        predictor(checkpoints, "depth-d", scales=())
    with pytest.raises(InputError, match=r"photo 0: uint8 \(112, 160\), wanted uint8 \(height, width, 3\)"):
        predictor(checkpoints, "depth-d")([photo[..., 0]])
    with pytest.raises(InputError, match="no checkpoint"):
        LotusPredictor(None)


def saying(folder: Path, *tasks: str) -> str:
    """Returns a folder whose index says that it draws tasks."""
    (folder / "model_index.json").write_text(json.dumps({"lotus": {"tasks": tasks}}))
    return str(folder)


def test_normals_are_not_taken_from_a_checkpoint_that_says_it_has_none(broken: Path) -> None:
    disparity = saying(broken, "disparity")
    with pytest.raises(InputError, match="copy: says it draws disparity, wanted normal"):
        LotusPredictor("lotus-tiny", disparity)


def test_normals_are_taken_from_a_checkpoint_that_says_it_has_some_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "disparity-joint").mkdir()
    joint = saying(tmp_path / "disparity-joint", "disparity", "normal")
    assert LotusPredictor("lotus-tiny", joint).normals_source() == joint


def test_a_space_that_contradicts_what_the_checkpoint_says_is_refused() -> None:
    with pytest.raises(InputError, match="lotus-tiny: says it draws disparity and normal, wanted depth"):
        LotusPredictor("lotus-tiny", space="depth").check()
    assert LotusPredictor("lotus-tiny", space="disparity").kind() == "affine_disparity"


def test_content_follows_the_files(broken: Path) -> None:
    both = LotusPredictor(str(broken), space="depth")
    before = both.content()
    file = broken / "unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes())
    assert LotusPredictor(str(broken), space="depth").content() != before
