"""Triangle meshes: made from one depth map, and cleaned.

A mesh from a depth map is cut at depth edges. A jump by more than a share of the depth alone, the rule of
MoGe (Wang et al. 2025), punches holes into floors seen at a grazing angle; here the jump must also differ
from the slope that the normals imply.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from recon.errors import InputError, ViewError
from recon.geometry import points_from_depth, rays
from recon.scene import DepthMap, Mesh

RELATIVE_JUMP = (
    0.04  # of the nearer depth; larger steps between neighbours are cuts unless the slope explains them
)
MIN_COMPONENT_SHARE = 0.001  # of all faces
MIN_COMPONENT_FACES = 50
MIN_FACING = 0.02  # |n . ray| below which a tangent plane says nothing about its neighbour's depth


def clean(mesh: Mesh) -> Mesh:
    """Returns the mesh without degenerate faces, repeated faces and unused vertices.

    Faces are degenerate if two corners are the same vertex or lie at the same place. Of faces with the same
    three corners the first is kept. The order of what stays is kept.
    """
    corners = mesh.vertices[mesh.faces]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1, initial=0)
    solid = np.linalg.norm(doubled, axis=1) > np.finfo(np.float64).eps * edges**2
    faces = np.flatnonzero(solid)
    _, first = np.unique(np.sort(mesh.faces[faces], axis=1), axis=0, return_index=True)
    return select_faces(mesh, faces[np.sort(first)])


def select_faces(mesh: Mesh, faces: Int64[np.ndarray, "k"] | Bool[np.ndarray, "m"]) -> Mesh:
    """Returns the mesh of some faces, given by index or mask, and of the vertices that they use."""
    kept = mesh.faces[faces]
    used = np.zeros(len(mesh.vertices), bool)
    used[kept] = True
    renumbered = np.cumsum(used) - 1
    return Mesh(
        vertices=mesh.vertices[used],
        faces=renumbered[kept],
        normals=None if mesh.normals is None else mesh.normals[used],
        colors=None if mesh.colors is None else mesh.colors[used],
        uv=None if mesh.uv is None else mesh.uv[used],
        texture=mesh.texture,
    )


def components(mesh: Mesh) -> Int64[np.ndarray, "m"]:
    """Returns the number of the connected component of each face; faces that share a vertex are connected.

    Components are numbered by their first vertex.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(mesh.vertices)
    rows, columns = mesh.faces[:, [0, 1]].ravel(), mesh.faces[:, [1, 2]].ravel()
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, labels = np.unique(labels[mesh.faces[:, 0]], return_inverse=True)
    return labels.astype(np.int64)


def remove_small_components(
    mesh: Mesh, min_faces: int = MIN_COMPONENT_FACES, min_share: float = MIN_COMPONENT_SHARE
) -> Mesh:
    """Returns the mesh without the components that have too few faces; the largest one always stays.

    Args:
        mesh: Unused vertices are dropped.
        min_faces: A component with fewer goes.
        min_share: One with a smaller share of all faces goes.

    Raises:
        InputError: `min_share` is not between 0 and 1.
    """
    if not 0 <= min_share <= 1:
        raise InputError(f"share of a component {min_share}, wanted between 0 and 1")
    if not len(mesh.faces):
        return mesh
    labels = components(mesh)
    sizes = np.bincount(labels)
    least = min(max(min_faces, min_share * len(mesh.faces)), sizes.max())
    return select_faces(mesh, sizes[labels] >= least)


def grid_mesh(
    depth_map: DepthMap,
    image: UInt8[np.ndarray, "h w 3"] | None = None,
    *,
    relative_jump: float = RELATIVE_JUMP,
) -> Mesh:
    """Returns the surface that one depth map shows: a vertex per pixel, camera frame.

    Two neighbouring pixels are on one surface if their depths differ by at most `relative_jump` of the nearer
    one, or if the tangent plane of one of them, extended to the other's ray, misses its depth by no more. Of
    a square of four pixels, the triangles are made whose three edges hold, by the diagonal that allows more
    of them or else has the smaller angle between its normals.

    Args:
        depth_map: Pixels without depth are holes; without normals, only depth decides.
        image: Photo of the map's size: vertex colours, and the texture that the uv coordinates are for.
        relative_jump: Share of depth.

    Raises:
        InputError: The photo's size is not the map's.
        ViewError: No triangle is left.
    """
    depth, normals = depth_map.depth, depth_map.normals
    if image is not None and image.shape[:2] != depth.shape:
        raise InputError(
            f"photo of {image.shape[1]}x{image.shape[0]} pixels, its depth map has "
            f"{depth.shape[1]}x{depth.shape[0]}"
        )
    faces = _grid_faces(depth_map, relative_jump)
    if not len(faces):
        raise ViewError(
            f"no triangle in a depth map with {int((depth > 0).sum())} of {depth.size} pixels valid"
        )
    height, width = depth.shape
    v, u = np.mgrid[:height, :width]
    uv = np.stack([(u + 0.5) / width, 1 - (v + 0.5) / height], axis=-1).reshape(-1, 2)
    mesh = Mesh(
        vertices=points_from_depth(depth_map.camera.K, depth).reshape(-1, 3),
        faces=faces,
        normals=normals.reshape(-1, 3).astype(np.float64) if normals.any() else None,
        colors=None if image is None else image.reshape(-1, 3),
        uv=uv,
        texture=image,
    )
    return select_faces(mesh, np.arange(len(faces)))


def _grid_faces(depth_map: DepthMap, relative_jump: float) -> Int64[np.ndarray, "m 3"]:
    """Returns triangles of pixel numbers, counter-clockwise seen from the camera."""
    height, width = depth_map.depth.shape
    number = np.arange(height * width).reshape(height, width)
    along_u = _joined(depth_map, (0, 0), (0, 1), relative_jump)  # (h, w - 1)
    along_v = _joined(depth_map, (0, 0), (1, 0), relative_jump)  # (h - 1, w)
    falling = _joined(depth_map, (0, 0), (1, 1), relative_jump)  # upper left to lower right, (h - 1, w - 1)
    rising = _joined(depth_map, (1, 0), (0, 1), relative_jump)  # lower left to upper right
    top, bottom, left, right = along_u[:-1], along_u[1:], along_v[:, :-1], along_v[:, 1:]
    lower_left, upper_right = left & bottom & falling, top & right & falling
    upper_left, lower_right = left & top & rising, bottom & right & rising
    more = upper_left.astype(int) + lower_right - lower_left - upper_right  # triangles by the rising diagonal
    smoother = _disagreement(depth_map, (1, 0), (0, 1)) < _disagreement(depth_map, (0, 0), (1, 1))
    rise = (more > 0) | ((more == 0) & smoother)
    a, b = number[:-1, :-1], number[:-1, 1:]  # upper left, upper right
    c, d = number[1:, :-1], number[1:, 1:]  # lower left, lower right
    parts = [
        (~rise & lower_left, (a, c, d)),
        (~rise & upper_right, (a, d, b)),
        (rise & upper_left, (a, c, b)),
        (rise & lower_right, (b, c, d)),
    ]
    faces = [np.stack([corner[mask] for corner in corners], axis=-1) for mask, corners in parts]
    return np.concatenate(faces).astype(np.int64)


def _pair(
    values: np.ndarray, first: tuple[int, int], second: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns two aligned views of a map: each pixel at step (rows, columns) `first`, and at `second`."""
    height, width = values.shape[:2]
    rows = height - max(first[0], second[0])
    columns = width - max(first[1], second[1])
    return (
        values[first[0] : first[0] + rows, first[1] : first[1] + columns],
        values[second[0] : second[0] + rows, second[1] : second[1] + columns],
    )


def _joined(
    depth_map: DepthMap, first: tuple[int, int], second: tuple[int, int], relative_jump: float
) -> Bool[np.ndarray, "h2 w2"]:
    """Returns True where two neighbours have depth and lie on one surface."""
    camera = depth_map.camera
    z, z2 = _pair(depth_map.depth.astype(np.float64), first, second)
    n, n2 = _pair(depth_map.normals.astype(np.float64), first, second)
    r, r2 = _pair(rays(camera.K, camera.width, camera.height), first, second)
    allowed = relative_jump * np.minimum(z, z2)
    flat = np.abs(z - z2) <= allowed
    sloped = np.abs(_plane_depth(z, n, r, r2) - z2) <= allowed
    sloped2 = np.abs(_plane_depth(z2, n2, r2, r) - z) <= allowed
    return (z > 0) & (z2 > 0) & (flat | sloped | sloped2)


def _plane_depth(
    z: Float64[np.ndarray, "h w"],
    normals: Float64[np.ndarray, "h w 3"],
    directions: Float64[np.ndarray, "h w 3"],
    others: Float64[np.ndarray, "h w 3"],
) -> Float64[np.ndarray, "h w"]:
    """Returns the depth at which other rays meet the tangent planes; infinite where there is none."""
    here = np.einsum("hwc,hwc->hw", normals, directions)
    there = np.einsum("hwc,hwc->hw", normals, others)
    facing = there < -MIN_FACING
    return np.where(facing, z * here / np.where(facing, there, 1), np.inf)


def _disagreement(
    depth_map: DepthMap, first: tuple[int, int], second: tuple[int, int]
) -> Float32[np.ndarray, "h2 w2"]:
    """Returns 1 - cos of the angle between the normals of two neighbours."""
    n, n2 = _pair(depth_map.normals, first, second)
    return 1 - np.einsum("hwc,hwc->hw", n, n2)
