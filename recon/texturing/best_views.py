"""Which photo shows a face best: large, with nothing before it, in the colour that the others see, too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from recon.jit import compiled, run_pieces
from recon.raycasting import RayCaster
from recon.scene import Mesh, View
from recon.texturing.charts import connected, edge_length
from recon.texturing.layout import resized

LOOK_SIZE = 1024  # px, longer side of the pictures in which faces are looked for
MIN_COSINE = 0.1  # between a face's normal and the ray to the camera; steeper faces are not seen
HIDDEN_EDGES = 2.0  # edges of the mesh by which a vertex may lie behind what the camera sees there
HIDDEN_PX = 3.0  # pixels, their size at its depth, by which it may too: surfaces are seen at an angle
OUTLINE_EDGES = 6.0  # edges of the mesh from which on what is nearer is another surface
OUTLINE_PX = 5  # side of the window in which another surface is too near: outlines are not exact
BESIDE_OUTLINE = 0.1  # weight of what lies so
COLOR_SIGMA = 24.0  # grey levels, by which a view's colour is off before it counts little
LEAST_TRUSTED = 0.02  # weight of a view whose colour is nothing like that of the others
SPREADINGS = 24  # how often a view's worth at a face is averaged with that at its neighbours
SMALL_CHART = 40  # faces; smaller charts join a neighbour whose view shows them
JOININGS = 4
SAMPLED = 20_000  # faces that tell what is the same for all


def best_views(
    mesh: Mesh,
    views: Sequence[View],
    photos: Mapping[str, UInt8[np.ndarray, "h w 3"]],
    on_view: Callable[[int], None],
) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "k 2"]]:
    """Returns the view of each face, -1 where none shows it, and the pairs of faces that share an edge."""
    surface = _Surface.of(mesh)
    labels = np.full(len(mesh.faces), -1)
    best = np.zeros(len(mesh.faces), np.float32)
    shown = np.zeros((len(views), len(mesh.faces) + 7 >> 3), np.uint8)  # a bit each
    for number, view in enumerate(views):
        worth = surface.worth(view, photos[view.name])
        shown[number] = np.packbits(worth > 0)
        spread = np.where(worth > 0, surface.spread(worth), 0)
        labels[spread > best] = number
        best = np.maximum(best, spread)
        on_view(number + 1)
    for _ in range(JOININGS):
        if not _join(labels, surface.pairs, shown):
            break
    return labels, surface.pairs


@dataclass(frozen=True, eq=False)
class _Surface:
    """A mesh as views look at it."""

    mesh: Mesh
    caster: RayCaster
    colors: Float32[np.ndarray, "m 3"] | None
    """Of the faces, as the views agree on them."""

    pairs: Int64[np.ndarray, "k 2"]
    """Faces that share an edge."""

    average: Any
    """Sparse (m, m): the mean over a face and its neighbours."""

    edge: float
    """Median length of an edge."""

    @classmethod
    def of(cls, mesh: Mesh) -> "_Surface":
        from scipy.sparse import coo_array, diags_array

        pairs, count = _pairs(mesh.faces), len(mesh.faces)
        one, two = pairs.T.astype(np.int32)
        graph = coo_array((np.ones(len(one), np.float32), (one, two)), shape=(count, count)).tocsr()
        average = (graph + graph.T + diags_array(np.ones(count, np.float32))).tocsr()
        neighbours = np.diff(average.indptr)
        average.data /= np.repeat(neighbours, neighbours)
        colors = None if mesh.colors is None else mesh.colors.astype(np.float32)[mesh.faces].mean(axis=1)
        return cls(mesh, RayCaster(mesh), colors, pairs, average, edge_length(mesh.vertices, mesh.faces))

    def worth(self, view: View, photo: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "m"]:
        """Returns how well a view shows each face: its size in the photo, px^2 or less; 0 if not."""
        from scipy.ndimage import minimum_filter

        camera, mesh = view.camera.fitted(LOOK_SIZE), self.mesh
        depth = self.caster.cast(camera, view.cam_from_world).depth
        depth[depth == 0] = np.inf
        nearest = minimum_filter(depth, OUTLINE_PX, mode="nearest")
        in_picture = np.empty((len(mesh.vertices), 2), np.float32)
        state = np.empty(len(mesh.vertices), np.uint8)
        projection = camera.K @ view.cam_from_world[:3]
        seen = depth, nearest, self.edge, HIDDEN_PX / camera.K[0, 0]
        run_pieces(_look, len(state), None, mesh.vertices, projection, seen, (in_picture, state))
        worth, found = np.empty(len(mesh.faces), np.float32), np.zeros((len(mesh.faces), 3), np.float32)
        picture = resized(photo, camera), float(view.camera.width / camera.width)
        of_vertices = mesh.vertices, in_picture, state, view.center
        run_pieces(_measure, len(worth), None, mesh.faces, of_vertices, picture, (worth, found))
        rows = np.flatnonzero(worth)
        if self.colors is not None and len(rows):
            worth[rows] *= _trusted(found[rows], self.colors[rows])
        return worth

    def spread(self, values: Float32[np.ndarray, "m"]) -> Float32[np.ndarray, "m"]:
        """Returns values averaged over faces and what lies around them."""
        for _ in range(SPREADINGS):
            values = self.average @ values
        return values


@compiled
@no_type_check
def _look(start: int, stop: int, vertices: Any, projection: Any, seen: Any, out: Any) -> None:
    """Writes the pixels of vertices, and 1 for those that nothing hides, 2 where a nearer surface is near."""
    depth, nearest, edge, pixel = seen
    in_picture, state = out
    height, width = depth.shape
    for i in range(start, stop):
        state[i] = 0
        x, y, z = vertices[i, 0], vertices[i, 1], vertices[i, 2]
        w = projection[2, 0] * x + projection[2, 1] * y + projection[2, 2] * z + projection[2, 3]
        if w <= 0:
            continue
        u = (projection[0, 0] * x + projection[0, 1] * y + projection[0, 2] * z + projection[0, 3]) / w
        v = (projection[1, 0] * x + projection[1, 1] * y + projection[1, 2] * z + projection[1, 3]) / w
        if not (1 <= u <= width - 1 and 1 <= v <= height - 1):
            continue
        behind = HIDDEN_EDGES * edge + pixel * w
        if w - depth[int(v), int(u)] > behind:
            continue
        in_picture[i, 0], in_picture[i, 1] = u, v
        state[i] = 2 if w - nearest[int(v), int(u)] > OUTLINE_EDGES * edge + 2 * behind else 1


@compiled
@no_type_check
def _measure(start: int, stop: int, faces: Any, of_vertices: Any, picture: Any, out: Any) -> None:
    """Writes the size of faces that a camera sees, px^2, and their colour."""
    vertices, in_picture, state, center = of_vertices
    photo, zoom = picture
    worth, found = out
    for i in range(start, stop):
        worth[i] = 0
        p, q, r = faces[i, 0], faces[i, 1], faces[i, 2]
        if state[p] == 0 or state[q] == 0 or state[r] == 0:
            continue
        x, y, z = vertices[p, 0], vertices[p, 1], vertices[p, 2]
        ax, ay, az = vertices[q, 0] - x, vertices[q, 1] - y, vertices[q, 2] - z
        bx, by, bz = vertices[r, 0] - x, vertices[r, 1] - y, vertices[r, 2] - z
        cx, cy, cz = center[0] - x, center[1] - y, center[2] - z
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        length = np.sqrt((nx * nx + ny * ny + nz * nz) * (cx * cx + cy * cy + cz * cz))
        if nx * cx + ny * cy + nz * cz <= MIN_COSINE * length:
            continue
        u, v = in_picture[p, 0], in_picture[p, 1]
        across = (in_picture[q, 0] - u) * (in_picture[r, 1] - v) - (in_picture[r, 0] - u) * (
            in_picture[q, 1] - v
        )
        size = abs(across) / 2 * zoom * zoom
        worth[i] = size * BESIDE_OUTLINE if state[p] == 2 or state[q] == 2 or state[r] == 2 else size
        column = int((u + in_picture[q, 0] + in_picture[r, 0]) / 3)
        row = int((v + in_picture[q, 1] + in_picture[r, 1]) / 3)
        for k in range(3):
            found[i, k] = photo[row, column, k]


def _pairs(faces: Int64[np.ndarray, "m 3"]) -> Int64[np.ndarray, "k 2"]:
    edges = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2), axis=2).reshape(-1, 2)
    keys = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    return np.stack([order[same], order[same + 1]], axis=1) // 3


def _trusted(
    found: Float32[np.ndarray, "k 3"], agreed: Float32[np.ndarray, "k 3"]
) -> Float32[np.ndarray, "k"]:
    """Returns how far a view's colours are to be believed, by those of all views and the photo's exposure."""
    some = slice(None, None, max(1, len(found) // SAMPLED))
    gain = np.median(agreed[some], axis=0) / np.maximum(np.median(found[some], axis=0), 1)
    off = ((found * gain - agreed) ** 2).sum(axis=1) / (3 * COLOR_SIGMA**2)
    return np.maximum(np.exp(-off), np.float32(LEAST_TRUSTED))


def _join(
    labels: Int64[np.ndarray, "m"], pairs: Int64[np.ndarray, "k 2"], shown: UInt8[np.ndarray, "v b"]
) -> bool:
    """Gives faces of small charts the view of a neighbouring larger one that shows them, in place."""
    charts = connected(labels, pairs)
    small = (np.bincount(charts)[charts] < SMALL_CHART) & (labels >= 0)
    changed = False
    for one, two in (pairs.T, pairs[:, ::-1].T):
        wanted = small[one] & ~small[two] & (labels[two] >= 0) & (labels[one] != labels[two])
        face, label = one[wanted], labels[two[wanted]]
        able = (shown[label, face >> 3] >> (7 - (face & 7)) & 1).astype(bool)
        labels[face[able]] = label[able]
        changed |= bool(able.any())
    return changed
