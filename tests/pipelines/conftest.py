"""A small room with all that a user could bring: photos, a COLMAP model of the true cameras, predictions."""

import pytest

from recon import synthetic
from recon.io import colmap
from tests.pipelines.rooms import Room


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    folder = tmp_path_factory.mktemp("room")
    world = synthetic.room(seed=3)
    capture = synthetic.capture(world, synthetic.room_cameras(world, 160, 120, 8), seed=3, supersample=1)
    synthetic.write_photos(capture, folder / "photos")
    names = enumerate(capture.depth_maps.items())
    predictions = {name: synthetic.distort(truth, seed=number) for number, (name, truth) in names}
    synthetic.write_predictions(predictions, folder / "predictions")
    colmap.write_model(colmap.model_from_scene(capture.scene), folder / "sparse")
    return Room(folder, capture)
