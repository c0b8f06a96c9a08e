"""Sparse points as structure from motion triangulates them, made from the true surface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from recon.errors import InputError
from recon.geometry import points_from_depth, project, transform
from recon.raycasting import sample_surface
from recon.scene import DepthMap, SparseCloud, View
from recon.synthetic.photos import surface_colors
from recon.synthetic.worlds import World

MIN_COSINE = 0.25  # surfaces seen at over 75 degrees give no matches
CANDIDATES_PER_POINT = 6  # many candidates are hidden, steep or out of every picture
BEHIND = 2e-3  # a point this share of its depth behind the surface that its pixel shows is hidden
GAUSS_NEWTON_STEPS = 3  # from the truth; the second step already moves points by less than 1e-6 of the depth
WRONG_DEPTH = (0.6, 1.6)  # range of the factor by which an outlier is off along a ray


@dataclass(frozen=True)
class PointSampling:
    """How the sparse points come about."""

    count: int = 2000
    """Points at most."""

    noise_px: float = 0.5
    """Standard deviation of a keypoint along u and v, px."""

    outliers: float = 0.0
    """Share of points that are wrong: consistent in all their views, but off along one view's ray."""

    keep: float = 0.7
    """Share of the views seeing a point that find it."""


SFM_LIKE = PointSampling()

Seen = Int64[np.ndarray, "m 2"]
Matrices = Float64[np.ndarray, "v 4 4"]


def triangulated_points(
    world: World,
    views: Sequence[View],
    depth_maps: Mapping[str, DepthMap],
    *,
    sampling: PointSampling,
    rng: np.random.Generator,
) -> SparseCloud:
    """Returns points of the textured surface as SfM would triangulate them.

    Each is seen by at least two views, at the first surface along its ray. Its observations are its
    projections plus keypoint noise; its position is the least squares triangulation of these, so that errors
    are largest along the rays and where baselines are short.

    Raises:
        InputError: A share in `sampling` is outside 0 to 1.
    """
    if not (0 <= sampling.outliers <= 1 and 0 < sampling.keep <= 1):
        raise InputError(f"PointSampling: shares {sampling.outliers} and {sampling.keep}, wanted 0 to 1")
    points, faces = _textured_points(world, CANDIDATES_PER_POINT * sampling.count, rng)
    visible = np.stack([_visible(points, view, depth_maps[view.name]) for view in views], axis=1)
    visible &= rng.random(visible.shape) < sampling.keep
    chosen = np.flatnonzero(visible.sum(axis=1) >= 2)
    chosen = np.sort(rng.permutation(chosen)[: sampling.count])
    points, faces, visible = points[chosen], faces[chosen], visible[chosen]
    footprint = _median_footprint(points, views[0]) if len(points) else 1.0
    colors = surface_colors(world, points, faces, footprint)
    targets = _displaced(points, visible, views, sampling.outliers, rng)
    seen, uv = _observations(targets, visible, views, sampling.noise_px, rng)
    positions, errors = _triangulated(targets, seen, uv, views)
    return _tracked(SparseCloud(positions, colors, errors, seen, uv))


def _textured_points(
    world: World, count: int, rng: np.random.Generator
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "n"]]:
    """Returns random points of all surfaces that are not blank, and their triangles."""
    textured = np.array([not material.is_blank for material in world.materials])[world.face_materials]
    if not textured.any():
        return np.zeros((0, 3)), np.zeros(0, np.int64)
    points, chosen = sample_surface(replace(world.mesh, faces=world.mesh.faces[textured]), count, rng)
    return points, np.flatnonzero(textured)[chosen]


def _visible(points: Float64[np.ndarray, "n 3"], view: View, exact: DepthMap) -> Bool[np.ndarray, "n"]:
    """True for points that lie on the first surface of their pixel, as seen through that pixel's centre.

    The plane of the triangle at the pixel's centre is followed to the point, so that steep surfaces pass.
    """
    camera = view.camera
    points_cam = transform(view.cam_from_world, points)
    uv = project(camera.K, points_cam)
    size = np.array([camera.width, camera.height])
    inside = np.all((uv >= 0) & (uv < size), axis=1)  # False for NaN: behind the camera
    u, v = np.where(inside[:, None], uv, 0).astype(np.int64).T
    seen, normals = exact.depth[v, u], exact.normals[v, u].astype(np.float64)
    surface = points_from_depth(camera.K, exact.depth)[v, u]
    gap = np.einsum("nc,nc->n", points_cam - surface, normals)
    cosine = -np.einsum("nc,nc->n", points_cam, normals) / np.linalg.norm(points_cam, axis=1)
    on_surface = np.abs(gap) < BEHIND * seen
    near = np.abs(points_cam[:, 2] - seen) < 0.05 * seen
    return inside & (seen > 0) & on_surface & near & (cosine > MIN_COSINE)


def _displaced(
    points: Float64[np.ndarray, "n 3"],
    visible: Bool[np.ndarray, "n v"],
    views: Sequence[View],
    outliers: float,
    rng: np.random.Generator,
) -> Float64[np.ndarray, "n 3"]:
    """Moves a share of the points along the ray of the first view that sees each."""
    wrong = rng.permutation(len(points))[: round(outliers * len(points))]
    centers = np.stack([view.center for view in views])[visible[wrong].argmax(axis=1)]
    factors = rng.uniform(*WRONG_DEPTH, (len(wrong), 1))
    moved = points.copy()
    moved[wrong] = centers + factors * (points[wrong] - centers)
    return moved


def _observations(
    points: Float64[np.ndarray, "n 3"],
    visible: Bool[np.ndarray, "n v"],
    views: Sequence[View],
    noise_px: float,
    rng: np.random.Generator,
) -> tuple[Seen, Float64[np.ndarray, "m 2"]]:
    """Returns rows (point, view) ordered by point, and noisy pixels; none is outside its picture."""
    seen = np.argwhere(visible).astype(np.int64)
    K, cam_from_world = _stacked(views)
    points_cam = _in_views(points, seen, cam_from_world)
    uv = np.full((len(seen), 2), np.nan)
    ahead = points_cam[:, 2] > 0
    uv[ahead] = np.einsum("mij,mj->mi", K[seen[ahead, 1], :2], points_cam[ahead] / points_cam[ahead, 2:])
    uv += rng.normal(0, noise_px, uv.shape)
    sizes = np.array([[view.camera.width, view.camera.height] for view in views])[seen[:, 1]]
    inside = ((uv >= 0) & (uv < sizes)).all(axis=1)
    return seen[inside], uv[inside]


def _triangulated(
    start: Float64[np.ndarray, "n 3"], seen: Seen, uv: Float64[np.ndarray, "m 2"], views: Sequence[View]
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n"]]:
    """Returns points of least reprojection error and their mean errors, px, by Gauss-Newton from the truth.

    A point with fewer than two observations, or with rays too parallel to cross, stays where it is.
    """
    K, cam_from_world = _stacked(views)
    points = start.copy()
    for _ in range(GAUSS_NEWTON_STEPS):
        residual, jacobian = _residuals(points, seen, uv, K, cam_from_world)
        normal = np.zeros((len(points), 3, 3))
        gradient = np.zeros((len(points), 3))
        np.add.at(normal, seen[:, 0], np.einsum("mki,mkj->mij", jacobian, jacobian))
        np.add.at(gradient, seen[:, 0], np.einsum("mki,mk->mi", jacobian, residual))
        solvable = np.linalg.cond(normal) < 1e9
        points[solvable] += np.linalg.solve(normal[solvable], gradient[solvable][..., None])[..., 0]
    distances = np.linalg.norm(_residuals(points, seen, uv, K, cam_from_world)[0], axis=1)
    counts = np.bincount(seen[:, 0], minlength=len(points))
    return points, np.bincount(seen[:, 0], distances, len(points)) / np.maximum(counts, 1)


def _residuals(
    points: Float64[np.ndarray, "n 3"],
    seen: Seen,
    uv: Float64[np.ndarray, "m 2"],
    K: Float64[np.ndarray, "v 3 3"],
    cam_from_world: Matrices,
) -> tuple[Float64[np.ndarray, "m 2"], Float64[np.ndarray, "m 2 3"]]:
    """Returns observed minus projected pixels, and how projections change with the point."""
    cam = _in_views(points, seen, cam_from_world)
    z = cam[:, 2:]
    K_seen = K[seen[:, 1], :2]
    projected = np.einsum("mij,mj->mi", K_seen, cam / z)
    by_cam = (K_seen - np.concatenate([np.zeros((len(cam), 2, 2)), projected[..., None]], axis=2)) / z[
        ..., None
    ]
    return uv - projected, by_cam @ cam_from_world[seen[:, 1], :3, :3]


def _in_views(
    points: Float64[np.ndarray, "n 3"], seen: Seen, cam_from_world: Matrices
) -> Float64[np.ndarray, "m 3"]:
    matrices = cam_from_world[seen[:, 1]]
    return np.einsum("mij,mj->mi", matrices[:, :3, :3], points[seen[:, 0]]) + matrices[:, :3, 3]


def _stacked(views: Sequence[View]) -> tuple[Float64[np.ndarray, "v 3 3"], Matrices]:
    return np.stack([view.camera.K for view in views]), np.stack([view.cam_from_world for view in views])


def _median_footprint(points: Float64[np.ndarray, "n 3"], view: View) -> float:
    return float(np.median(np.linalg.norm(points - view.center, axis=1)) / view.camera.K[0, 0])


def _tracked(cloud: SparseCloud) -> SparseCloud:
    """Leaves out the points with fewer than two observations or a position at infinity."""
    counts = np.bincount(cloud.seen[:, 0], minlength=len(cloud.points))
    kept = (counts >= 2) & np.isfinite(cloud.errors)
    rows = kept[cloud.seen[:, 0]]
    renumbered = np.cumsum(kept) - 1
    seen = np.stack([renumbered[cloud.seen[rows, 0]], cloud.seen[rows, 1]], axis=1).astype(np.int64)
    return SparseCloud(cloud.points[kept], cloud.colors[kept], cloud.errors[kept], seen, cloud.uv[rows])
