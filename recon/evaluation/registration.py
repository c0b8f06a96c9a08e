"""Moves a mesh onto a reference: iterative closest points, rigid or with scale.

Distances are to planes (Chen and Medioni, 1992). Pairs are made both ways, mesh to reference and reference
to mesh: one way alone lets the scale shrink until everything sits on one spot.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError
from recon.evaluation.targets import CloudTarget, MeshTarget, Points, target_of
from recon.geometry import invert, transform
from recon.scene import Mesh

MAX_ITERATIONS = 60
CONVERGED = 1e-7  # stops when no sample moves by more than this share of the samples' spread
SAMPLES = 10_000  # on each surface
SETTLING = 15  # iterations in which the share of pairs that count falls to `overlap`: far pairs lead at first
NEIGHBORS = 12  # points that the normal of a cloud's point is fitted to
SEED = 0
FEWEST_POINTS = 3  # distinct ones; fewer leave rotations free whatever their normals are


def icp(
    mesh: Mesh,
    reference: Mesh,
    *,
    with_scale: bool = False,
    start: Float64[np.ndarray, "4 4"] | None = None,
    overlap: float = 0.9,
) -> Float64[np.ndarray, "4 4"]:
    """Returns `reference_from_mesh`, the transform that moves a mesh onto a reference.

    Minimises sum over the closest pairs of (n . (T p - q))^2, with n the normal of the reference, fitted to
    neighbouring points if it is a cloud without normals. It finds the nearest minimum, so the two have to
    be near each other to begin with: a rotation up to about 20 degrees, a shift up to about a tenth of the
    extent.

    Args:
        mesh: What moves; without faces it is taken as a cloud.
        reference: What stays.
        with_scale: Fits a similarity, not only a rotation and a shift.
        start: First guess of the result; identity by default.
        overlap: Share of the pairs, the closest ones, that count in each direction.

    Raises:
        InputError: A surface is empty or has fewer than three distinct points, or `overlap` is not in (0, 1].
    """
    if not 0 < overlap <= 1:
        raise InputError(f"icp: overlap {overlap}, wanted above 0 and at most 1")
    rng = np.random.default_rng(SEED)
    mesh_target = target_of(mesh, "mesh")
    reference_target = target_of(_with_normals(reference), "reference")
    on_mesh, _ = mesh_target.samples(SAMPLES, rng)
    on_reference = reference_target.samples(SAMPLES, rng)
    _check_points(on_mesh, "mesh")
    _check_points(on_reference[0], "reference")
    moved = np.eye(4) if start is None else start
    spread = float(np.linalg.norm(on_reference[0].std(axis=0)))
    for iteration in range(MAX_ITERATIONS):
        share = max(overlap, 1 - (1 - overlap) * iteration / SETTLING)
        forward = _pairs_from_mesh(on_mesh, reference_target, moved, share)
        backward = _pairs_from_reference(on_reference, mesh_target, moved, share)
        sources, targets, normals = (np.concatenate(both) for both in zip(forward, backward, strict=True))
        step = _step_to_planes(sources, targets, normals, with_scale)
        moved = step @ moved
        shift = np.abs(transform(step, sources) - sources).max()
        if share == overlap and shift <= CONVERGED * spread:
            break
    return moved


def _check_points(points: Points, name: str) -> None:
    count = len(np.unique(points, axis=0))
    if count < FEWEST_POINTS:
        raise InputError(f"icp: the {name} has {count} distinct points, at least {FEWEST_POINTS} wanted")


Kept = Float64[np.ndarray, "k 3"]
Pairs = tuple[Kept, Kept, Kept]


def _pairs_from_mesh(
    on_mesh: Points, reference: MeshTarget | CloudTarget, moved: Float64[np.ndarray, "4 4"], overlap: float
) -> Pairs:
    """Returns moved samples of the mesh, their closest points of the reference, and the normals there."""
    sources = transform(moved, on_mesh)
    targets, normals = reference.closest(sources)
    return _closest_share(sources, targets, normals, overlap)


def _pairs_from_reference(
    on_reference: tuple[Points, Points | None],
    mesh: MeshTarget | CloudTarget,
    moved: Float64[np.ndarray, "4 4"],
    overlap: float,
) -> Pairs:
    """Returns moved points of the mesh, closest to samples of the reference; the samples; their normals."""
    targets, normals = on_reference
    sources = transform(moved, mesh.closest(transform(invert(moved), targets))[0])
    return _closest_share(sources, targets, normals, overlap)


def _closest_share(sources: Points, targets: Points, normals: Points | None, share: float) -> Pairs:
    assert normals is not None  # the reference has them, see _with_normals
    gaps = np.linalg.norm(targets - sources, axis=1)
    near = gaps <= np.quantile(gaps, share)
    return sources[near], targets[near], normals[near]


def _with_normals(reference: Mesh) -> Mesh:
    """Gives a cloud without normals those of planes through neighbouring points, of arbitrary sign."""
    if len(reference.faces) or reference.normals is not None or not len(reference.vertices):
        return reference
    from scipy.spatial import cKDTree

    count = min(NEIGHBORS, len(reference.vertices))
    rows = cKDTree(reference.vertices).query(reference.vertices, k=np.arange(1, count + 1))[1]
    local = reference.vertices[rows] - reference.vertices[rows].mean(axis=1, keepdims=True)
    covariance = np.einsum("nki,nkj->nij", local, local)
    return replace(reference, normals=np.linalg.eigh(covariance)[1][:, :, 0])


def _step_to_planes(
    sources: Points, targets: Points, normals: Points, with_scale: bool
) -> Float64[np.ndarray, "4 4"]:
    """Returns the small similarity that brings sources closest to the planes of their targets.

    Solves n . (s (x - c) + w x (x - c) + t) = n . (q - x) for w, t, s in least squares, c the middle of the
    sources. What the planes leave free (a ball's rotation) stays 0: least norm, in units of the spread.
    """
    middle = sources.mean(axis=0)
    spread = np.linalg.norm(sources.std(axis=0))
    local = (sources - middle) / spread
    columns = [np.cross(local, normals), normals]
    if with_scale:
        columns.append(np.einsum("nc,nc->n", local, normals)[:, None])
    residual = np.einsum("nc,nc->n", targets - sources, normals) / spread
    rows = np.concatenate(columns, axis=1)
    solution = np.linalg.lstsq(rows.T @ rows, rows.T @ residual, rcond=1e-9)[0]
    scale = 1 + solution[6] if with_scale else 1.0
    step = np.eye(4)
    step[:3, :3] = max(scale, 0.5) * _rotation(solution[:3])  # a first step may overshoot; no mirror images
    step[:3, 3] = middle + spread * solution[3:6] - step[:3, :3] @ middle
    return step


def _rotation(vector: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Returns the rotation about a vector by its length in radians (Rodrigues)."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, np.finfo(np.float64).tiny)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
