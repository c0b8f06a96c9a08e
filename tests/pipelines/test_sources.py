"""Photos before a black backdrop: what is black is left out, unless it is to be kept or there are masks."""

import numpy as np
import pytest
from PIL import Image

from lotus.sizes import map_size
from pipelines.graph import Recipe, evaluate
from pipelines.predictors import FromFiles
from pipelines.sources import Photo, Photos, ReadMask, find_photos, same_ratio, view_recipes
from recon.errors import InputError
from recon.io.colmap import photo_pixels
from recon.scene import Camera, Lens, Scene, SparseCloud, SparseDepth, View
from tests.recon.test_backdrop import before_black, on_lit_cloth


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


def test_a_good_photo_stays_beside_a_broken_one_of_its_name(tmp_path):
    write_photos(tmp_path, [True])
    (tmp_path / "0.jpg").write_text("no photo")
    photos = find_photos(tmp_path, tmp_path)
    assert list(photos.files) == ["0.png"]
    assert list(photos.dropped) == ["0.jpg"]


def test_pictures_that_are_not_read_are_counted(tmp_path):
    write_photos(tmp_path / "photos", [True])
    for name in ("1.heic", "2.HEIC", "notes.txt", ".hidden"):
        (tmp_path / "photos" / name).touch()
    assert find_photos(tmp_path / "photos", tmp_path).unread == {".heic": 2}


def test_missing_masks_and_predictions_are_named_with_their_subfolder(tmp_path):
    write_photos(tmp_path / "photos", [])
    write_photos(tmp_path / "photos/left", [True])
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"wanted left/0\.png and so on"):
        find_photos(tmp_path / "photos", tmp_path, masks=tmp_path / "masks")
    with pytest.raises(InputError, match=r"no prediction left/0\.npz, nor"):
        FromFiles(tmp_path).check(["left/0.png"])


LENS = Lens("SIMPLE_RADIAL", np.array([420.0, 240.0, 200.0, 0.1]), 480, 400)


@pytest.mark.parametrize("lens", [None, LENS])
def test_dim_cloth_beside_a_thing_with_points_is_left_out(tmp_path, lens):
    photo, thing, cloth, _ = on_lit_cloth(np.random.default_rng(0))
    Image.fromarray(photo).save(tmp_path / "0.png")
    view = View("0.png", Camera.from_fov(120, 100, 60.0), np.eye(4), lens=lens)
    column, row = np.nan_to_num(photo_pixels(view, 240, 200)).astype(int).reshape(-1, 2).T
    shown, around = (mask[row, column].reshape(100, 120) for mask in (thing, cloth))
    row, column = np.nonzero(shown)
    uv = np.stack([column, row], axis=1)[::50] + 0.5
    read = ReadMask(None, Photo("0.png", tmp_path / "0.png"), before_black=True)
    assert read(view=view)[around].mean() > 0.9
    mask = read(view=view, points=SparseDepth(uv, np.ones(len(uv)), np.ones(len(uv))))
    assert mask[around].mean() < 0.1
    assert mask[shown].mean() > 0.95


def test_the_points_of_a_view_tell_its_backdrop(tmp_path):
    write_photos(tmp_path / "photos", [True])
    photos = find_photos(tmp_path / "photos", tmp_path)
    view = View("0.png", Camera.from_fov(120, 100, 50.0), np.eye(4))
    cloud = SparseCloud(
        np.ones((1, 3)), np.zeros((1, 3), np.uint8), np.zeros(1), np.empty((0, 2), np.int64), np.empty((0, 2))
    )
    bare, with_points = (
        view_recipes(photos, scene, {"mask"})["mask"]["0.png"]
        for scene in (Scene((view,)), Scene((view,), cloud))
    )
    assert bare.key != with_points.key
    assert set(with_points.inputs) == {"view", "points"}
    assert np.array_equal(evaluate(bare, {}), evaluate(with_points, {}))


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
