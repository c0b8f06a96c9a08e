"""Photos before a black backdrop: what is black is left out, unless it is to be kept or there are masks."""

import numpy as np
import pytest
from PIL import Image

from lotus.sizes import map_size
from pipelines.graph import Recipe, evaluate
from pipelines.sources import Photos, find_photos, same_ratio, view_recipes
from recon.scene import Camera, Scene, View
from tests.recon.test_backdrop import before_black


def write_photos(folder, backdrops):
    folder.mkdir(exist_ok=True)
    for number, backdrop in enumerate(backdrops):
        photo, _ = before_black(np.random.default_rng(number))
        Image.fromarray(photo if backdrop else np.maximum(photo, 60)).save(folder / f"{number}.png")


def recipe_of(photos: Photos, name="0.png") -> Recipe:
    view = View(name, Camera.from_fov(120, 100, 50.0), np.eye(4))
    return view_recipes(photos, Scene((view,)), {"mask"})["mask"][name]


def mask_of(photos: Photos, name="0.png"):
    return evaluate(recipe_of(photos, name), {})


def test_what_is_black_is_left_out(tmp_path):
    write_photos(tmp_path / "photos", [True, True, False])
    photos = find_photos(tmp_path / "photos", tmp_path)
    mask = mask_of(photos)
    assert not mask[:18].any()
    assert mask[22:-22, 22:-22].all()
    assert mask_of(photos, "2.png").all()


@pytest.mark.parametrize(("backdrops", "keep"), [([True, True], True), ([True, False, False], False)])
def test_nothing_is_left_out_if_asked_or_if_most_photos_have_no_backdrop(tmp_path, backdrops, keep):
    write_photos(tmp_path / "photos", backdrops)
    assert mask_of(find_photos(tmp_path / "photos", tmp_path, keep_backdrop=keep)).all()


def test_a_mask_goes_before_a_backdrop(tmp_path):
    write_photos(tmp_path / "photos", [True, True])
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.full((200, 240), 255, np.uint8)).save(tmp_path / "masks" / "0.png")
    photos = find_photos(tmp_path / "photos", tmp_path, masks=tmp_path / "masks")
    assert mask_of(photos, "0.png").all()
    assert not mask_of(photos, "1.png").all()
    Image.fromarray(np.full((200, 240), 255, np.uint8)).save(tmp_path / "masks" / "1.png")
    assert not find_photos(tmp_path / "photos", tmp_path, masks=tmp_path / "masks").before_black


def test_the_key_of_a_mask_tells_what_it_is_of(tmp_path):
    write_photos(tmp_path / "photos", [True, True])
    found = find_photos(tmp_path / "photos", tmp_path)
    kept = find_photos(tmp_path / "photos", tmp_path, keep_backdrop=True)
    assert len({recipe_of(found, "0.png").key, recipe_of(found, "1.png").key, recipe_of(kept).key}) == 3


@pytest.mark.parametrize("size", [(780, 1063), (1600, 1200), (901, 600), (4000, 500), (333, 1000)])
@pytest.mark.parametrize("longest", [256, 768])
def test_a_map_with_sides_of_whole_latent_cells_shows_all_of_its_photo(
    size: tuple[int, int], longest: int
) -> None:
    camera = Camera.from_fov(*size, 50.0)
    width, height = map_size(*size, longest)
    assert same_ratio(width, height, camera)
    assert not same_ratio(width // 2, height, camera)
    assert not same_ratio(height, width, camera)
