"""Volumes that change: views taken away or moved, merging, memory limits, queries, outliers, exposure."""

import numpy as np
import pytest

from recon.errors import InputError, PipelineError
from recon.fusion import TSDFVolume
from recon.fusion.reference import variances, votes
from recon.geometry import look_at
from recon.scene import Camera
from tests.recon.fusion_scenes import (
    RADIUS,
    VOXEL,
    boundary_edges,
    depth_map_of,
    fuse,
    positions_as_colors,
    see_plane,
    see_sphere,
    sphere_poses,
)

WALL = np.array([0.0, 0, -1])


def by_block(volume):
    """The volume's arrays in the order of the blocks of the world."""
    arrays = volume.arrays()
    blocks = arrays["blocks"] + arrays["origin"]
    order = np.lexsort(blocks.T)
    found = {name: arrays[name][order] for name in ("tsdf", "weight", "free")}
    words = arrays["variance"][order]
    return {"blocks": blocks[order], "variance": variances(words), "votes": votes(words), **found}


def add(volume, poses):
    for pose in poses:
        depth_map = see_sphere(pose)
        volume.integrate(depth_map, pose, positions_as_colors(depth_map, pose))


@pytest.fixture(scope="module")
def sphere():
    return fuse(sphere_poses(30), paint=positions_as_colors)


def test_a_view_taken_away_was_never_there():
    poses = sphere_poses(12)
    volume = fuse(poses, paint=positions_as_colors)
    gone = poses[5]
    volume.remove(see_sphere(gone), gone, positions_as_colors(see_sphere(gone), gone))
    without = fuse(poses[:5] + poses[6:], paint=positions_as_colors)
    mesh, expected = volume.extract(), without.extract()
    np.testing.assert_array_equal(mesh.faces, expected.faces)
    np.testing.assert_allclose(mesh.vertices, expected.vertices, atol=1e-3 * VOXEL)
    error = np.abs(mesh.colors.astype(int) - expected.colors)
    assert np.quantile(error, 0.999) <= 3  # rounding by chance grows with what a view was of the whole
    assert len(volume.views) == 11


def test_a_view_moved_is_as_if_it_had_always_been_there():
    poses = sphere_poses(12)
    wrong = poses[7].copy()
    wrong[:3, 3] += [0.3, -0.2, 0.4]
    depth_map = see_sphere(poses[7])
    colors = positions_as_colors(depth_map, poses[7])
    volume = fuse(poses[:7], paint=positions_as_colors)
    volume.integrate(depth_map, wrong, colors)
    add(volume, poses[8:])
    volume.reintegrate(depth_map, wrong, poses[7], colors)
    mesh, expected = volume.extract(), fuse(poses, paint=positions_as_colors).extract()
    there = np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS)
    assert there.max() < 0.5 * VOXEL
    assert abs(len(mesh.faces) - len(expected.faces)) < 0.01 * len(expected.faces)


def test_a_view_that_is_not_there_cannot_be_taken_away(sphere):
    pose = sphere_poses(7)[3]
    volume = TSDFVolume.from_arrays(sphere.arrays())
    with pytest.raises(InputError, match="no view was integrated with this pose"):
        volume.remove(see_sphere(pose), pose, np.zeros((48, 64, 3), np.uint8))


def test_two_halves_merged_are_the_whole(sphere):
    poses = sphere_poses(30)
    first, second = (
        fuse(poses[:13], paint=positions_as_colors),
        fuse(poses[13:], paint=positions_as_colors),
    )
    first.merge(second)
    mesh, whole = first.extract(), sphere.extract()
    np.testing.assert_array_equal(mesh.faces, whole.faces)
    np.testing.assert_allclose(mesh.vertices, whole.vertices, atol=1e-3 * VOXEL)
    np.testing.assert_allclose(mesh.colors.astype(int), whole.colors.astype(int), atol=2)
    ours, theirs = by_block(first), by_block(sphere)
    np.testing.assert_array_equal(ours["blocks"], theirs["blocks"])
    np.testing.assert_allclose(ours["variance"], theirs["variance"], rtol=2**-6, atol=1e-3)
    assert len(first.views) == 30


def test_merging_into_nothing_copies(sphere):
    empty = TSDFVolume(VOXEL)
    empty.merge(sphere)
    np.testing.assert_array_equal(empty.extract().vertices, sphere.extract().vertices)


def test_volumes_of_different_grids_are_not_merged(sphere):
    with pytest.raises(InputError, match="cannot be merged"):
        TSDFVolume(VOXEL * 2).merge(sphere)


def test_a_memory_limit_changes_no_byte(sphere, tmp_path):
    fine = VOXEL / 8
    free = fuse(sphere_poses(6), voxel=fine, paint=positions_as_colors)
    tight = TSDFVolume(fine, threads=1, memory=free.size.bytes / 4, folder=tmp_path)
    add(tight, sphere_poses(6))
    assert tight.pages.paged
    assert tight.pages.words.nbytes < free.size.bytes / 3
    assert list(tmp_path.iterdir())
    for name, array in free.arrays().items():
        np.testing.assert_array_equal(tight.arrays()[name], array, err_msg=name)
    mesh, expected = tight.extract(), free.extract()
    for name in ("vertices", "faces", "normals", "colors"):
        np.testing.assert_array_equal(getattr(mesh, name), getattr(expected, name), err_msg=name)
    points = np.random.default_rng(0).uniform(-1.1, 1.1, (500, 3))
    np.testing.assert_array_equal(tight.weights_at(points), free.weights_at(points))
    tight.save(tmp_path / "tight.npz")
    loaded = TSDFVolume.load(tmp_path / "tight.npz", memory=free.size.bytes / 4)
    np.testing.assert_array_equal(loaded.extract().vertices, expected.vertices)


def test_space_is_free_occupied_or_unknown():
    volume = TSDFVolume(0.05)
    volume.integrate(see_plane(np.eye(4), WALL, -2.0), np.eye(4))
    z = np.array([1.93, 2.07, 2.9, -1.0, 0.3])
    points = np.stack([np.full(5, 0.013), np.full(5, 0.013), z], axis=-1)
    np.testing.assert_array_equal(volume.free(points), [True, False, False, False, False])
    np.testing.assert_array_equal(volume.occupied(points), [False, True, False, False, False])
    np.testing.assert_array_equal(volume.observed(points), [True, True, False, False, False])


def test_an_empty_volume_has_observed_nothing():
    assert not TSDFVolume(0.05).observed(np.zeros((3, 3))).any()


def test_what_others_see_through_becomes_free():
    wall, ghost = see_plane(np.eye(4), WALL, -3.0), see_plane(np.eye(4), WALL, -2.0)
    volume = TSDFVolume(0.06)
    volume.integrate(ghost, np.eye(4))
    behind = np.array([[0.01, 0.01, 2.05]])
    assert volume.occupied(behind).all()
    for _ in range(12):
        volume.integrate(wall, np.eye(4))
    assert volume.free(behind).all()
    assert not volume.occupied(behind).any()


def test_a_surface_moves_little_for_outliers():
    volume = TSDFVolume(0.05)
    for k in range(40):
        offset = 0.16 if k % 5 == 4 else 0.0  # each fifth map is off by more than three voxels
        volume.integrate(see_plane(np.eye(4), WALL, -2.0 + offset), np.eye(4))
    z = volume.extract().vertices[:, 2]
    assert abs(np.median(z) - 2.0) < 0.2 * 0.05


def test_variance_is_that_of_the_distances():
    rng = np.random.default_rng(5)
    volume, sigma = TSDFVolume(0.05), 0.04
    for _ in range(40):
        shift = rng.normal(0, sigma)
        volume.integrate(see_plane(np.eye(4), WALL, -2.0 + shift, sigma=sigma), np.eye(4))
    arrays = volume.arrays()
    near = (arrays["weight"] > 0.5 * arrays["weight"].max()) & (np.abs(arrays["tsdf"]) < 0.25)
    found = np.sqrt(np.median(variances(arrays["variance"][near]))) * volume.truncation
    assert found == pytest.approx(sigma, rel=0.25)  # of 40 draws it is known to 11 %


def test_gradients_are_the_normals_seen():
    normal = np.array([0.3, 0.1, -1.0]) / np.linalg.norm([0.3, 0.1, -1.0])
    volume = TSDFVolume(0.05)
    for _ in range(5):
        volume.integrate(see_plane(np.eye(4), normal, -2.0), np.eye(4))
    words = volume.arrays()["gradient"][volume.arrays()["weight"] > 0]
    found = np.stack([words & 2047, words >> 11 & 2047, words >> 22], axis=-1) / [2046, 2046, 1022] * 2 - 1
    assert np.linalg.norm(found - normal, axis=1).max() < 0.006  # steps are 0.001 and 0.002


def test_a_camera_that_stands_still_does_not_outvote_others():
    volume = TSDFVolume(0.05)
    for _ in range(200):
        volume.integrate(see_plane(np.eye(4), WALL, -2.0), np.eye(4))
    trusts = [view.trust for view in volume.views]
    assert trusts[:8] == [1.0] * 8
    assert sum(trusts) < 40  # 8 (1 + ln(200 / 8)) = 34


def test_a_darker_photo_is_brought_to_the_others_exposure():
    def paint(gain):
        stripes = 60 + 40 * np.sin(np.arange(64) / 3)
        return np.broadcast_to((gain * stripes)[None, :, None], (48, 64, 3)).astype(np.uint8)

    volume = TSDFVolume(0.05)
    wall = see_plane(np.eye(4), WALL, -2.0)
    volume.integrate(wall, np.eye(4), paint(1.6))
    before = volume.extract().colors.astype(int)
    for _ in range(6):
        volume.integrate(wall, np.eye(4), paint(1.0))
    np.testing.assert_allclose([view.gains for view in volume.views[1:]], 1.6, rtol=0.03)
    assert np.abs(volume.extract().colors - before).mean() < 2


def test_pieces_that_nothing_makes_sure_of_are_left_out():
    volume = TSDFVolume(0.05)
    volume.integrate(see_plane(np.eye(4), WALL, -2.0), np.eye(4))
    away = look_at(np.array([30.0, 0, 0]), np.array([30.0, 0, 1]), np.array([0.0, 1, 0]))
    volume.integrate(see_plane(away, WALL, -2.0, sigma=0.2), away)
    weak = volume.extract(min_weight=0.01, sure_weight=0.01).vertices
    sure = volume.extract(min_weight=0.01, sure_weight=0.5).vertices
    assert weak[:, 0].max() > 20
    assert sure[:, 0].max() < 10
    assert len(sure) == (weak[:, 0] < 10).sum()


def test_weights_come_with_the_surface(sphere):
    surface = sphere.extract_surface()
    assert len(surface.weights) == len(surface.mesh.vertices)
    assert surface.weights.min() >= 0.02


@pytest.mark.parametrize("options", [{}, {"memory": 3e6}, {"device": "cpu:0"}])
def test_room_made_beforehand_changes_no_byte(options):
    poses = sphere_poses(6)
    reserved, plain = TSDFVolume(VOXEL, **options), TSDFVolume(VOXEL, **options)
    reserved.reserve(500, colored=True)
    assert reserved.size.blocks == 0
    with pytest.raises(PipelineError, match="volume is empty"):
        reserved.extract()
    add(reserved, poses[:3])
    reserved.reserve(1000, colored=True)  # what is there stays
    add(reserved, poses[3:])
    add(plain, poses)
    expected = plain.arrays()
    for name, array in reserved.arrays().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_room_for_other_blocks_than_the_views_is_refused(sphere):
    with pytest.raises(InputError, match="room for blocks without colours, unlike the views'"):
        sphere.reserve(10, colored=False)
    with pytest.raises(InputError, match="room for 0 blocks, wanted at least one"):
        TSDFVolume(0.1).reserve(0, colored=True)


def test_a_memory_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"memory of 0\.0"):
        TSDFVolume(0.1, memory=0.0)


def test_ten_thousand_random_updates_equal_a_dense_array():
    """Random planes from random places; every voxel of a dense grid is updated by the reference."""
    from recon.fusion.integration import VOXELS
    from recon.fusion.observations import observe
    from recon.fusion.reference import Voxels, fuse_voxels
    from recon.fusion.view import frame_of

    rng = np.random.default_rng(11)
    camera, voxel, blocks = Camera.from_fov(12, 9, 50.0), 0.1, 4
    grid = np.stack(np.meshgrid(*[np.arange(blocks)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    volume = TSDFVolume(voxel, threads=1)
    n = len(grid) * 512
    none = np.zeros(n, np.int64)
    dense = Voxels(np.zeros(n), np.zeros(n), np.zeros(n), none, np.zeros((n, 3)), np.zeros((n, 3)))
    updates = 0
    while updates < 10_000:
        center = rng.uniform(0.5, 2.7, 3)
        pose = look_at(center, center + rng.normal(0, 1, 3), rng.normal(0, 1, 3))
        depth = np.full((9, 12), rng.uniform(0.3, 1.5))
        depth_map = depth_map_of(depth, np.broadcast_to(WALL, (9, 12, 3)), 0.02, camera)
        colors = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
        volume.integrate(depth_map, pose, colors)
        view = volume.views[-1]
        frame, block = frame_of(depth_map, pose, volume)
        seen = observe(depth_map, colors, frame, gains=view.gains, trust=view.trust, threads=1)
        points = (8.0 * (grid - volume.origin - block)[:, None] + VOXELS.T).reshape(-1, 3)
        after = fuse_voxels(points, frame, seen, dense)
        updates += int((after.weight != dense.weight).sum())
        dense = after
    centers = ((8 * grid[:, None] + VOXELS.T) * voxel).reshape(-1, 3)
    read = volume.weights_at(centers)
    known = read[:, 1] > 0
    same = np.isclose(read[:, 1], dense.weight, rtol=1e-3, atol=1e-6) & known
    assert updates >= 10_000
    assert same.sum() > 0.99 * known.sum()  # blocks that a later view made lack the edge of earlier ones
    np.testing.assert_allclose(read[same, 0], dense.tsdf[same], atol=2e-3)


def test_a_loaded_volume_can_lose_a_view(tmp_path):
    poses = sphere_poses(9)
    fuse(poses, paint=positions_as_colors).save(tmp_path / "volume.npz")
    volume = TSDFVolume.load(tmp_path / "volume.npz", threads=1)
    gone = poses[2]
    volume.remove(see_sphere(gone), gone, positions_as_colors(see_sphere(gone), gone))
    expected = fuse(poses[:2] + poses[3:], paint=positions_as_colors).extract()
    np.testing.assert_allclose(volume.extract().vertices, expected.vertices, atol=1e-3 * VOXEL)


def test_paged_surface_is_closed(tmp_path):
    volume = TSDFVolume(VOXEL / 4, threads=1, memory=1.0, folder=tmp_path)  # as little as possible
    add(volume, sphere_poses(30))
    assert volume.pages.paged
    assert not boundary_edges(volume.extract()).any()
