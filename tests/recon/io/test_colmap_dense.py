from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import trimesh

from recon import synthetic
from recon.errors import InputError, ViewError
from recon.geometry import normals_from_depth, rotate, transform
from recon.io import colmap
from recon.scene import Camera, DepthMap

NAME = "folder/photo.jpg"


@pytest.fixture
def depth_map() -> DepthMap:
    rng = np.random.default_rng(0)
    camera = Camera.from_fov(7, 5, 60.0)
    depth = rng.uniform(1, 3, (5, 7)).astype(np.float32)
    depth[1, 2] = 0
    normals = rng.normal(0, 0.2, (5, 7, 3)) - [0, 0, 1]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[1, 2] = 0
    return DepthMap(camera, depth, normals.astype(np.float32), np.float32(0.01) * depth)


def in_file_order(normals: np.ndarray) -> np.ndarray:
    """pycolmap 4.2 gives the memory of a normal map, channel by channel, the shape (h, w, 3) as it is."""
    height, width, _ = normals.shape
    return np.moveaxis(normals.reshape(3, height, width), 0, -1)


def from_file_order(normals: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(normals, -1, 0)).reshape(normals.shape)


def test_colmap_reads_what_is_written(tmp_path, depth_map):
    colmap.write_dense(tmp_path, NAME, depth_map)
    depth, normals = pycolmap.DepthMap(), pycolmap.NormalMap()
    depth.read(tmp_path / "stereo/depth_maps/folder/photo.jpg.geometric.bin")
    normals.read(tmp_path / "stereo/normal_maps/folder/photo.jpg.geometric.bin")
    np.testing.assert_array_equal(depth.to_array(), depth_map.depth)
    np.testing.assert_array_equal(in_file_order(normals.to_array()), depth_map.normals)


def test_what_colmap_writes_is_read(tmp_path, depth_map):
    for kind in ("depth_maps", "normal_maps"):
        (tmp_path / "stereo" / kind / "folder").mkdir(parents=True)
    pycolmap.DepthMap.from_array(depth_map.depth, 0.1, 10).write(
        tmp_path / "stereo/depth_maps/folder/photo.jpg.geometric.bin"
    )
    pycolmap.NormalMap.from_array(from_file_order(depth_map.normals)).write(
        tmp_path / "stereo/normal_maps/folder/photo.jpg.geometric.bin"
    )
    found = colmap.read_dense(tmp_path, NAME, depth_map.camera, relative_sigma=0.01)
    np.testing.assert_array_equal(found.depth, depth_map.depth)
    np.testing.assert_allclose(found.normals, depth_map.normals, atol=1e-6)
    np.testing.assert_allclose(found.sigma, depth_map.sigma)


def test_without_a_normal_map_the_normals_are_those_of_the_depth(tmp_path, depth_map):
    smooth = replace(depth_map, depth=np.full((5, 7), 2, np.float32), sigma=np.full((5, 7), 1, np.float32))
    colmap.write_dense(tmp_path, NAME, smooth)
    (tmp_path / "stereo/normal_maps/folder/photo.jpg.geometric.bin").unlink()
    found = colmap.read_dense(tmp_path, NAME, smooth.camera, relative_sigma=0.01)
    np.testing.assert_array_equal(found.normals, normals_from_depth(smooth.camera.K, smooth.depth))


def test_depth_that_is_none_and_normals_that_look_away_are_repaired(tmp_path, depth_map):
    colmap.write_dense(tmp_path, NAME, depth_map)
    path = tmp_path / "stereo/depth_maps/folder/photo.jpg.geometric.bin"
    bad = depth_map.depth.copy()
    bad[0, :3] = [np.nan, np.inf, -1]
    pycolmap.DepthMap.from_array(bad, 0.1, 10).write(path)
    pycolmap.NormalMap.from_array(from_file_order(-depth_map.normals)).write(
        tmp_path / "stereo/normal_maps/folder/photo.jpg.geometric.bin"
    )
    found = colmap.read_dense(tmp_path, NAME, depth_map.camera, relative_sigma=0.01)
    assert not found.depth[0, :3].any()
    np.testing.assert_allclose(found.normals[1:], depth_map.normals[1:], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ViewError),
        (b"PNG", ViewError),
        (b"7&5&1&abc", ViewError),
        (b"5&7&1&" + bytes(4 * 35), InputError),
        (b"7&5&3&" + bytes(4 * 105), InputError),
    ],
)
def test_damaged_maps_are_refused(tmp_path, depth_map, content, error):
    path = tmp_path / "stereo/depth_maps/photo.jpg.geometric.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(error, match=r"photo\.jpg"):
        colmap.read_dense(tmp_path, "photo.jpg", depth_map.camera, relative_sigma=0.01)


def test_a_missing_map_is_refused(tmp_path, depth_map):
    with pytest.raises(ViewError, match=r"photo\.jpg"):
        colmap.read_dense(tmp_path, NAME, depth_map.camera, relative_sigma=0.01)


def test_colmap_fuses_our_maps_onto_the_surface(tmp_path):
    world = synthetic.plane(0)
    cameras = synthetic.orbit(world, Camera.from_fov(48, 36, 40.0), radius=1.5, height=2.0, count=6)
    capture = synthetic.capture(world, cameras, seed=0, supersample=1)
    colmap.write_model(colmap.model_from_scene(capture.scene), tmp_path / "sparse")
    synthetic.write_photos(capture, tmp_path / "images")
    for name, depth_map in capture.depth_maps.items():
        colmap.write_dense(tmp_path, name, depth_map)
    colmap.write_fusion_list(tmp_path, list(capture.depth_maps))
    options = pycolmap.StereoFusionOptions()
    options.min_num_pixels = 3
    pycolmap.stereo_fusion(tmp_path / "fused.ply", tmp_path, options=options, output_type="ply")
    fused = trimesh.load(tmp_path / "fused.ply").metadata["_ply_raw"]["vertex"]["data"]
    points, normals = (
        np.stack([fused[field] for field in fields], axis=-1).reshape(-1, 3).astype(np.float64)
        for fields in (("x", "y", "z"), ("nx", "ny", "nz"))
    )
    assert len(points) > 200
    local = transform(world.local_from_world, points)
    assert np.abs(local[:, 2]).max() < 0.02  # half a pixel: COLMAP's fusion has centres at whole numbers
    np.testing.assert_allclose(rotate(world.local_from_world, normals) @ [0, 0, 1], 1, atol=1e-5)
