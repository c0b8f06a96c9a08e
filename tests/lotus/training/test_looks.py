"""Fine-tuning on few photos of a new look: how their colours are seen, and scenes that look like them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lotus import scenes
from lotus.data import TrainingSample
from lotus.predictor import LotusPredictor
from lotus.training.batches import MixtureBatches, open_source
from lotus.training.command import parse, settle_colours, train
from lotus.training.looks import RestyledScenes
from lotus.training.style import Style, recoloured
from recon.errors import InputError
from recon.evaluation.maps import normal_angles
from recon.io.images import write_image

SIZE = (192, 144)
PHOTOS, HELD_OUT = 40_000_000, 41_000_000  # seeds


def thermal(image: np.ndarray) -> np.ndarray:
    """Returns a photo in false colours, dark things bright."""
    shown = cv2.applyColorMap(255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(shown[..., ::-1])


def of_the_look(first: int, count: int) -> list[TrainingSample]:
    found = scenes.render_batch(range(first, first + count), SIZE)
    return [TrainingSample(s.name, thermal(s.image), s.depth, s.normals, sky=s.sky) for s in found]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of the look with depth and normals."""
    home = tmp_path_factory.mktemp("thermal")
    for name in ("depth", "normals"):
        (home / name).mkdir()
    for number, sample in enumerate(of_the_look(PHOTOS, 6)):
        write_image(home / "rgb" / f"{number}.png", sample.image)
        np.save(home / "depth" / f"{number}.npy", np.where(sample.sky, np.inf, sample.depth))
        np.save(home / "normals" / f"{number}.npy", sample.normals)
    return home


def recipe(folder: Path) -> list[str]:
    """Returns the words of the shipped recipe at a small size."""
    sources = ["--data.sources", f"restyled:{folder}", f"folder:{folder}"]
    sizes = ["--data.sizes", *map(str, SIZE), *map(str, SIZE), "--data.workers", "0", "--device", "cpu"]
    return ["--config", "fine-tune.toml", *sources, *sizes]


def test_a_recoloured_picture_has_the_mean_and_covariance_of_the_other() -> None:
    rng = np.random.default_rng(0)
    first = (rng.normal(size=(40, 50, 3)) @ rng.normal(size=(3, 3)) * 30 + 100).astype(np.float32)
    other = (rng.normal(size=(30, 20, 3)) @ rng.normal(size=(3, 3)) * 20 + 60).astype(np.float32)
    found = recoloured(first, other).reshape(-1, 3)
    np.testing.assert_allclose(found.mean(axis=0), other.reshape(-1, 3).mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(np.cov(found.T), np.cov(other.reshape(-1, 3).T), rtol=0.02, atol=1)


def test_restyled_scenes_are_as_blurred_as_the_photos_or_as_noisy() -> None:
    def sharpness(images: list[np.ndarray]) -> float:
        """Log of the mean square of second differences along rows."""
        return float(np.log(np.mean([np.diff(image.astype(float), 2, axis=1) ** 2 for image in images])))

    rng = np.random.default_rng(0)
    photos = [sample.image for sample in scenes.render_batch(range(PHOTOS, PHOTOS + 12), SIZE)]
    own = sharpness([sample.image for sample in scenes.render_batch(range(30_000_000, 30_000_012), SIZE)])
    blurred = [cv2.GaussianBlur(photo, (0, 0), 1.2) for photo in photos]
    noisy = [np.clip(photo + 25 * rng.normal(size=photo.shape), 0, 255).astype(np.uint8) for photo in photos]
    for look in (blurred, noisy):
        restyled = RestyledScenes(tuple(look), SIZE, "rgb")
        found = sharpness([restyled[index].image for index in range(12)])
        assert abs(found - sharpness(look)) < 0.5 * abs(own - sharpness(look))


def drawing(image: np.ndarray) -> np.ndarray:
    """Returns a photo as dark lines along its edges, on white."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1)
    darker = np.minimum(grey - cv2.GaussianBlur(grey, (0, 0), 1.6) + 1, 0)
    return np.repeat((255 * (1 + np.tanh(darker / 3)))[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)


def test_scenes_restyled_after_drawings_show_lines_where_edges_are() -> None:
    photos = tuple(drawing(sample.image) for sample in scenes.render_batch(range(PHOTOS, PHOTOS + 12), SIZE))
    restyled, alike, white = RestyledScenes(photos, SIZE, "grey"), [], []
    for index in range(6):
        found, own = restyled[index].image[..., 0], scenes.render(scenes.sample(30_000_000 + index), *SIZE)
        drawn = drawing(own.image)[..., 0]
        alike.append(np.corrcoef(found.ravel(), drawn.ravel())[0, 1])
        white.append((found > 200).mean())
    assert np.mean(alike) > 0.4
    assert abs(np.mean(white) - np.mean([(photo > 200).mean() for photo in photos])) < 0.15


def test_pictures_of_a_style_keep_what_they_show() -> None:
    pictures = [s.image.astype(np.float32) for s in scenes.render_batch(range(PHOTOS, PHOTOS + 4), SIZE)]
    same = Style.between(pictures, pictures)(pictures[0], np.random.default_rng(0))
    assert np.abs(same - pictures[0]).mean() < 1.5


def test_pictures_without_any_colour_can_be_a_style() -> None:
    grey = np.full((40, 60, 3), 128, np.float32)
    picture = np.random.default_rng(0).uniform(0, 255, (40, 60, 3)).astype(np.float32)
    found = Style.between([recoloured(picture, grey)], [grey])(picture, np.random.default_rng(0))
    assert np.abs(found - 128).max() < 2


def test_scenes_restyled_after_negatives_are_negatives_with_their_own_geometry() -> None:
    photos = tuple(thermal(sample.image) for sample in scenes.render_batch(range(PHOTOS, PHOTOS + 4), SIZE))
    restyled = RestyledScenes(photos, SIZE, "-grey")
    found, scene = restyled[3], scenes.render(scenes.sample(30_000_003), *SIZE)
    np.testing.assert_array_equal(found.depth, scene.depth)
    np.testing.assert_array_equal(found.normals, scene.normals)
    greys = [image.mean(axis=-1).ravel() for image in (found.image, scene.image)]
    assert np.corrcoef(greys)[0, 1] < -0.8


def test_colours_are_seen_as_the_checkpoint_knows_them(folder: Path) -> None:
    assert settle_colours(parse(recipe(folder))).networks.colours == "-grey"


def test_fine_tuning_lowers_the_error_on_held_out_photos_of_the_look_by_30_percent(
    folder: Path, tmp_path: Path
) -> None:
    held_out = of_the_look(HELD_OUT, 12)

    def error(checkpoint: str) -> float:
        predictor = LotusPredictor(checkpoint, processing_res=SIZE[0], device="cpu", dtype="float32")
        found = [predictor([sample.image])[0].normals for sample in held_out]
        pairs = zip(found, held_out, strict=True)
        return float(np.mean([normal_angles(each, sample.normals).mean() for each, sample in pairs]))

    train([*recipe(folder), "--steps", "4", "--batch-size", "4", "--out", str(tmp_path)])
    assert error(str(tmp_path / "step_0000004")) < 0.7 * error("lotus-tiny")


def test_an_eighth_of_the_batches_is_of_the_photos_and_the_rest_restyled(folder: Path) -> None:
    source = open_source(parse([*recipe(folder), "--networks.colours=-grey"]))
    assert isinstance(source, MixtureBatches)
    assert isinstance(source.mixture.sources[0], RestyledScenes)
    assert len(source.mixture.sources[1]) == 6
    own = [source.mixture.draws(index)[0].source for index in range(400)]
    assert np.mean(own) == pytest.approx(1 / 8, abs=0.05)


def test_colours_cannot_be_chosen_without_photos() -> None:
    with pytest.raises(InputError, match=r"wants photos among data\.sources"):
        settle_colours(parse(["--config", "fine-tune.toml", "--data.sources", "scenes"]))
