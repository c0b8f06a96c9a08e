"""Moves a mesh onto a reference: iterative closest points, rigid or with scale.

Chen and Medioni (1992) for the distance to planes, Besl and McKay (1992) for the distance to points. Pairs
are made both ways, mesh to reference and reference to mesh: one way alone lets the scale shrink until
everything sits on one spot.
"""

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError
from recon.evaluation.targets import CloudTarget, MeshTarget, Points, target_of
from recon.geometry import invert, similarity, transform
from recon.scene import Mesh

MAX_ITERATIONS = 60
CONVERGED = 1e-7  # stops when no sample moves by more than this share of the samples' spread
SAMPLES = 20_000  # on each surface
SEED = 0


def icp(
    mesh: Mesh,
    reference: Mesh,
    *,
    with_scale: bool = False,
    start: Float64[np.ndarray, "4 4"] | None = None,
    overlap: float = 0.9,
) -> Float64[np.ndarray, "4 4"]:
    """Returns `reference_from_mesh`, the transform that moves a mesh onto a reference.

    Minimises sum over the closest pairs of (n . (T p - q))^2, with n the normal of the reference; of
    |T p - q|^2 if the reference is a cloud without normals. It finds the nearest minimum, so the two have to be
    near each other to begin with: a rotation up to about 20 degrees, a shift up to about a tenth of the
    extent.

    Args:
        mesh: What moves; without faces it is taken as a cloud.
        reference: What stays.
        with_scale: Fits a similarity, not only a rotation and a shift.
        start: First guess of the result; identity by default.
        overlap: Share of the pairs, the closest ones, that count in each direction.

    Raises:
        InputError: A surface is empty, or `overlap` is not in (0, 1].
    """
    if not 0 < overlap <= 1:
        raise InputError(f"icp: overlap {overlap}, wanted above 0 and at most 1")
    rng = np.random.default_rng(SEED)
    mesh_target, reference_target = target_of(mesh, "mesh"), target_of(reference, "reference")
    on_mesh, on_reference = mesh_target.samples(SAMPLES, rng)[0], reference_target.samples(SAMPLES, rng)
    moved = np.eye(4) if start is None else start
    spread = float(np.linalg.norm(on_reference[0].std(axis=0)))
    for _ in range(MAX_ITERATIONS):
        forward = _pairs_from_mesh(on_mesh, reference_target, moved, overlap)
        backward = _pairs_from_reference(on_reference, mesh_target, moved, overlap)
        sources, targets = (
            np.concatenate([forward[0], backward[0]]),
            np.concatenate([forward[1], backward[1]]),
        )
        if forward[2] is None or backward[2] is None:
            step = similarity(sources, targets, with_scale)
        else:
            step = _step_to_planes(sources, targets, np.concatenate([forward[2], backward[2]]), with_scale)
        moved = step @ moved
        if np.abs(transform(step, sources) - sources).max() <= CONVERGED * spread:
            break
    return moved


Pairs = tuple[Points, Points, Points | None]


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
    """Returns the moved points of the mesh closest to samples of the reference, the samples, their normals."""
    targets, normals = on_reference
    sources = transform(moved, mesh.closest(transform(invert(moved), targets))[0])
    return _closest_share(sources, targets, normals, overlap)


def _closest_share(sources: Points, targets: Points, normals: Points | None, share: float) -> Pairs:
    gaps = np.linalg.norm(targets - sources, axis=1)
    near = gaps <= np.quantile(gaps, share)
    return sources[near], targets[near], None if normals is None else normals[near]


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
