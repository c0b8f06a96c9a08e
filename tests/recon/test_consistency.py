"""Votes of neighbours: a surface is confirmed, a ghost before it is dropped, hidden things are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from recon.consistency import Agreement, check, depth_spread
from recon.geometry import look_at
from recon.raycasting import RayCaster
from recon.scene import Camera, DepthMap, View
from recon.synthetic import box_room, exact_depth

CAMERA = Camera.from_fov(48, 36, 70.0)
WORLD = box_room()
CASTER = RayCaster(WORLD.mesh)
OFFSETS = ((0.0, 0.0, 0.0), (0.5, 0.1, 0.0), (-0.5, 0.0, 0.1), (0.1, 0.5, 0.0), (0.1, -0.5, 0.1))


def posed(index: int) -> tuple[View, DepthMap]:
    """A view from near the middle of the room toward one wall, with a sigma of 1 %."""
    center = WORLD.center + OFFSETS[index]
    cam_from_world = look_at(center, center + np.array([1.0, 0.2, 0.1]), WORLD.down)
    depth_map = exact_depth(CASTER, CAMERA, cam_from_world)
    return View(f"{index}.png", CAMERA, cam_from_world), replace(depth_map, sigma=0.01 * depth_map.depth)


def checked(changed: DepthMap | None = None, others: int = 4) -> Agreement:
    view, depth_map = posed(0)
    return check(view, changed or depth_map, [posed(index) for index in range(1, 1 + others)])


def with_depth_factor(factor: float) -> DepthMap:
    """The first view's map, its middle nearer or farther."""
    _, depth_map = posed(0)
    depth = depth_map.depth.copy()
    depth[14:22, 20:28] *= factor
    return replace(depth_map, depth=depth)


def test_true_depth_is_confirmed_and_kept() -> None:
    agreement = checked()
    assert np.array_equal(agreement.depth_map.depth, posed(0)[1].depth)
    assert (agreement.confirming >= 2).mean() > 0.5
    assert not agreement.contradicting.any()
    assert agreement.dropped_share == 0


def test_ghost_before_the_wall_is_dropped() -> None:
    agreement = checked(with_depth_factor(0.7))
    assert not agreement.depth_map.depth[14:22, 20:28].any()
    assert not agreement.depth_map.sigma[14:22, 20:28].any()
    assert not agreement.depth_map.normals[14:22, 20:28].any()
    assert agreement.dropped_share == pytest.approx(64 / (36 * 48))


def test_ghost_behind_the_wall_may_be_hidden_and_stays() -> None:
    agreement = checked(with_depth_factor(1.3))
    assert agreement.depth_map.depth[14:22, 20:28].all()
    assert not agreement.contradicting[14:22, 20:28].any()


def test_one_objection_makes_uncertain() -> None:
    changed = with_depth_factor(0.7)
    agreement = checked(changed, others=1)
    seen_through = agreement.contradicting > 0
    assert seen_through.any()
    assert np.allclose(agreement.depth_map.sigma[seen_through], 2 * changed.sigma[seen_through])
    assert agreement.depth_map.depth.all()


def without_depth(posed_map: tuple[View, DepthMap]) -> tuple[View, DepthMap]:
    view, depth_map = posed_map
    nothing = (
        np.zeros_like(depth_map.depth),
        np.zeros_like(depth_map.normals),
        np.zeros_like(depth_map.sigma),
    )
    return view, DepthMap(CAMERA, *nothing)


def test_what_three_look_at_in_vain_and_none_confirms_is_dropped() -> None:
    view, depth_map = posed(0)
    blind = [without_depth(posed(index)) for index in (1, 2, 3)]
    two, three = check(view, depth_map, blind[:2]), check(view, depth_map, blind)
    assert two.depth_map.depth.all()
    looked_at = three.missing == 3
    assert looked_at.mean() > 0.3
    assert not three.depth_map.depth[looked_at].any()
    assert three.depth_map.depth[~looked_at].all()
    assert three.dropped_share == pytest.approx(looked_at.mean())
    with_witness = check(view, depth_map, [*blind, posed(4)])
    assert with_witness.depth_map.depth[with_witness.confirming > 0].all()


def test_uncertain_depth_contradicts_nothing() -> None:
    changed = with_depth_factor(0.7)
    agreement = checked(replace(changed, sigma=0.4 * changed.depth))
    assert not agreement.contradicting.any()
    assert not agreement.confirming[14:22, 20:28].any()


def test_no_neighbours_change_nothing() -> None:
    view, depth_map = posed(0)
    agreement = check(view, depth_map, [])
    assert np.array_equal(agreement.depth_map.depth, depth_map.depth)
    assert np.array_equal(agreement.depth_map.sigma, depth_map.sigma)


def test_order_of_neighbours_does_not_matter() -> None:
    view, _ = posed(0)
    changed, near = with_depth_factor(0.7), [posed(index) for index in range(1, 5)]
    one, other = check(view, changed, near), check(view, changed, near[::-1])
    assert np.array_equal(one.depth_map.sigma, other.depth_map.sigma)


def test_scaling_the_scene_changes_no_vote() -> None:
    view, _ = posed(0)
    changed = with_depth_factor(0.7)

    def scaled(view: View, depth_map: DepthMap) -> tuple[View, DepthMap]:
        moved = view.cam_from_world.copy()
        moved[:3, 3] *= 16
        return (
            replace(view, cam_from_world=moved),
            replace(depth_map, depth=16 * depth_map.depth, sigma=16 * depth_map.sigma),
        )

    near = [posed(index) for index in range(1, 5)]
    large = check(*scaled(view, changed), [scaled(*one) for one in near])
    small = check(view, changed, near)
    assert (large.confirming == small.confirming).mean() > 0.999
    assert (large.contradicting == small.contradicting).mean() > 0.999


@pytest.mark.parametrize("size", [(24, 18), (96, 72)])
def test_maps_of_other_sizes_vote_the_same(size: tuple[int, int]) -> None:
    view, depth_map = posed(0)
    near = []
    for index in range(1, 5):
        other, _ = posed(index)
        camera = CAMERA.resized(*size)
        exact = exact_depth(CASTER, camera, other.cam_from_world)
        near.append((other, replace(exact, sigma=0.01 * exact.depth)))
    agreement = check(view, depth_map, near)
    assert not agreement.contradicting.any()
    assert (agreement.confirming >= 1).mean() > 0.5


def noisy(index: int, deviation: float) -> tuple[View, DepthMap]:
    view, depth_map = posed(index)
    noise = np.random.default_rng(index).normal(0, deviation, depth_map.depth.shape)
    return view, replace(depth_map, depth=(depth_map.depth + noise).astype(np.float32))


def test_spread_is_the_noise_that_sigma_does_not_know() -> None:
    for deviation in (0.01, 0.03):
        view, depth_map = noisy(0, deviation)
        found = depth_spread(view, depth_map, [noisy(index, deviation) for index in range(1, 5)])
        assert 0.75 < found / deviation < 1.05  # four taps of the neighbour are averaged: 0.85
    assert depth_spread(*posed(0), [posed(index) for index in range(1, 5)]) < 1e-4


def test_hidden_and_far_off_pixels_leave_the_spread_alone() -> None:
    view, depth_map = noisy(0, 0.02)
    others = [noisy(index, 0.02) for index in range(1, 5)]
    depth = depth_map.depth.copy()
    depth[:, :16] *= 1.3
    depth[:, 16:20] *= 0.7
    changed = depth_spread(view, replace(depth_map, depth=depth), others)
    assert changed == pytest.approx(depth_spread(view, depth_map, others), rel=0.1)


def test_spread_of_views_that_share_nothing_is_unknown() -> None:
    view, depth_map = posed(0)
    assert np.isnan(depth_spread(view, depth_map, []))
    turned = replace(view, cam_from_world=np.diag([-1.0, 1.0, -1.0, 1.0]) @ view.cam_from_world)
    assert np.isnan(depth_spread(view, depth_map, [(turned, depth_map)]))
