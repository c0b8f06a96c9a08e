from dataclasses import replace

import numpy as np
import pytest

from recon import synthetic
from recon.errors import ViewError
from recon.photometric import (
    Measurement,
    choose_neighbours,
    count_witnesses,
    cross_check,
    depth_range,
    flat_prior,
)
from recon.photometric.consistency import CONTRADICTED
from recon.photometric.planes import normals_of, planes_of
from recon.photometric.reference import plain_witnesses
from recon.scene import Camera, DepthMap


@pytest.fixture(scope="module")
def ring() -> synthetic.Capture:
    """24 views around a table, 15 degrees apart."""
    world = synthetic.tabletop(0)
    cameras = synthetic.tabletop_cameras(world, 64, 48, 24)
    points = synthetic.PointSampling(count=600)
    return synthetic.capture(world, cameras, seed=0, supersample=1, points=points)


def numbers(views) -> list[int]:
    return [int(view.name[5:8]) for view in views]


def test_neighbours_are_the_nearest_on_both_sides(ring):
    chosen = numbers(choose_neighbours(ring.scene, ring.scene.views[5], count=2))
    assert sorted(chosen) == [4, 6]


def test_views_that_move_too_little_are_passed_over(ring):
    view = ring.scene.views[5]
    pose = view.cam_from_world.copy()
    pose[0, 3] += 0.005  # half a degree
    twin = replace(view, name="twin", cam_from_world=pose)
    cloud = ring.scene.cloud
    mine = cloud.seen[:, 1] == 5
    seen = np.concatenate([cloud.seen, np.stack([cloud.seen[mine, 0], np.full(mine.sum(), 24)], axis=1)])
    scene = replace(
        ring.scene,
        views=(*ring.scene.views, twin),
        cloud=replace(cloud, seen=seen, uv=np.concatenate([cloud.uv, cloud.uv[mine]])),
    )
    assert "twin" not in [other.name for other in choose_neighbours(scene, view, count=4)]


def test_views_that_share_nothing_are_no_neighbours(ring):
    cloud = ring.scene.cloud
    rows = np.isin(cloud.seen[:, 1], [0, 1])
    scene = replace(ring.scene, cloud=replace(cloud, seen=cloud.seen[rows], uv=cloud.uv[rows]))
    assert numbers(choose_neighbours(scene, scene.views[0], count=4)) == [1]
    assert choose_neighbours(scene, scene.views[9], count=4) == []


def test_without_sparse_points_there_is_no_choice(ring):
    scene = replace(ring.scene, cloud=None)
    with pytest.raises(ViewError, match="sparse points"):
        choose_neighbours(scene, scene.views[0])
    with pytest.raises(ViewError, match="sparse points"):
        depth_range(scene, scene.views[0])


def test_the_depth_range_holds_the_scene(ring):
    view = ring.scene.views[0]
    low, high = depth_range(ring.scene, view)
    depth = ring.depth_maps[view.name].depth
    assert low < depth[depth > 0].min()
    assert high > depth.max()


def test_the_flat_prior_spans_its_range():
    prior = flat_prior(Camera.from_fov(4, 3, 60.0), 1.0, 4.0)
    w, sigma_w = 1 / prior.depth, prior.sigma / prior.depth**2
    np.testing.assert_allclose([w - 3 * sigma_w, w + 3 * sigma_w], [w * 0 + 0.25, w * 0 + 1], rtol=1e-5)


def test_planes_keep_their_normals(ring):
    exact = ring.depth_maps["view_003.png"]
    found = normals_of(planes_of(exact.depth, exact.normals, exact.camera), exact.camera)
    cosine = np.einsum("hwc,hwc->hw", found, exact.normals)[exact.depth > 0]
    assert np.percentile(cosine, 2) > 1 - 1e-5  # the rest is steeper than the kernels take


def test_plane_slopes_are_those_of_inverse_depth():
    camera = Camera(np.array([[50.0, 0, 20], [0, 60, 15], [0, 0, 1]]), 40, 30)
    v, u = np.mgrid[:30, :40] + 0.5
    w = 0.5 + 0.002 * (u - 20) - 0.001 * (v - 15)
    gradient = np.array([0.002, -0.001, 0.5 - 0.002 * 20 + 0.001 * 15])
    normal = -(gradient @ camera.K) / np.linalg.norm(gradient @ camera.K)
    normals = np.broadcast_to(normal.astype(np.float32), (30, 40, 3)).copy()
    planes = planes_of((1 / w).astype(np.float32), normals, camera)
    np.testing.assert_allclose(planes[..., 1], 0.002, rtol=1e-4)
    np.testing.assert_allclose(planes[..., 2], -0.001, rtol=1e-4)


def neighbours_of(ring: synthetic.Capture, *indices: int):
    views = [ring.scene.views[index] for index in indices]
    return [(ring.depth_maps[view.name], view.cam_from_world) for view in views]


def test_exact_depth_is_confirmed_and_not_contradicted(ring):
    view = ring.scene.views[5]
    agree, against = count_witnesses(
        ring.depth_maps[view.name], view.cam_from_world, neighbours_of(ring, 4, 6)
    )
    known = ring.depth_maps[view.name].depth > 0
    assert (agree[known] >= 1).mean() > 0.85
    assert (against[known] > agree[known]).mean() < 0.03  # pixels of one map straddle edges of another


def test_a_floating_patch_is_contradicted_and_a_sunken_one_is_not(ring):
    view = ring.scene.views[5]
    depth_map = ring.depth_maps[view.name]
    counts = [
        count_witnesses(
            replace(depth_map, depth=depth_map.depth * np.float32(factor)),
            view.cam_from_world,
            neighbours_of(ring, 4, 6),
        )
        for factor in (0.8, 1.25)
    ]
    known = depth_map.depth > 0
    assert (counts[0][1][known] >= 1).mean() > 0.8
    assert (counts[1][1][known] >= 1).mean() < 0.1


def test_witnesses_equal_the_reference(ring):
    view = ring.scene.views[5]
    rng = np.random.default_rng(0)
    depth_map = ring.depth_maps[view.name]
    noisy = depth_map.depth * rng.uniform(0.98, 1.02, depth_map.depth.shape).astype(np.float32)
    noisy_map = replace(depth_map, depth=noisy, sigma=np.float32(0.004) * noisy)
    small = ring.depth_maps["view_007.png"]
    others = [*neighbours_of(ring, 3, 4, 6), (small, ring.scene.views[7].cam_from_world)]
    found = count_witnesses(noisy_map, view.cam_from_world, others, threads=2)
    expected = plain_witnesses(noisy_map, view.cam_from_world, others)
    for one, other in zip(found, expected, strict=True):
        assert (one != other).mean() < 1e-3  # rounding at a tolerance's or a pixel's border


def test_the_cross_check_keeps_right_pixels_and_leaves_out_wrong_ones(ring):
    view = ring.scene.views[5]
    exact = ring.depth_maps[view.name]
    wrong = np.zeros(exact.depth.shape, bool)
    wrong[10:20, 10:20] = True
    depth = np.where(wrong, exact.depth * np.float32(0.85), exact.depth)
    measured = Measurement(
        DepthMap(exact.camera, depth, exact.normals, exact.sigma),
        np.ones(depth.shape, np.float32),
        np.zeros(depth.shape, np.uint8),
    )
    found = cross_check(measured, view.cam_from_world, neighbours_of(ring, 3, 4, 6, 7))
    assert not found.depth_map.depth[wrong].any()
    right = ~wrong & (exact.depth > 0)
    assert (found.depth_map.depth[right] == exact.depth[right]).mean() > 0.9
    assert (found.outcome[wrong & (exact.depth > 0)] == CONTRADICTED).all()
