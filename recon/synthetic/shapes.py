"""Triangle meshes of simple solids: (vertices, faces), faces counter-clockwise seen from outside."""

import numpy as np
from jaxtyping import Float64, Int64

Shape = tuple[Float64[np.ndarray, "_ 3"], Int64[np.ndarray, "_ 3"]]

_CUBE_QUADS = (  # corner k is at (k & 1, k >> 1 & 1, k >> 2)
    (0, 2, 3, 1),
    (4, 5, 7, 6),
    (0, 1, 5, 4),
    (2, 6, 7, 3),
    (0, 4, 6, 2),
    (1, 3, 7, 5),
)


def box(low: tuple[float, float, float], high: tuple[float, float, float], yaw: float = 0.0) -> Shape:
    """Returns an axis-aligned box, turned by `yaw` radians about the vertical (z) line through its middle."""
    corners = np.array([[k & 1, k >> 1 & 1, k >> 2] for k in range(8)], np.float64)
    vertices = np.asarray(low) + corners * np.subtract(high, low)
    quads = np.array(_CUBE_QUADS)
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return _turned(vertices, yaw), faces


def ball(center: tuple[float, float, float], radius: float, subdivisions: int = 4) -> Shape:
    """Returns a sphere as a subdivided icosahedron; its vertices lie on the sphere exactly.

    The faces lie inside it by at most 0.3 * 4**-subdivisions of the radius, 3e-4 at 5 subdivisions.
    """
    vertices, faces = _icosahedron()
    for _ in range(subdivisions):
        vertices, faces = _subdivided(vertices, faces)
    return np.asarray(center) + radius * vertices, faces


def frustum(
    base: tuple[float, float, float], height: float, radii: tuple[float, float], segments: int = 96
) -> Shape:
    """Returns an upright cylinder or truncated cone: `base` is the middle of its lower disk, z is up."""
    angle = 2 * np.pi * np.arange(segments) / segments
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(segments)], axis=1)
    lower, upper = circle * radii[0], circle * radii[1] + [0, 0, height]
    vertices = np.asarray(base) + np.concatenate([lower, upper, [[0, 0, 0], [0, 0, height]]])
    here = np.arange(segments)
    there = (here + 1) % segments
    bottom, top = np.full(segments, 2 * segments), np.full(segments, 2 * segments + 1)
    sides = [
        np.stack([here, there, there + segments], axis=1),
        np.stack([here, there + segments, here + segments], axis=1),
        np.stack([bottom, there, here], axis=1),
        np.stack([top, here + segments, there + segments], axis=1),
    ]
    return vertices, np.concatenate(sides)


def rectangle(
    corner: tuple[float, float, float], side_u: tuple[float, float, float], side_v: tuple[float, float, float]
) -> Shape:
    """Returns a flat rectangle that is seen from the side that `side_u` x `side_v` points to."""
    start, u, v = np.asarray(corner, np.float64), np.asarray(side_u), np.asarray(side_v)
    return np.stack([start, start + u, start + u + v, start + v]), np.array([[0, 1, 2], [0, 2, 3]])


def inside_out(shape: Shape) -> Shape:
    """Returns the same surface seen from its other side: a box becomes a room."""
    return shape[0], shape[1][:, ::-1].copy()


def _turned(vertices: Float64[np.ndarray, "n 3"], yaw: float) -> Float64[np.ndarray, "n 3"]:
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return (vertices - middle) @ turn.T + middle


def _icosahedron() -> Shape:
    golden = (1 + np.sqrt(5)) / 2
    flat = np.array([[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]])
    vertices = np.concatenate([flat, np.roll(flat, 1, axis=1), np.roll(flat, 2, axis=1)])
    gaps = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
    near = np.isclose(gaps, 2.0)
    triples = np.argwhere(near[:, :, None] & near[:, None, :] & near[None, :, :])
    faces = triples[(triples[:, 0] < triples[:, 1]) & (triples[:, 1] < triples[:, 2])]
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    inward = np.einsum("ic,ic->i", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return vertices / np.linalg.norm(vertices[0]), faces


def _subdivided(vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"]) -> Shape:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, inverse = np.unique(edges, axis=0, return_inverse=True)
    middles = vertices[unique].sum(axis=1)
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    ab, bc, ca = len(vertices) + inverse.reshape(3, -1)
    a, b, c = faces.T
    split = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([vertices, middles]), np.concatenate([np.stack(corner, axis=1) for corner in split])
