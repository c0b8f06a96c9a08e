"""The surface of a volume, without pieces that nothing makes sure of."""

from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np
from jaxtyping import Bool

from recon.errors import PipelineError
from recon.fusion.blocks import SIDE
from recon.fusion.marching_cubes import Triangles, extract_triangles
from recon.fusion.smoothing import smooth_noise, unsmoothed
from recon.fusion.volume import Surface
from recon.jit import compiled
from recon.scene import Mesh

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

# Farther behind, the way from what is solid to what was seen through is no surface; cells that a surface cuts
# are nearer.
DEEPEST, DEEPEST_VOXELS = 0.6, 2.0  # of the truncation distance


def extract_surface(volume: "TSDFVolume", min_weight: float, sure_weight: float, smooth: bool) -> Surface:
    """Returns the surface where the weight is at least `min_weight`, of pieces that reach `sure_weight`.

    `smooth`: distances are averaged where views disagree (`smoothing`).

    Raises:
        PipelineError: There is no surface.
    """
    pages = volume.pages
    if volume.origin is None or not len(volume.index):
        raise PipelineError("the volume is empty: no view brought usable depth into it")
    deepest = -max(DEEPEST, DEEPEST_VOXELS * volume.voxel_size / volume.truncation)
    reach = volume.truncation / volume.voxel_size
    smoothed = (
        smooth_noise(volume.index, pages, reach, volume.threads) if smooth else unsmoothed(len(volume.index))
    )
    limits = (min_weight, deepest)
    triangles = extract_triangles(volume.index, pages, volume.free_votes, smoothed, limits, volume.threads)
    triangles = _sure(triangles, sure_weight)
    if not len(triangles.faces):
        raise PipelineError(
            f"no surface among {volume.size.voxels} voxels with a weight of at least {min_weight:g}"
        )
    vertices = triangles.vertices
    vertices += SIDE * volume.origin
    vertices *= volume.voxel_size
    mesh = Mesh(
        vertices=vertices,
        faces=triangles.faces,
        normals=triangles.normals,
        colors=triangles.colors if volume.colored else None,
    )
    return Surface(mesh, triangles.weights)


def _sure(triangles: Triangles, sure_weight: float) -> Triangles:
    """Returns the connected pieces with a vertex of at least that weight (hysteresis: Canny, 1986).

    In the arrays given: beside a large mesh there may be no room for another one.
    """
    if not len(triangles.faces) or triangles.weights.min() >= sure_weight:
        return triangles
    kept = _connected_to(triangles, triangles.weights >= sure_weight)
    if kept.all():
        return triangles
    faces = triangles.faces[: keep_faces(triangles.faces, kept, np.cumsum(kept) - 1)]
    rows = int(kept.sum())
    for array in (triangles.vertices, triangles.normals, triangles.colors, triangles.weights[:, None]):
        keep_rows(array, kept)
    return Triangles(
        vertices=triangles.vertices[:rows],
        faces=faces,
        normals=triangles.normals[:rows],
        colors=triangles.colors[:rows],
        weights=triangles.weights[:rows],
    )


@compiled
@no_type_check
def keep_rows(array: Any, kept: Any) -> None:
    """Moves the rows that are kept to the front, in order."""
    row = 0
    for i in range(len(array)):
        if kept[i]:
            for k in range(array.shape[1]):
                array[row, k] = array[i, k]
            row += 1


@compiled
@no_type_check
def keep_faces(faces: Any, kept: Any, numbers: Any) -> int:
    """Moves the faces whose vertices are kept to the front, with new numbers; returns how many."""
    row = 0
    for i in range(len(faces)):
        if kept[faces[i, 0]]:
            for k in range(3):
                faces[row, k] = numbers[faces[i, k]]
            row += 1
    return row


def _connected_to(triangles: Triangles, sure: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    pieces = np.arange(len(sure))
    join_pieces(triangles.faces, pieces)
    reached = np.zeros(len(sure), bool)
    reached[pieces[sure]] = True
    return reached[pieces]


@compiled
@no_type_check
def join_pieces(faces: Any, pieces: Any) -> None:
    """Writes the lowest vertex of each vertex's connected piece (union-find: Tarjan, 1975)."""
    for k in range(len(faces)):
        a = faces[k, 0]
        for j in range(1, 3):
            b = faces[k, j]
            while pieces[a] != a:
                pieces[a] = pieces[pieces[a]]
                a = pieces[a]
            while pieces[b] != b:
                pieces[b] = pieces[pieces[b]]
                b = pieces[b]
            a, b = min(a, b), max(a, b)
            pieces[b] = a
    for i in range(len(pieces)):
        pieces[i] = pieces[pieces[i]]  # lower ones are done
