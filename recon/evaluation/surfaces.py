"""Meshes against a reference: accuracy, completeness, F-score, normal consistency.

The measures are those of Knapitsch et al., "Tanks and Temples" (2017): precision, recall, F-score; and of
Mescheder et al., "Occupancy Networks" (2019): accuracy, completeness, normal consistency. Distances to a
mesh are to its surface, not to samples of it, so they have no floor that depends on the number of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from recon.errors import InputError
from recon.evaluation.targets import Points, extent_of, target_of
from recon.geometry import project, transform
from recon.raycasting import RayCaster
from recon.scene import Mesh, View

RELATIVE_THRESHOLDS = (0.005, 0.01, 0.02, 0.05)  # of the reference's bounding box diagonal
VISIBILITY_SIZE = 640  # longer side of the depth pictures that decide what is visible, px
BEHIND = 0.01  # a point this share of its depth behind the first surface around its pixel is hidden
# Colours of rising error: dark blue, teal, yellow, red; they differ in lightness for the colour-blind too.
ERROR_RAMP = np.array([[38, 52, 138], [38, 150, 150], [250, 225, 90], [205, 40, 40]], np.float64)


@dataclass(frozen=True)
class MeshScore:
    """How close a mesh and a reference are. Distances in the reference's unit."""

    accuracy_mean: float
    """From the mesh to the reference: is what was built true?"""

    accuracy_median: float
    completeness_mean: float
    """From the reference to the mesh: is what is there built?"""

    completeness_median: float
    chamfer: float
    """Mean of `accuracy_mean` and `completeness_mean`."""

    thresholds: tuple[float, ...]
    precision: tuple[float, ...]
    """Share of the mesh within each threshold of the reference."""

    recall: tuple[float, ...]
    """Share of the reference within each threshold of the mesh."""

    f_score: tuple[float, ...]
    """Harmonic mean of precision and recall."""

    normal_consistency: float | None
    """Mean |cosine| between the normals of a sample and of its closest point, both ways averaged; None if
    either has no normals."""

    signed_normal_consistency: float | None
    """The same with the cosine's sign: near -1 for a mesh that is inside out."""


def evaluate_mesh(
    mesh: Mesh,
    reference: Mesh,
    *,
    thresholds: Sequence[float] | None = None,
    samples: int = 200_000,
    seed: int = 0,
    views: Sequence[View] = (),
) -> MeshScore:
    """Scores a mesh against a reference mesh or, if that has no faces, a reference point cloud.

    Args:
        mesh: The result; without faces it is compared as a cloud.
        reference: The truth, in the same frame.
        thresholds: Distances of precision and recall, in the reference's unit; by default 0.5, 1, 2 and 5 %
            of the diagonal of its bounding box.
        samples: Points on each surface, evenly spread over its area.
        seed: Draws the samples.
        views: Where given, only what they could see counts: samples of the mesh inside a picture, samples
            of the reference visible in one.

    Raises:
        InputError: A surface is empty, nothing is visible, or a threshold is not positive.
    """
    limits = _checked_thresholds(thresholds, reference)
    rng = np.random.default_rng(seed)
    mesh_target, reference_target = target_of(mesh, "mesh"), target_of(reference, "reference")
    on_mesh, mesh_normals = mesh_target.samples(samples, rng)
    on_reference, reference_normals = reference_target.samples(samples, rng)
    if views:
        nothing = replace(reference, faces=np.zeros((0, 3), np.int64))
        in_picture = visible_points(on_mesh, views, occluder=nothing)
        on_mesh, mesh_normals = _rows(on_mesh, mesh_normals, in_picture, "mesh")
        visible = visible_points(on_reference, views, occluder=reference)
        on_reference, reference_normals = _rows(on_reference, reference_normals, visible, "reference")
    near_mesh, normals_near_mesh = reference_target.closest(on_mesh)
    near_reference, normals_near_reference = mesh_target.closest(on_reference)
    cosines = _cosines(mesh_normals, normals_near_mesh), _cosines(reference_normals, normals_near_reference)
    return _score(
        np.linalg.norm(near_mesh - on_mesh, axis=1),
        np.linalg.norm(near_reference - on_reference, axis=1),
        limits,
        cosines,
    )


def describe(score: MeshScore) -> str:
    """Returns a score in one line."""
    shares = ", ".join(
        f"F-score {f:.3f} at {limit:.4g}" for limit, f in zip(score.thresholds, score.f_score, strict=True)
    )
    return f"accuracy {score.accuracy_mean:.4g}, completeness {score.completeness_mean:.4g}, {shares}"


def visible_points(points: Points, views: Sequence[View], *, occluder: Mesh) -> Bool[np.ndarray, "n"]:
    """Returns True for points inside the picture of a view and not behind the first surface that it sees.

    Args:
        points: World frame.
        views: Cameras; their photos are not read.
        occluder: What hides points; without faces it hides nothing.
    """
    caster = RayCaster(occluder)
    visible = np.zeros(len(points), bool)
    for view in views:
        camera = view.camera.fitted(VISIBILITY_SIZE)
        points_cam = transform(view.cam_from_world, points)
        uv = project(camera.K, points_cam)
        inside = np.all((uv >= 0) & (uv < np.array([camera.width, camera.height])), axis=1)
        u, v = uv[inside].astype(np.int64).T
        depth = caster.cast(camera, view.cam_from_world).depth
        visible[inside] |= points_cam[inside, 2] <= (1 + BEHIND) * _farthest_around(depth)[v, u]
    return visible


def vertex_distances(mesh: Mesh, reference: Mesh) -> Float64[np.ndarray, "n"]:
    """Returns the distance of every vertex of a mesh to a reference mesh or cloud, for `error_colors`."""
    found = target_of(reference, "reference").closest(mesh.vertices)[0]
    return np.linalg.norm(found - mesh.vertices, axis=1)


def error_colors(mesh: Mesh, distances: Float64[np.ndarray, "n"], limit: float) -> Mesh:
    """Returns the mesh in colours of rising distance: dark blue at 0, teal, yellow, red from `limit` on."""
    shares = distances / max(limit, np.finfo(np.float64).tiny)  # a limit of 0: all exact, all blue
    position = np.clip(shares, 0, 1) * (len(ERROR_RAMP) - 1)
    stops = np.arange(len(ERROR_RAMP))
    channels = [np.interp(position, stops, ERROR_RAMP[:, channel]) for channel in range(3)]
    return replace(mesh, colors=np.rint(np.stack(channels, axis=1)).astype(np.uint8))


def _checked_thresholds(thresholds: Sequence[float] | None, reference: Mesh) -> tuple[float, ...]:
    if thresholds is None:
        return tuple(share * extent_of(reference) for share in RELATIVE_THRESHOLDS)
    if not thresholds or not all(0 < limit < np.inf for limit in thresholds):
        raise InputError(f"thresholds {list(thresholds)}, wanted positive distances")
    return tuple(float(limit) for limit in thresholds)


def _score(
    accuracy: Float64[np.ndarray, "n"],
    completeness: Float64[np.ndarray, "m"],
    thresholds: tuple[float, ...],
    cosines: tuple[Float64[np.ndarray, "a"], Float64[np.ndarray, "b"]],
) -> MeshScore:
    precision = tuple(float((accuracy <= limit).mean()) for limit in thresholds)
    recall = tuple(float((completeness <= limit).mean()) for limit in thresholds)
    has_normals = all(len(part) for part in cosines)
    return MeshScore(
        accuracy_mean=float(accuracy.mean()),
        accuracy_median=float(np.median(accuracy)),
        completeness_mean=float(completeness.mean()),
        completeness_median=float(np.median(completeness)),
        chamfer=float(accuracy.mean() + completeness.mean()) / 2,
        thresholds=thresholds,
        precision=precision,
        recall=recall,
        f_score=tuple(2 * p * r / max(p + r, 1e-12) for p, r in zip(precision, recall, strict=True)),
        normal_consistency=float(np.mean([abs(part).mean() for part in cosines])) if has_normals else None,
        signed_normal_consistency=float(np.mean([part.mean() for part in cosines])) if has_normals else None,
    )


def _cosines(first: Points | None, second: Points | None) -> Float64[np.ndarray, "k"]:
    """Returns one cosine per pair; none at all if either side has no normals."""
    return np.zeros(0) if first is None or second is None else np.einsum("nc,nc->n", first, second)


def _rows(
    points: Points, normals: Points | None, kept: Bool[np.ndarray, "n"], name: str
) -> tuple[Float64[np.ndarray, "k 3"], Float64[np.ndarray, "k 3"] | None]:
    if not kept.any():
        raise InputError(f"none of the {len(kept)} samples of the {name} is visible in the views")
    return points[kept], None if normals is None else normals[kept]


def _farthest_around(depth: np.ndarray) -> Float64[np.ndarray, "h w"]:
    """The farthest depth of each 3x3 window, so that slopes and edges hide nothing; infinite at holes."""
    from scipy.ndimage import maximum_filter

    return maximum_filter(np.where(depth > 0, depth.astype(np.float64), np.inf), size=3, mode="nearest")
