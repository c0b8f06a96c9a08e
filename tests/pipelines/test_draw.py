"""The surface of a first pass as the depth that a second one starts from."""

import numpy as np

from pipelines.stages import Draw
from recon.refinement import unrefined
from recon.scene import Camera, DepthMap, Mesh, View

CAMERA = Camera.from_fov(40, 30, 60.0)
VIEW = View("a", CAMERA, np.eye(4))
STEP = 0.1


def wall() -> Mesh:
    """At depth 2, in the left half of the picture, of right-angled triangles with sides of STEP."""
    along, up = np.arange(-2, STEP / 2, STEP), np.arange(-2, 2, STEP)
    x, y = np.meshgrid(along, up)
    vertices = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], axis=1)
    rows, columns = x.shape
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([corner, corner + columns, corner + 1], axis=1)
    upper = np.stack([corner + 1, corner + columns, corner + columns + 1], axis=1)
    return Mesh(vertices, np.concatenate([lower, upper]))


def settled() -> DepthMap:
    depth = np.full((30, 40), 3, np.float32)
    depth[:5] = 0
    normals = np.zeros((30, 40, 3), np.float32)
    normals[depth > 0] = [0, 0, -1]
    return DepthMap(CAMERA, depth, normals, np.where(depth > 0, np.float32(0.5), np.float32(0)))


def test_depth_is_the_surfaces_and_elsewhere_what_was_settled() -> None:
    drawn = Draw()(view=VIEW, settled=unrefined(settled()), mesh=wall()).depth_map
    left, right = (slice(None), slice(0, 20)), (slice(None), slice(20, None))
    assert np.allclose(drawn.depth[left], 2, atol=1e-5)
    assert np.allclose(drawn.normals[left], [0, 0, -1], atol=1e-5)
    assert np.array_equal(drawn.depth[right], settled().depth[right])
    assert np.array_equal(drawn.sigma[right], settled().sigma[right])


def test_sigma_is_about_a_voxel() -> None:
    drawn = Draw()(view=VIEW, settled=unrefined(settled()), mesh=wall()).depth_map
    assert STEP < drawn.sigma[15, 5] < 2 * STEP
