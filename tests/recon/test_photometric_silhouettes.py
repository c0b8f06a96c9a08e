"""What is measured and kept where a thing stands before a background that shows nothing."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from recon import synthetic
from recon.geometry import look_at
from recon.photometric import Photo, flat_prior, merge, refine
from recon.photometric.outlines import beyond_texture
from recon.scene import Camera, DepthMap
from recon.synthetic.shapes import rectangle
from recon.synthetic.worlds import MARBLE

BACKGROUND_DEPTH = 2.5
CLIPPED = 0.3  # relative sigma of a prediction that only says: far


@pytest.fixture(scope="module")
def floating() -> tuple[list[Photo], DepthMap]:
    """Photos of a textured board before nothing; exact depth of the first."""
    board = (rectangle((-0.2, -0.15, 0.0), (0.4, 0.0, 0.0), (0.0, 0.3, 0.0)), replace(MARBLE, size=0.1))
    lamp = synthetic.Lamp((0.5, 0.5, 1.5), 1.5)
    world = synthetic.build_world([board], (lamp,), center=(0.0, 0.0, 0.0))
    camera = Camera.from_fov(96, 72, 35.0)
    centers = [world.center + np.array([x, y, 1.1]) for x, y in ((0, 0), (0.2, 0), (-0.2, 0), (0, 0.2))]
    down = np.array([0.0, 1.0, 0.0])
    cameras = [(camera, look_at(center, world.center, down)) for center in centers]
    capture = synthetic.capture(world, cameras, seed=0)
    photos = [Photo(v.camera, v.cam_from_world, capture.images[v.name]) for v in capture.scene.views]
    return photos, next(iter(capture.depth_maps.values()))


def clipped_prior(exact: DepthMap) -> DepthMap:
    """Right on the board, a wall of unknown depth beside it."""
    board = exact.depth > 0
    depth = np.where(board, exact.depth, np.float32(BACKGROUND_DEPTH))
    return replace(exact, depth=depth, sigma=np.where(board, 0.01, CLIPPED).astype(np.float32) * depth)


def test_a_blank_background_beside_a_silhouette_is_not_measured(floating):
    photos, exact = floating
    found = refine(photos[0], clipped_prior(exact), photos[1:]).depth_map
    board = exact.depth > 0
    beside = binary_dilation(board, iterations=6) & ~binary_dilation(board)  # the next pixel is half board
    assert (found.depth[beside] > 0).mean() < 0.04
    assert (found.depth[board] > 0).mean() > 0.9


def test_a_surface_ends_where_its_texture_does(floating):
    photos, exact = floating
    found = refine(photos[0], flat_prior(exact.camera, 0.9, 1.4), photos[1:]).depth_map
    board = exact.depth > 0
    mixed = binary_dilation(board, iterations=3)  # and what is near the edge itself
    beside = binary_dilation(board, iterations=6) & ~mixed
    assert (found.depth[beside] > 0).mean() < 0.02
    assert (found.depth[board] > 0).mean() > 0.9


def test_what_is_blank_amid_texture_is_measured_and_cut_where_it_meets_the_unknown() -> None:
    colors = np.random.default_rng(0).uniform(0, 255, (20, 40, 3)).astype(np.float32)
    colors[:, 20:26] = 100  # blank for 6 px, texture on both sides
    colors[:, 32:] = 100  # blank to the edge of the picture
    known = np.ones((20, 40), bool)
    known[:, 36:] = False
    beyond = beyond_texture(colors, known)
    assert not beyond[:, :34].any()  # differences and the mean of 3 pixels have texture 2 px farther on
    assert beyond[:, 34:36].all()
    assert not beyond[:, 36:].any()


def test_a_vague_prior_is_kept_only_where_something_was_measured():
    relative_sigma = np.array([[0.01, 0.3, 0.3, 0.01]], np.float32)
    prior = row_of(np.full((1, 4), 2.0), 2 * relative_sigma)
    measured = row_of(np.array([[0, 0, 1.5, 1.5]]), np.full((1, 4), 0.001))
    merged = merge(prior, measured)
    np.testing.assert_allclose(merged.depth, [[2.0, 0.0, 1.5, 1.5]], rtol=1e-4)
    assert (merged.sigma[0, [0, 2, 3]] > 0).all()
    assert merged.sigma[0, 1] == 0


@pytest.mark.parametrize(
    ("relative_sigma", "kept"),
    [
        ([0.004, 0.004, 0.004, 0.05], [True, True, True, False]),  # one guess beside what is known
        ([0.04, 0.04, 0.05, 0.06], [True, True, True, True]),  # all as unsure as the rest
        ([0.001, 0.001, 0.001, 0.02], [True, True, True, True]),  # sure enough
    ],
)
def test_a_guess_beside_a_prior_that_is_sure_elsewhere_is_no_surface(
    relative_sigma: list[float], kept: list[bool]
) -> None:
    prior = row_of(np.full((1, 4), 2.0), 2 * np.array([relative_sigma], np.float32))
    nothing = row_of(np.zeros((1, 4)), np.zeros((1, 4)))
    np.testing.assert_array_equal(merge(prior, nothing).depth[0] > 0, kept)


def row_of(depth: np.ndarray, sigma: np.ndarray) -> DepthMap:
    normals = np.broadcast_to(np.array([0, 0, -1], np.float32), (*depth.shape, 3)).copy()
    return DepthMap(Camera.from_fov(4, 1, 60.0), depth.astype(np.float32), normals, sigma.astype(np.float32))
