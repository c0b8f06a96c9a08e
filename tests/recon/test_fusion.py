"""The sparse TSDF: known surfaces, invariances, and the fast kernels against the plain reference."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from recon.errors import InputError, PipelineError, ViewError
from recon.fusion import TSDFVolume, choose_voxel_size
from recon.geometry import invert, look_at, project, rotation_from_wxyz, transform
from recon.raycasting import RayCaster
from recon.scene import Camera, Mesh
from tests.recon.fusion_scenes import (
    CAMERA,
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


@pytest.fixture(scope="module")
def sphere():
    return fuse(sphere_poses(30), paint=positions_as_colors)


def test_sphere_from_all_sides_is_within_half_a_voxel_everywhere(sphere):
    mesh = sphere.extract()
    error = np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS)
    assert error.max() < 0.5 * VOXEL
    assert error.mean() < 0.05 * VOXEL


def test_sphere_is_closed_over_block_borders(sphere):
    mesh = sphere.extract()
    assert not boundary_edges(mesh).any()
    euler = len(mesh.vertices) - len(mesh.faces) // 2
    assert euler == 2  # V - E + F of one closed surface without handles; E = 3 F / 2


def test_faces_and_normals_point_to_the_free_side(sphere):
    mesh = sphere.extract()
    corners = mesh.vertices[mesh.faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.einsum("mc,mc->m", across, corners.mean(axis=1)) > 0).all()
    outward = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.einsum("nc,nc->n", mesh.normals, outward).min() > np.cos(np.radians(15))
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)


def test_colors_follow_the_surface(sphere):
    mesh = sphere.extract()
    error = np.abs(mesh.colors - (128 + 60 * mesh.vertices))
    assert error.mean() < 60 * VOXEL / 2  # colour of the nearest pixel, whose footprint is 0.06


def test_slanted_plane_is_exact():
    normal = np.array([0.3, 0.1, -1.0]) / np.linalg.norm([0.3, 0.1, -1.0])
    mesh = fuse([np.eye(4)], see=lambda pose: see_plane(pose, normal, -2.0)).extract()
    assert len(mesh.faces) > 500
    np.testing.assert_allclose(mesh.vertices @ normal, -2.0, atol=1e-3 * VOXEL)
    np.testing.assert_allclose(mesh.normals @ normal, 1, atol=1e-3)


def test_wall_that_faces_the_camera_has_normal_minus_z():
    mesh = fuse([np.eye(4)], see=lambda pose: see_plane(pose, np.array([0.0, 0, -1]), -2.0)).extract()
    np.testing.assert_allclose(mesh.normals, np.broadcast_to([0, 0, -1.0], mesh.normals.shape), atol=1e-4)


def test_maps_without_normals_fuse_by_projective_distance():
    def without_normals(pose):
        depth_map = see_sphere(pose)
        return replace(depth_map, normals=np.zeros_like(depth_map.normals))

    mesh = fuse(sphere_poses(30), see=without_normals).extract()
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - RADIUS).mean() < 0.25 * VOXEL


def test_two_colored_plane_keeps_both_colors():
    def paint(depth_map, _):
        halves = np.zeros((*depth_map.depth.shape, 3), np.uint8)
        halves[:, :32], halves[:, 32:] = [250, 10, 20], [5, 60, 255]
        return halves

    volume = fuse(
        [np.eye(4)] * 3, see=lambda pose: see_plane(pose, np.array([0.0, 0, -1]), -2.0), paint=paint
    )
    mesh = volume.extract()
    left, right = mesh.vertices[:, 0] < -2 * VOXEL, mesh.vertices[:, 0] > 2 * VOXEL
    np.testing.assert_array_equal(np.unique(mesh.colors[left], axis=0), [[250, 10, 20]])
    np.testing.assert_array_equal(np.unique(mesh.colors[right], axis=0), [[5, 60, 255]])


def test_moving_the_world_moves_the_mesh(sphere):
    moved_from_world = np.eye(4)
    moved_from_world[:3, :3] = rotation_from_wxyz(np.array([1.0, np.sqrt(2), np.pi / 5, -np.e / 3]))
    moved_from_world[:3, 3] = [np.pi, -np.e, np.sqrt(3)]
    poses = [pose @ invert(moved_from_world) for pose in sphere_poses(30)]
    moved = fuse(poses, see=lambda pose: see_sphere(pose @ moved_from_world)).extract()
    mesh = sphere.extract()
    there = Mesh(transform(moved_from_world, mesh.vertices), mesh.faces)
    assert RayCaster(there).distance(moved.vertices).max() < 0.25 * VOXEL
    assert RayCaster(moved).distance(there.vertices).max() < 0.25 * VOXEL


def test_a_scene_far_from_the_origin_is_as_exact(sphere):
    far_from_world = np.eye(4)
    far_from_world[:3, 3] = np.round(np.array([3e6, -5e6, 2e5]) / (8 * VOXEL)) * 8 * VOXEL
    poses = [pose @ invert(far_from_world) for pose in sphere_poses(30)]
    far = fuse(poses, see=lambda pose: see_sphere(pose @ far_from_world)).extract()
    error = np.abs(np.linalg.norm(far.vertices - far_from_world[:3, 3], axis=1) - RADIUS)
    assert error.max() < 0.5 * VOXEL


def test_order_of_views_changes_only_rounding(sphere):
    backward = fuse(sphere_poses(30)[::-1], paint=positions_as_colors).extract()
    mesh = sphere.extract()
    np.testing.assert_array_equal(backward.faces, mesh.faces)
    np.testing.assert_allclose(backward.vertices, mesh.vertices, atol=1e-4 * VOXEL)
    np.testing.assert_allclose(backward.colors.astype(int), mesh.colors.astype(int), atol=1)


def test_scaling_the_scene_scales_the_mesh(sphere):
    scale = 137.5

    def see_scaled(pose):
        return see_sphere(pose, radius=RADIUS * scale, sigma=0.01 * scale)

    mesh = sphere.extract()
    scaled = fuse(sphere_poses(30, 3.0 * scale), see=see_scaled, voxel=VOXEL * scale).extract()
    np.testing.assert_array_equal(scaled.faces, mesh.faces)
    np.testing.assert_allclose(scaled.vertices / scale, mesh.vertices, atol=1e-3 * VOXEL)


def test_one_thread_and_three_give_the_same_bytes(sphere):
    parallel = fuse(sphere_poses(30), threads=3, paint=positions_as_colors)
    for name, array in sphere.arrays().items():
        np.testing.assert_array_equal(parallel.arrays()[name], array, err_msg=name)
    one, three = sphere.extract(), parallel.extract()
    for name in ("vertices", "faces", "normals", "colors"):
        assert getattr(one, name).tobytes() == getattr(three, name).tobytes(), name


def test_saved_loaded_continued_is_uninterrupted(sphere, tmp_path):
    poses = sphere_poses(30)
    fuse(poses[:11], paint=positions_as_colors).save(tmp_path / "volume.npz")
    volume = TSDFVolume.load(tmp_path / "volume.npz", threads=1)
    for pose in poses[11:]:
        depth_map = see_sphere(pose)
        volume.integrate(depth_map, pose, positions_as_colors(depth_map, pose))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["volume.npz"]
    for name, array in sphere.arrays().items():
        np.testing.assert_array_equal(volume.arrays()[name], array, err_msg=name)


def test_an_empty_volume_survives_saving(tmp_path):
    TSDFVolume(0.5).save(tmp_path / "empty.npz")
    assert TSDFVolume.load(tmp_path / "empty.npz").size.blocks == 0


def seen_by(volume, depth_map, pose, colors, trust=1.0):
    from recon.fusion.observations import observe
    from recon.fusion.view import frame_of

    frame, block = frame_of(depth_map, pose, volume)
    seen = observe(depth_map, colors, frame, gains=np.ones(3), trust=trust, threads=1)
    return frame, block, seen


def voxels_of(arrays):
    from recon.fusion.reference import Voxels, three, variances, votes

    flat = {name: arrays[name].reshape(-1) for name in ("tsdf", "weight", "variance", "gradient", "color")}
    means = [flat[name].astype(np.float64) for name in ("tsdf", "weight")]
    doubts = variances(flat["variance"]), votes(flat["variance"])
    return Voxels(*means, *doubts, three(flat["gradient"]), three(flat["color"]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("view", [0, 3, 8])
def test_kernels_equal_the_numpy_reference(view, sign):
    from recon.fusion.integration import VOXELS
    from recon.fusion.reference import STEPS, fuse_voxels

    poses = sphere_poses(9)
    volume = fuse(poses, paint=positions_as_colors)  # now all blocks are there
    before = {name: array.copy() for name, array in volume.arrays().items()}
    depth_map, pose = see_sphere(poses[view]), poses[view]
    colors = positions_as_colors(depth_map, pose)
    change = volume.integrate if sign > 0 else volume.remove
    change(depth_map, pose, colors)
    after = volume.arrays()
    frame, block, seen = seen_by(volume, depth_map, pose, colors)
    corners = 8.0 * (before["blocks"] - block)

    points = (corners[:, None] + VOXELS.T).reshape(-1, 3)
    expected, found = fuse_voxels(points, frame, seen, voxels_of(before), sign), voxels_of(after)
    changed, wanted = found.weight != before["weight"].ravel(), expected.weight != before["weight"].ravel()
    touched = changed.reshape(-1, 512).any(axis=1).repeat(512)
    assert changed.sum() > 2000
    assert (changed != wanted)[touched].mean() < 1e-3  # centres that project between two pixels
    close = np.isclose(found.weight, expected.weight, rtol=1e-4, atol=1e-6) & changed & (found.weight > 0)
    share = 0.998 if sign > 0 else 0.99  # small rests of weights are mostly rounding
    assert close.sum() > share * (changed & wanted & (found.weight > 0)).sum()
    close &= found.weight > 0.2 * before["weight"].ravel()  # a small rest of a mean is mostly rounding
    uv = project(frame.K, (points - frame.center) @ frame.rotation.T)
    close &= (np.abs(uv - np.rint(uv)) > 1e-4).all(axis=1)  # between two pixels rounding decides
    atol = 2e-5 if sign > 0 else 2e-4  # which grows by up to five
    np.testing.assert_allclose(found.tsdf[close], expected.tsdf[close], atol=atol)
    off = found.variance[close] - expected.variance[close]
    assert (np.abs(off) <= atol + 2**-7 * expected.variance[close]).all()  # 8 bits,
    assert np.abs(off.mean()) < atol + 2**-11 * expected.variance[close].mean()  # right on average
    gradient, color = (np.clip(mean, 0, STEPS) for mean in (expected.gradient, expected.color))  # as bits are
    np.testing.assert_allclose(found.gradient[close], gradient[close], atol=1.01)
    np.testing.assert_allclose(found.color[close], color[close], atol=1.01)

    voted = found.votes != voxels_of(before).votes
    assert voted.sum() > 400
    assert (found.votes == expected.votes)[touched].mean() > 0.998


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_blocks_seen_through_have_the_votes_of_the_numpy_reference(sign):
    from recon.fusion.integration import VOTES
    from recon.fusion.reference import free_votes

    far, near, pose = *(see_plane(np.eye(4), np.array([0.0, 0, -1]), -z) for z in (3.0, 1.6)), np.eye(4)
    photo = np.zeros((48, 64, 3), np.uint8)
    volume = TSDFVolume(0.05, threads=1)
    volume.integrate(near, pose, photo)
    volume.integrate(far, pose, photo)
    before = volume.arrays()["free"].copy()
    change = volume.integrate if sign > 0 else volume.remove
    change(far, pose, photo)
    arrays = volume.arrays()
    frame, block, seen = seen_by(volume, far, pose, photo)
    points = 8.0 * (arrays["blocks"] - block)[:, None] + VOTES.T
    votes = free_votes(points.reshape(-1, 3), frame, seen).reshape(-1, 64)
    votes[points[:, 0, 2] > frame.center[2] + 2.4 / 0.05] = (
        0  # in blocks of the far wall voxels have the votes
    )
    assert (votes > 0).sum() > 1000
    assert (arrays["free"] == np.maximum(before + int(sign) * votes, 0)).mean() > 0.998


def test_every_voxel_of_a_block_has_a_number():
    from recon.fusion.blocks import VOXEL_NUMBERS
    from recon.fusion.integration import VOXELS

    z, y, x = np.meshgrid(*[np.arange(8)] * 3, indexing="ij")
    np.testing.assert_array_equal(VOXELS[:, VOXEL_NUMBERS], np.stack([x, y, z]) + 0.5)
    np.testing.assert_array_equal(np.sort(VOXEL_NUMBERS.ravel()), np.arange(512))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blocks_in_a_row_start_at_slots_of_their_own(axis):
    from recon.fusion.blocks import pack, slot_of

    coords = np.zeros((1000, 3), np.int32)
    coords[:, axis] = np.arange(1000)
    slots = {slot_of(key, 4096) for key in pack(coords)}
    assert len(slots) > 850  # random ones: 887


def test_voxel_size_scales_with_the_scene_and_holds_pixels_and_noise():
    poses = sphere_poses(5)
    maps = [see_sphere(pose) for pose in poses]
    large = [replace(m, depth=m.depth * np.float32(250), sigma=m.sigma * np.float32(250)) for m in maps]
    size = choose_voxel_size(maps)
    assert choose_voxel_size(large) == pytest.approx(250 * size, rel=1e-5)
    assert 1.0 < size / (2.3 / CAMERA.K[0, 0]) < 2.0  # the sphere is about 2.3 away
    noisy = [replace(m, sigma=m.sigma * np.float32(20)) for m in maps]
    assert choose_voxel_size(noisy) == pytest.approx(0.75 * 0.2)


def test_vague_pixels_do_not_make_voxels_large_even_where_most_are():
    maps = [see_sphere(pose) for pose in sphere_poses(5)]
    vague = []
    for one in maps:
        v, u = np.nonzero(one.depth > 0)
        sigma = one.sigma.copy()
        chosen = np.random.default_rng(0).random(len(v)) < 0.7
        sigma[v[chosen], u[chosen]] *= 50
        vague.append(replace(one, sigma=sigma))
    assert choose_voxel_size(vague) == pytest.approx(choose_voxel_size(maps))


def test_voxels_grow_with_the_spread_of_the_maps_up_to_six_pixels():
    maps = [see_sphere(pose) for pose in sphere_poses(5)]
    size = choose_voxel_size(maps)
    assert choose_voxel_size(maps, 0.5 * size) == size
    assert choose_voxel_size(maps, 2 * size) == pytest.approx(3 * size)
    assert choose_voxel_size(maps, 100 * size) == pytest.approx(4 * size)  # 6 pixels instead of 1.5


def test_voxel_size_of_nothing_is_an_error():
    nothing = depth_map_of(np.zeros((48, 64)), np.zeros((48, 64, 3)))
    with pytest.raises(PipelineError, match="none of the 1 depth maps"):
        choose_voxel_size([nothing])


def test_empty_volume_has_no_mesh():
    volume = TSDFVolume(0.1)
    with pytest.raises(PipelineError, match="volume is empty"):
        volume.extract()
    volume.integrate(depth_map_of(np.zeros((48, 64)), np.zeros((48, 64, 3))), np.eye(4))
    with pytest.raises(PipelineError, match="volume is empty"):
        volume.extract()


def test_asking_for_more_weight_than_there_is_is_an_error(sphere):
    with pytest.raises(PipelineError, match="weight of at least 1e"):
        sphere.extract(min_weight=1e6)


def test_grazing_floor_has_neither_holes_nor_waves():
    camera = Camera.from_fov(160, 120, 60.0)
    up, voxel = np.array([0.0, 0.0, 1.0]), 0.05
    poses = [
        look_at(np.array([x, 0.013, 0.5]), np.array([x + 0.1, 3.0, 0.2]), -up) for x in (-0.3, 0.0, 0.3)
    ]  # rays meet the floor 60 to 80 degrees off its normal
    volume = fuse(poses, see=lambda pose: see_plane(pose, up, 0.0071, camera), voxel=voxel)
    mesh = volume.extract()
    np.testing.assert_allclose(mesh.vertices[:, 2], 0.0071, atol=0.02 * voxel)
    x, y = np.meshgrid(np.arange(-0.3, 0.3, 0.05), np.arange(1.0, 2.5, 0.05))
    floor = np.stack([x.ravel(), y.ravel(), np.full(x.size, 0.0071)], axis=-1)
    assert RayCaster(mesh).distance(floor).max() < 0.02 * voxel


def test_flying_pixels_make_no_surface():
    rng = np.random.default_rng(3)

    def see_with_flyers(pose):
        depth_map = see_plane(pose, np.array([0.0, 0, -1]), -3.0)
        square = np.zeros((48, 64), bool)
        square[12:36, 16:48] = True
        border = square ^ (np.roll(square, 1, 0) & np.roll(square, -1, 0) & np.roll(square, 1, 1) & square)
        depth = np.where(square, 2.0, depth_map.depth)
        depth[border] = rng.uniform(2.2, 2.8, border.sum())
        return depth_map_of(depth, depth_map.normals)

    mesh = fuse([np.eye(4)], see=see_with_flyers, voxel=0.06).extract()
    between = (mesh.vertices[:, 2] > 2.1) & (mesh.vertices[:, 2] < 2.9)
    assert len(mesh.faces) > 1000
    assert not between.any()


def test_space_that_others_see_through_loses_its_surface():
    wall = see_plane(np.eye(4), np.array([0.0, 0, -1]), -3.0)
    ghost = see_plane(np.eye(4), np.array([0.0, 0, -1]), -2.0)
    volume = TSDFVolume(0.06)
    volume.integrate(ghost, np.eye(4))
    for _ in range(12):
        volume.integrate(wall, np.eye(4))
    x, y, z = volume.extract().vertices.T
    cell = 2 * volume.voxel_size  # votes are cast at the centres of cells, which may be outside the picture
    inside = (np.abs(x) < z * 32 / 55.4 - cell) & (np.abs(y) < z * 24 / 55.4 - cell)
    assert z[inside].min() > 2.9
    assert inside.mean() > 0.8


@pytest.mark.parametrize("counted_in", ["cells", "voxels"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_outlines_lie_where_votes_and_weight_are_equal(axis, counted_in):
    from recon.fusion.halo import HALO, HALO_VOXELS, fill_halo
    from recon.fusion.integration import VOTES, VOXELS
    from recon.fusion.smoothing import unsmoothed

    words = np.zeros((27, 4, 512), np.float32)
    words[:, 0], words[:, 1] = -0.4, 10.0
    votes = np.zeros((27, 64), np.uint16)
    blocks = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(27, 3)[:, ::-1]
    lattice, out = (VOTES, votes) if counted_in == "cells" else (VOXELS, words[:, 2].view(np.uint32))
    for outline in np.arange(2.13, 6.0, 0.3):  # voxels from the block's corner; cells are two wide
        middles = 8.0 * blocks[:, None, axis] + lattice[axis]
        out[:] = np.rint(63 * (10.0 + 0.5 * (middles - outline)))
        halo = np.empty(HALO_VOXELS, np.float32)
        rows = np.arange(27, dtype=np.int32)
        stay = unsmoothed(27)
        others = (votes, stay.numbers, stay.values, np.float32(0.02), np.float32(-0.6))
        volume = (rows[None], rows, words, others)
        fill_halo(rows, volume, np.empty(27, np.int64), halo)
        line = np.moveaxis(halo.reshape(HALO, HALO, HALO), 2 - axis, 0)[:, 4, 4]
        before = np.flatnonzero(np.diff(line >= 0))
        assert len(before) == 1
        k = before[0]
        found = k - 0.5 + line[k] / (line[k] - line[k + 1])  # the first voxel's middle is at -1/2
        assert found == pytest.approx(outline, abs=0.02)  # nearly linear in between


def test_outlines_closed_by_free_space_have_the_colour_of_the_surface():
    wall = see_plane(np.eye(4), np.array([0.0, 0, -1]), -3.0)
    depth, near = wall.depth.copy(), (slice(14, 34), slice(20, 44))
    depth[near] = 2.0
    depth_map = depth_map_of(depth, wall.normals)
    volume = TSDFVolume(0.15)
    for _ in range(3):
        volume.integrate(depth_map, np.eye(4), np.full((48, 64, 3), 200, np.uint8))
    surface = volume.extract_surface()
    z = surface.mesh.vertices[:, 2]
    before = z < 2.5
    assert before.sum() > 30
    assert (z[before] > 2.01).sum() >= 8  # the outlines
    np.testing.assert_allclose(surface.mesh.colors[before].astype(int), 200, atol=2)
    assert surface.weights[before].min() > 0


def test_noise_is_averaged_without_shifting_the_wall():
    rng = np.random.default_rng(7)
    voxel = 0.05
    volume = TSDFVolume(voxel)
    for _ in range(40):
        wall = see_plane(np.eye(4), np.array([0.0, 0, -1]), -2.0)
        noise = rng.normal(0, 1.5 * voxel, wall.depth.shape)
        volume.integrate(depth_map_of(wall.depth + noise, wall.normals, sigma=1.5 * voxel), np.eye(4))
    error = volume.extract().vertices[:, 2] - 2.0
    assert abs(np.median(error)) < 0.05 * voxel
    assert np.abs(error).mean() < 0.35 * voxel  # 1.5 / sqrt(40) = 0.24 were all observations used


def test_plate_two_voxels_thin_survives_from_both_sides():
    voxel, thickness = 0.05, 0.1
    volume = TSDFVolume(voxel)
    back = look_at(np.array([0, 0, 4.0 + thickness]), np.array([0, 0, 2.0]), np.array([0.0, 1, 0]))
    volume.integrate(see_plane(np.eye(4), np.array([0.0, 0, -1]), -2.003), np.eye(4))
    volume.integrate(see_plane(back, np.array([0.0, 0, 1]), 2.003 + thickness), back)
    vertices = volume.extract().vertices
    z = vertices[(np.abs(vertices[:, :2]) < 0.6).all(axis=1), 2]  # where both cameras see it
    front, rear = z[z < 2.003 + thickness / 2], z[z >= 2.003 + thickness / 2]
    assert len(front) > 400
    assert len(rear) > 400
    assert np.abs(front - 2.003).max() < voxel
    assert np.abs(rear - 2.003 - thickness).max() < voxel


def test_photo_of_another_size_is_refused():
    with pytest.raises(InputError, match="photo of 32x24 pixels, its depth map has 64x48"):
        TSDFVolume(0.1).integrate(see_sphere(sphere_poses(1)[0]), np.eye(4), np.zeros((24, 32, 3), np.uint8))


def test_photos_for_some_views_only_are_refused(sphere):
    with pytest.raises(InputError, match="all or none"):
        TSDFVolume.from_arrays(sphere.arrays()).integrate(see_sphere(sphere_poses(1)[0]), sphere_poses(1)[0])


def test_depth_beyond_the_grid_is_a_view_error():
    depth = np.full((48, 64), 1e9)
    with pytest.raises(ViewError, match="grid has room"):
        TSDFVolume(0.01).integrate(depth_map_of(depth, np.zeros((48, 64, 3))), np.eye(4))


@pytest.mark.parametrize("size", [0.0, -1.0, np.nan])
def test_voxel_size_must_be_positive(size):
    with pytest.raises(InputError, match="voxel size"):
        TSDFVolume(size)


def test_a_pose_that_is_not_rigid_is_refused():
    with pytest.raises(InputError, match="not a rigid transform"):
        TSDFVolume(0.1).integrate(see_sphere(sphere_poses(1)[0]), np.diag([2.0, 2, 2, 1]))


def test_a_damaged_file_is_an_input_error(tmp_path):
    path = tmp_path / "volume.npz"
    path.write_bytes(b"PK\x03\x04 no volume")
    with pytest.raises(InputError, match="not a TSDF volume"):
        TSDFVolume.load(path)
    with pytest.raises(InputError, match="no such file"):
        TSDFVolume.load(tmp_path / "other.npz")


def test_arrays_that_do_not_fit_are_an_input_error(sphere):
    with pytest.raises(InputError, match="tsdf is"):
        TSDFVolume.from_arrays({**sphere.arrays(), "tsdf": np.zeros((1, 512), np.float32)})


def test_size_counts_what_is_in_use(sphere):
    size = sphere.size
    arrays = sphere.arrays()
    assert size.blocks == len(arrays["blocks"])
    assert size.voxels == 512 * size.blocks
    names = ("tsdf", "weight", "variance", "gradient", "color", "free")
    assert size.bytes == sum(arrays[name].nbytes for name in names)


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    import numba

    from recon.jit import compiled

    njit = numba.njit

    def without_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert compiled(lambda x: x + 1)(2) == 3


def test_importing_fusion_does_not_import_numba():
    code = "import sys, recon.fusion; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
