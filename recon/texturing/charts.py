"""A mesh cut into charts: connected faces that take their colours from one photo."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from recon.geometry import project, transform
from recon.scene import Mesh, View

SAMPLED = 20_000  # edges that tell their usual length


@dataclass(frozen=True, eq=False)
class Charts:
    """The mesh cut into charts. Each has its own vertices; faces that no photo shows have three each."""

    faces: Int64[np.ndarray, "m 3"]
    """Of charts' vertices."""

    labels: Int64[np.ndarray, "m"]
    """View of each face, -1 without."""

    vertices: Int64[np.ndarray, "n"]
    """The mesh's vertex that each is."""

    view_of_vertex: Int64[np.ndarray, "n"]
    chart_of_vertex: Int64[np.ndarray, "n"]
    """-1 without photo."""

    uv: Float64[np.ndarray, "n 2"]
    """In the photo, px of the view's camera; NaN without."""

    at_border: Bool[np.ndarray, "m"]
    """Faces of photos beside which the chart ends."""

    def of_view(self, number: int) -> Int64[np.ndarray, "k"]:
        """Returns the charts of a view."""
        return np.unique(self.chart_of_vertex[self.view_of_vertex == number])

    @classmethod
    def of(
        cls,
        mesh: Mesh,
        views: Sequence[View],
        labels: Int64[np.ndarray, "m"],
        pairs: Int64[np.ndarray, "k 2"],
    ) -> "Charts":
        """Cuts a mesh by the view of each face and the pairs of faces that share an edge."""
        known = labels >= 0
        charts = np.full(len(labels), -1)
        _, charts[known] = np.unique(connected(labels, pairs)[known], return_inverse=True)
        keys = charts[:, None] * len(mesh.vertices) + mesh.faces
        kept, faces_known = np.unique(keys[known], return_inverse=True)
        vertices = kept % len(mesh.vertices)
        chart_of_vertex = kept // len(mesh.vertices)
        faces = np.empty_like(mesh.faces)
        faces[known] = faces_known.reshape(-1, 3)
        faces[~known] = len(kept) + np.arange(3 * (~known).sum()).reshape(-1, 3)
        view_of_vertex = np.empty(len(kept), np.int64)
        view_of_vertex[faces[known]] = labels[known, None]
        uv = np.full((len(kept), 2), np.nan)
        for number, view in enumerate(views):
            rows = view_of_vertex == number
            in_camera = transform(view.cam_from_world, mesh.vertices[vertices[rows]])
            uv[rows] = project(view.camera.K, in_camera)
        within = pairs[charts[pairs[:, 0]] == charts[pairs[:, 1]]]
        at_border = known & (np.bincount(within.ravel(), minlength=len(labels)) < 3)
        alone = mesh.faces[~known].ravel()
        none = np.full(len(alone), -1)
        return cls(
            faces=faces,
            labels=labels,
            vertices=np.concatenate([vertices, alone]),
            view_of_vertex=np.concatenate([view_of_vertex, none]),
            chart_of_vertex=np.concatenate([chart_of_vertex, none]),
            uv=np.concatenate([uv, np.full((len(alone), 2), np.nan)]),
            at_border=at_border,
        )


def connected(labels: Int64[np.ndarray, "m"], pairs: Int64[np.ndarray, "k 2"]) -> Int64[np.ndarray, "m"]:
    """Returns the number of each face's chart: connected faces of one view."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, two = pairs[labels[pairs[:, 0]] == labels[pairs[:, 1]]].T
    graph = coo_array((np.ones(len(one), np.int8), (one, two)), shape=(len(labels), len(labels)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def edge_length(vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"]) -> float:
    """Returns the median length of an edge."""
    some = faces[:: max(1, len(faces) // SAMPLED)]
    return float(np.median(np.linalg.norm(vertices[some[:, 0]] - vertices[some[:, 1]], axis=1)))
