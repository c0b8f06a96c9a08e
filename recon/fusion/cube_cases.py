"""The cases of marching cubes: which triangles cut a cube whose corners are solid or free.

The table is made by one rule for every face of a cube, also the ambiguous ones: solid corners that touch only
across a diagonal stay apart. Two cubes see the same corners on their common face, so their triangles meet
without cracks.
"""

import numpy as np
from jaxtyping import Int8

# Corners of a cube are bits: x + 2 y + 4 z. Edges are numbered axis * 4 + rank of their lower corner.
EDGES = [(corner, axis) for axis in range(3) for corner in range(8) if not corner >> axis & 1]
EDGE_CORNER = np.array([corner for corner, _ in EDGES], np.int64)
EDGE_AXIS = np.array([axis for _, axis in EDGES], np.int64)
# Corners of the six faces, counter-clockwise seen from outside the cube.
FACES = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]


def _edge_between(corner: int, other: int) -> int:
    low = min(corner, other)
    return EDGES.index((low, (corner ^ other).bit_length() - 1))


def _loops(solid: int) -> list[list[int]]:
    """Returns the closed polygons of one case as lists of edges, counter-clockwise seen from the free side.

    On each face the polygon runs from the edge where a walk around the face enters a run of solid corners to
    the edge where it leaves the run.
    """
    following = {}
    for face in FACES:
        pairs = list(zip(face, face[1:] + face[:1], strict=True))
        inside = [bool(solid >> corner & 1) for corner in face]
        for k in range(4):
            if not inside[k] and inside[(k + 1) % 4]:
                leave = next(k + j for j in range(1, 5) if not inside[(k + j + 1) % 4])
                following[_edge_between(*pairs[k])] = _edge_between(*pairs[leave % 4])
    loops = []
    while following:
        edge, following_edge = next(iter(following.items()))
        loop = [edge]
        while following_edge != loop[0]:
            loop.append(following_edge)
            following_edge = following[following_edge]
        for edge in loop:
            del following[edge]
        loops.append(loop)
    return loops


def _share_face(edge: int, other: int) -> bool:
    ends = {EDGES[e][0] | bit << EDGES[e][1] for e in (edge, other) for bit in (0, 1)}
    return any(ends <= set(face) for face in FACES)


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    """Returns triangles of a polygon without a diagonal in a face of the cube, if there are such.

    The neighbouring cube could have the same diagonal: four triangles would meet at one edge.
    """

    def flat_diagonals(start: int) -> int:
        turned = loop[start:] + loop[:start]
        return sum(_share_face(turned[0], edge) for edge in turned[2:-1])

    start = min(range(len(loop)), key=flat_diagonals)
    turned = loop[start:] + loop[:start]
    return [(turned[0], turned[k], turned[k + 1]) for k in range(1, len(turned) - 1)]


def case_table() -> Int8[np.ndarray, "256 n"]:
    """Returns the triangles of every case, three edges each, filled up with -1."""
    cases = [[e for loop in _loops(solid) for tri in _fan(loop) for e in tri] for solid in range(256)]
    table = np.full((256, max(map(len, cases)) + 1), -1, np.int8)
    for row, case in zip(table, cases, strict=True):
        row[: len(case)] = case
    return table
