"""Offsets of colours by which the charts of different photos meet."""

import numpy as np
from jaxtyping import Float64

from recon.texturing.charts import Charts, edge_length

STEADINESS = 0.05  # weight of the difference of offsets along a face's edge, beside that of colours at a seam
AGREEMENT = 1e-3  # weight of the difference from what all views agree on: over some ten edges it counts
CELL_EDGES = 8  # edges of the mesh, side of the cells in which offsets are solved for first
TOLERANCE = 1e-3  # of offsets, of the residual: they are then half a grey level off on average


def levelled_offsets(
    charts: Charts,
    positions: Float64[np.ndarray, "n 3"],
    colors: Float64[np.ndarray, "n 3"],
    agreed: Float64[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n 3"]:
    """Returns offsets of colours by which charts meet, smooth along them (Waechter et al. 2014, eq. 4).

    On the whole they lead to the colours that the views agree on, or the charts of a bright photo stay
    bright. Solved by conjugate gradients, preconditioned by the diagonal and by offsets that are the same
    for a cell of vertices.
    """
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import LinearOperator, cg, splu

    keys = charts.vertices * (charts.labels.max() + 2) + charts.view_of_vertex
    _, first, unknown = np.unique(keys, return_index=True, return_inverse=True)
    count, vertex, color = len(first), charts.vertices[first], colors[first]
    one = np.flatnonzero(vertex[1:] == vertex[:-1])  # sorted: of several views each but the last
    faces = unknown[charts.faces]
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    rows = np.concatenate([one, start]), np.concatenate([one + 1, end])
    weight = np.concatenate([np.ones(len(one)), np.full(len(start), STEADINESS)])
    joined = coo_array((weight, rows), shape=(count, count))
    joined = (joined + joined.T).tocsr()
    diagonal = joined.sum(axis=1) + AGREEMENT
    system = (diags_array(diagonal) - joined).tocsr()
    wanted = AGREEMENT * (agreed[first] - color)
    wanted[one] += color[one + 1] - color[one]
    wanted[one + 1] += color[one] - color[one + 1]

    side = CELL_EDGES * edge_length(positions, charts.faces)
    cells = np.floor((positions[first] - positions.min(axis=0)) / side).astype(np.int64)
    cells = np.column_stack([charts.view_of_vertex[first] + 1, cells])
    _, cell = np.unique(np.ravel_multi_index(cells.T, cells.max(axis=0) + 1), return_inverse=True)
    of_cell = coo_array((np.ones(count), (np.arange(count), cell))).tocsr()
    coarse = splu((of_cell.T @ system @ of_cell).tocsc())
    rough = LinearOperator(
        system.shape, lambda left: left.ravel() / diagonal + of_cell @ coarse.solve(of_cell.T @ left.ravel())
    )
    solved = [cg(system, wanted[:, i], rtol=TOLERANCE, maxiter=200, M=rough)[0] for i in range(3)]
    return np.stack(solved, axis=1)[unknown]
