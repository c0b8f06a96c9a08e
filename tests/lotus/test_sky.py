"""The sky in made-up photos that its network has not seen, and in photos of rooms, which have none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from lotus import scenes
from lotus.data import TrainingSample
from lotus.sky import find_sky
from recon.io.images import read_photo

FIRST = 91_000_000  # seeds that nothing was trained on
ROOM = Path(__file__).parents[3] / "shared/data/rgbd_redwood_livingroom1_5"


def samples(kind: str, count: int, size: tuple[int, int] = (256, 192)) -> list[TrainingSample]:
    found, seed = [], FIRST
    while len(found) < count:
        scene = scenes.sample(seed)
        if scene.kind == kind:
            found.append(scenes.render(scene, *size))
        seed += 1
    return found


def test_the_sky_of_streets_and_parks_is_found() -> None:
    outdoors = samples("outdoors", 12)
    found = np.stack([find_sky(sample.image) for sample in outdoors])
    true = np.stack([sample.sky for sample in outdoors])
    assert true.any()
    assert (found & true).sum() > 0.85 * (found | true).sum()
    assert (found & ~true).sum() < 0.02 * (~true).sum()


def test_rooms_have_none() -> None:
    for sample in samples("room", 8):
        assert find_sky(sample.image).mean() <= sample.sky.mean() + 0.005


def test_its_outline_is_the_photos_and_not_the_networks_cells() -> None:
    wrong = near = 0
    for sample in samples("outdoors", 6, (768, 576)):
        found, true = find_sky(sample.image), sample.sky
        band = binary_dilation(true, iterations=12) & binary_dilation(~true, iterations=12)  # half a cell
        wrong, near = wrong + int((found ^ true)[band].sum()), near + int(band.sum())
    assert near > 0
    assert wrong < 0.15 * near


def test_it_scales_with_the_photo() -> None:
    photo = next(s for s in samples("outdoors", 12) if 0.1 < s.sky.mean() < 0.9).image
    large = np.repeat(np.repeat(photo, 3, 0), 3, 1)
    assert (find_sky(large)[1::3, 1::3] == find_sky(photo)).mean() > 0.97


def test_a_large_photo_has_the_outline_of_a_smaller_one() -> None:
    sample = next(s for s in samples("outdoors", 12) if 0.1 < s.sky.mean() < 0.9)
    large = np.repeat(np.repeat(sample.image, 10, 0), 10, 1)  # 2560 px
    found = find_sky(large)
    assert found.shape == large.shape[:2]
    assert (found[5::10, 5::10] == find_sky(sample.image)).mean() > 0.97


def test_a_photo_of_one_colour_and_a_tiny_one_are_answered() -> None:
    for shape in ((1, 1, 3), (7, 300, 3), (64, 48, 3)):
        assert find_sky(np.full(shape, 128, np.uint8)).shape == shape[:2]


@pytest.mark.skipif(not ROOM.is_dir(), reason=f"needs {ROOM}")
def test_a_blank_wall_is_none() -> None:
    photos = sorted(path for path in ROOM.rglob("*") if path.suffix in (".jpg", ".png"))
    colour = [path for path in photos if "depth" not in str(path)]
    assert colour
    for path in colour:
        assert not find_sky(read_photo(path)).any(), path.name


def test_the_sky_is_found_without_diffusers_which_takes_seconds_to_load() -> None:
    code = (
        "import sys, numpy; from lotus.sky import find_sky; find_sky(numpy.full((64, 96, 3), 90, 'uint8')); "
        "sys.exit('diffusers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
