"""A surface that points are compared with: a triangle mesh, or a point cloud where there are no faces."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from recon.errors import InputError
from recon.raycasting import RayCaster, sample_surface
from recon.scene import Mesh

Points = Float64[np.ndarray, "n 3"]


class MeshTarget:
    """A triangle mesh: distances are to the surface, normals are of its triangles."""

    def __init__(self, mesh: Mesh) -> None:
        # Ray casting is in float32: without the offset, coordinates far from the origin keep their digits.
        self._offset = _middle(mesh)
        self._mesh = replace(mesh, vertices=mesh.vertices - self._offset)
        self._caster = RayCaster(self._mesh)
        a, b, c = np.moveaxis(self._mesh.vertices[mesh.faces], 1, 0)
        self._face_normals = _unit(np.cross(b - a, c - a))

    def samples(self, count: int, rng: np.random.Generator) -> tuple[Points, Points | None]:
        """Returns points spread evenly over the surface, and the normals there."""
        points, faces = sample_surface(self._mesh, count, rng)
        return points + self._offset, self._face_normals[faces]

    def closest(self, points: Points) -> tuple[Points, Points | None]:
        """Returns the closest point of the surface to each point, and the normal there."""
        found, faces = self._caster.closest(points - self._offset)
        return found + self._offset, self._face_normals[faces]


class CloudTarget:
    """A point cloud: distances are to its points, normals are theirs if it has any."""

    def __init__(self, cloud: Mesh) -> None:
        from scipy.spatial import cKDTree

        self._points = cloud.vertices
        self._normals = None if cloud.normals is None else _unit(cloud.normals)
        self._tree = cKDTree(cloud.vertices)

    def samples(self, count: int, rng: np.random.Generator) -> tuple[Points, Points | None]:
        """Returns at most `count` of the points, each at most once, and their normals."""
        rows = np.sort(rng.permutation(len(self._points))[:count])
        return self._points[rows], None if self._normals is None else self._normals[rows]

    def closest(self, points: Points) -> tuple[Points, Points | None]:
        """Returns the closest point of the cloud to each point, and its normal."""
        rows = self._tree.query(points)[1]
        return self._points[rows], None if self._normals is None else self._normals[rows]


def target_of(surface: Mesh, name: str) -> MeshTarget | CloudTarget:
    """Returns a surface ready for comparison; without faces it is a point cloud.

    Raises:
        InputError: It has no vertices.
    """
    if not len(surface.vertices):
        raise InputError(f"the {name} has no vertices")
    return MeshTarget(surface) if len(surface.faces) else CloudTarget(surface)


def extent_of(surface: Mesh) -> float:
    """Returns the diagonal of a surface's bounding box."""
    used = surface.vertices[np.unique(surface.faces)] if len(surface.faces) else surface.vertices
    return float(np.linalg.norm(np.ptp(used, axis=0)))


def _middle(mesh: Mesh) -> Float64[np.ndarray, "3"]:
    return (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2


def _unit(vectors: Points) -> Points:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float64).tiny)
