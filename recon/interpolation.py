"""A smooth depth field through sparse points: the prediction that needs no network.

Disparity 1/z is linear over the picture of a plane, so a thin-plate spline in disparity reproduces planes
exactly. The field is a cubic P-spline (Eilers and Marx 1996): coefficients c on a coarse grid, minimising

    sum_k huber(((B c)_k - d_k) / s_k)  +  lambda * sum_j phi((D c)_j)

with d_k the disparity of a point, s_k its standard deviation, and (D c)_j the terms c_uu, c_vv, sqrt(2) c_uv
of the bending energy of a thin plate. phi(b) grows like b^2 for gentle bends and like the root of b for sharp
ones, so that the points themselves make the field crease and jump; both sums are minimised by reweighting.
Wrong points are found before, by the plane that the neighbours of each point span, because a flexible field
would follow them. Weakening the plate at edges of the photo was tried and gained nothing over phi.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from recon.errors import ViewError
from recon.geometry import normals_from_depth, pixel_centers, rays, sample, sample_depth
from recon.scene import Camera, DepthMap, Prediction, SparseDepth

MIN_POINTS = 3
MIN_PLANE_POINTS = 6  # fewer cannot tell a plane from an outlier
MIN_FIELD_POINTS = 21  # fewer cannot tell a bend from an outlier
MIN_TRIANGLE = 1e-3  # area of three points, of the squared longer side, that shows a plane
GRID = 80  # coefficients along the longer side
SMOOTHING_LENGTH = 0.5  # of the points' mean distance; bends shorter than that are smoothed away
CREASE = 0.01  # bend over the points' mean distance, of the typical disparity, that counts as sharp
SHARP_POWER = 0.75  # phi(b) grows like b^(2 - 2 * 0.75) there
POINT_ERROR = 0.01  # relative depth error that every point is granted
OUTLIER_WIDTH = 3.0  # standard deviations from which residuals count by their size, not its square
REWEIGHTINGS = 8
NEIGHBOURS = 12  # points whose plane checks a point
NEIGHBOUR_REWEIGHTINGS = 10
SUPPORTERS = 2  # neighbours at the same depth that save a point from the check
SAME_DEPTH = 0.05  # relative
MIN_CHECK = 0.1  # relative residual against the neighbours' plane that is never an outlier
MIN_RECHECK = 0.25  # the same against those neighbours that are no outliers themselves
EXTRAPOLATION = 1.5  # factor by which depth may leave the range of the points
REACH = 3.0  # confidence falls to 0 at this many typical distances from the points
GRAZING = (0.05, 0.2)  # cosines between which confidence rises from 0 to 1: sheets across jumps are steep
RIDGE = 1e-12  # of the mean diagonal; keeps the factorisation positive where nothing else does


def interpolate_points(anchors: SparseDepth, camera: Camera) -> Prediction:
    """Returns depth between sparse points, its normals and a confidence that falls with their distance.

    The values are depth in scene units already, of kind "scale" because scene units need not be metres; an
    alignment finds a scale of 1. Depth stays within a factor EXTRAPOLATION of the range of the good points.
    3 to 20 points give a plane, or one depth where they lie on a line or are fewer than 6.

    Args:
        anchors: Points of known depth, pixels of `camera`; up to about 20 % may be wrong. Those outside the
            picture are ignored.
        camera: Pinhole camera of the wanted map.

    Raises:
        ViewError: Fewer than 3 points inside the picture.
    """
    return _interpolated(anchors, camera, np.zeros((0, 2)))[0]


def _interpolated(
    anchors: SparseDepth, camera: Camera, at: Float64[np.ndarray, "m 2"]
) -> tuple[Prediction, Float64[np.ndarray, "m"]]:
    """Returns `interpolate_points`, and the field's own depth at some pixels, which no map has rounded."""
    points = _inside(anchors, camera)
    unit = float(np.median(points.depth))  # so that no constant meets the scene's unit
    disparity, sigma = unit / points.depth, unit / points.depth * (points.sigma / points.depth)
    sigma = np.hypot(sigma, POINT_ERROR * disparity)
    if len(points) < MIN_FIELD_POINTS:
        field, own, good = _plane(points.uv, disparity, sigma, camera, at)
    else:
        good = _no_outliers(points.uv, disparity)
        field, own, through = _spline(points.uv[good], disparity[good], sigma[good], camera, at)
        good[good] = through
    low, high = disparity[good].min() / EXTRAPOLATION, disparity[good].max() * EXTRAPOLATION
    depth = (unit / np.clip(field, low, high)).astype(np.float32)
    normals = normals_from_depth(camera.K, depth)
    confidence = _nearness(points.uv[good], camera) * openness(normals, camera)
    prediction = Prediction(depth, "scale", normals, confidence.astype(np.float32))
    return prediction, unit / np.clip(own, low, high)


def predict_held_out(
    anchors: SparseDepth, camera: Camera, fold: Int64[np.ndarray, "n"] | None = None
) -> Float64[np.ndarray, "n"]:
    """Returns depth at each anchor as those of other folds predict it; NaN where they do not.

    Args:
        anchors: As for `interpolate_points`.
        camera: Pinhole camera of the map.
        fold: Of each anchor, from 0, or -1 for one that is never held out; every second anchor in reading
            order if not given. Then the errors are those of a field with half as many points: an honest upper
            bound for the whole one between them.

    Raises:
        ViewError: Too few points for the fields.
    """
    fold = every_second(anchors) if fold is None else fold
    predicted = np.full(len(anchors), np.nan)
    for one in np.unique(fold[fold >= 0]):
        held_out, given = fold == one, fold != one
        part = SparseDepth(anchors.uv[given], anchors.depth[given], anchors.sigma[given])
        field, depth = _interpolated(part, camera, anchors.uv[held_out])
        assert field.confidence is not None
        known = sample_depth(
            np.where(field.confidence > 0, field.values, np.float32(0)), anchors.uv[held_out]
        )
        predicted[held_out] = np.where(known > 0, depth, np.nan)
    return predicted


def every_second(anchors: SparseDepth) -> Int64[np.ndarray, "n"]:
    """Returns two folds: 1 for every second anchor in reading order, 0 for the others."""
    u, v = anchors.uv.T
    fold = np.zeros(len(anchors), np.int64)
    fold[np.lexsort((anchors.depth, u, v))[1::2]] = 1
    return fold


def held_out_error(anchors: SparseDepth, camera: Camera) -> float:
    """Returns the median |log z_predicted - log z| at anchors that the other half predicts.

    Args: as of `predict_held_out`.
    """
    return median_error(np.abs(np.log(predict_held_out(anchors, camera) / anchors.depth)))


def median_error(errors: Float64[np.ndarray, "n"]) -> float:
    """Returns the median of the known errors; 1 where none is known."""
    return float(np.nanmedian(errors)) if np.isfinite(errors).any() else 1.0


def to_depth_map(field: Prediction, camera: Camera, relative_error: float) -> DepthMap:
    """Returns an interpolated field as a depth map with sigma = z * relative_error / sqrt(confidence).

    Args:
        field: Of `interpolate_points`.
        camera: Its camera.
        relative_error: Standard deviation of depth, relative, where points are near.
    """
    assert field.confidence is not None
    assert field.normals is not None
    known = field.confidence > 0
    depth = np.where(known, field.values, 0).astype(np.float32)
    sigma = depth * relative_error / np.sqrt(np.where(known, field.confidence, 1))
    normals = np.where(known[..., None], field.normals, 0).astype(np.float32)
    return DepthMap(camera, depth, normals, sigma.astype(np.float32))


def _inside(anchors: SparseDepth, camera: Camera) -> SparseDepth:
    """Returns the points inside the picture in an order that does not depend on the given one."""
    u, v = anchors.uv.T
    inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    if inside.sum() < MIN_POINTS:
        raise ViewError(f"view: {inside.sum()} points inside the photo, at least {MIN_POINTS} wanted")
    order = np.lexsort((anchors.sigma, anchors.depth, v, u))
    order = order[inside[order]]
    return SparseDepth(anchors.uv[order], anchors.depth[order], anchors.sigma[order])


def _plane(
    uv: Float64[np.ndarray, "n 2"],
    disparity: Float64[np.ndarray, "n"],
    sigma: Float64[np.ndarray, "n"],
    camera: Camera,
    at: Float64[np.ndarray, "m 2"],
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "m"], Bool[np.ndarray, "n"]]:
    """Returns a plane's disparity (one depth's, if the points show none), also at some pixels, and inliers.

    Every plane through three of the points is tried; the one of the smallest median residual is refitted to
    its inliers by least squares.
    """
    from itertools import combinations

    offsets = np.concatenate([uv - uv.mean(axis=0), np.ones((len(uv), 1))], axis=1)
    offsets[:, :2] /= max(camera.width, camera.height)
    triples = np.array(list(combinations(range(len(uv)), 3)))
    areas = np.abs(np.linalg.det(offsets[triples]))
    wide = areas > MIN_TRIANGLE
    if len(uv) < MIN_PLANE_POINTS or not wide.any():
        middle = float(np.median(disparity))
        good = np.abs(disparity - middle) <= np.maximum(
            OUTLIER_WIDTH * sigma, 2 * np.median(np.abs(disparity - middle))
        )
        return np.full((camera.height, camera.width), middle), np.full(len(at), middle), good
    planes = np.linalg.solve(offsets[triples[wide]], disparity[triples[wide]][..., None])[..., 0]
    residuals = np.abs(disparity - planes @ offsets.T) / sigma  # (planes, n)
    ranked = np.sort(residuals, axis=1)[:, len(uv) * 3 // 5]
    best = residuals[ranked.argmin()]
    good = best <= OUTLIER_WIDTH * max(1.0, ranked.min())
    plane = np.linalg.lstsq(offsets[good] / sigma[good, None], disparity[good] / sigma[good], rcond=None)[0]
    grid, places = (
        (pixels - uv.mean(axis=0)) / max(camera.width, camera.height)
        for pixels in (pixel_centers(camera.width, camera.height), at)
    )
    return grid @ plane[:2] + plane[2], places @ plane[:2] + plane[2], good


def _no_outliers(
    uv: Float64[np.ndarray, "n 2"], disparity: Float64[np.ndarray, "n"]
) -> Bool[np.ndarray, "n"]:
    """Returns which points agree with their neighbours, and with those of them that agree with theirs.

    The second look finds the outliers among others, which made their neighbours' plane uncertain or
    stood by each other.
    """
    good = _agrees_with_neighbours(uv, disparity, np.ones(len(uv), bool), MIN_CHECK)
    if good.sum() >= MIN_POINTS and not good.all():
        good &= _agrees_with_neighbours(uv, disparity, good, MIN_RECHECK)
    return good if good.sum() >= MIN_POINTS else np.ones(len(uv), bool)


def _agrees_with_neighbours(
    uv: Float64[np.ndarray, "n 2"],
    disparity: Float64[np.ndarray, "n"],
    asked: Bool[np.ndarray, "n"],
    least: float,
) -> Bool[np.ndarray, "n"]:
    """Returns which points lie near the robust plane of their neighbours, or at the depth of some of them.

    Args:
        uv: Pixels.
        disparity: There.
        asked: Points that may be neighbours.
        least: Relative residual that always agrees.
    """
    from scipy.spatial import cKDTree

    asked_index = np.flatnonzero(asked)
    count = min(NEIGHBOURS, len(asked_index) - 1)
    distance, index = cKDTree(uv[asked_index]).query(uv, count + 1)
    index = asked_index[index]
    own = index == np.arange(len(uv))[:, None]
    own[:, -1] |= ~own.any(axis=1)  # one not asked, or among many at one place, does not find itself
    index = index[~own].reshape(len(uv), count)
    reach = np.maximum(distance[:, -1], 1e-9)
    offsets = (uv[index] - uv[:, None]) / reach[:, None, None]
    design = np.concatenate([np.ones((len(uv), count, 1)), offsets], axis=2)
    near = disparity[index]  # (n, neighbours)
    closeness = np.exp(-np.square(offsets).sum(axis=2))
    predicted = np.median(near, axis=1)
    spread = np.median(np.abs(near - predicted[:, None]), axis=1)
    plane = np.concatenate([predicted[:, None], np.zeros((len(uv), 2))], axis=1)
    for _ in range(NEIGHBOUR_REWEIGHTINGS):
        residual = near - np.einsum("nkc,nc->nk", design, plane)
        spread = np.maximum(1.4826 * np.median(np.abs(residual), axis=1), 1e-3 * predicted)
        weights = closeness / (1 + (residual / (2 * spread[:, None])) ** 2) ** 2
        normal = np.einsum("nk,nkc,nkd->ncd", weights, design, design)
        normal += 1e-3 * weights.sum(axis=1)[:, None, None] * np.diag([0.0, 1.0, 1.0])
        right = np.einsum("nk,nkc,nk->nc", weights, design, near)
        plane = np.linalg.solve(normal, right[..., None])[..., 0]
    allowed = np.maximum(OUTLIER_WIDTH * spread, least * np.maximum(plane[:, 0], 0))
    agreeing = (np.abs(near - disparity[:, None]) <= SAME_DEPTH * disparity[:, None]).sum(axis=1)
    return (np.abs(disparity - plane[:, 0]) <= allowed) | (agreeing >= SUPPORTERS)


def _spline(
    uv: Float64[np.ndarray, "n 2"],
    disparity: Float64[np.ndarray, "n"],
    sigma: Float64[np.ndarray, "n"],
    camera: Camera,
    at: Float64[np.ndarray, "m 2"],
) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "m"], Bool[np.ndarray, "n"]]:
    """Returns the P-spline's disparity at every pixel and at some, and which points it goes through."""
    cell = max(camera.width, camera.height) / GRID
    columns, rows = int(np.ceil(camera.width / cell)) + 3, int(np.ceil(camera.height / cell)) + 3
    basis = _point_basis(uv / cell, columns, rows)
    per_cell = len(uv) * cell**2 / (camera.width * camera.height)
    smoothing = SMOOTHING_LENGTH**4 / (per_cell * np.median(sigma) ** 2)
    crease = CREASE * per_cell * np.median(disparity)  # a bend per cell^2; 1 / per_cell is a distance^2
    bending = _bending(rows, columns)
    weights, gentleness = sigma**-2.0, np.ones(bending.shape[0])
    for _ in range(REWEIGHTINGS):
        penalty = bending.T @ bending.multiply((smoothing * gentleness)[:, None])
        coefficients = _solve_banded(basis, disparity, weights, penalty, bandwidth=3 * rows + 3)
        residual = np.abs(disparity - basis @ coefficients) / sigma
        width = OUTLIER_WIDTH * max(1.0, 1.4826 * float(np.median(residual)))
        weights = width / np.maximum(residual, width) / sigma**2
        gentleness = (1 + (bending @ coefficients / crease) ** 2) ** -SHARP_POWER
    grid = coefficients.reshape(columns, rows)
    across = _cubic_basis((np.arange(camera.width) + 0.5) / cell, columns)
    down = _cubic_basis((np.arange(camera.height) + 0.5) / cell, rows)
    inside = np.clip(at, 0, [camera.width, camera.height])
    own = _point_basis(inside / cell, columns, rows) @ coefficients
    return down @ grid.T @ across.T, own, residual <= 3 * width


def _cubic_basis(position: Float64[np.ndarray, "n"], count: int) -> Float64[np.ndarray, "n count"]:
    """Returns the values of `count` uniform cubic B-splines; the first is centred at -1."""
    distance = np.abs(position[:, None] + 1 - np.arange(count))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, inner, np.clip(2 - distance, 0, None) ** 3 / 6)


def _point_basis(position: Float64[np.ndarray, "n 2"], columns: int, rows: int) -> Any:
    """Returns the sparse (n, columns * rows) matrix from column-major coefficients to values at points."""
    from scipy.sparse import csr_array

    across, down = _cubic_basis(position[:, 0], columns), _cubic_basis(position[:, 1], rows)
    first_column, first_row = np.floor(position).astype(np.int64).T
    taps = np.arange(4)
    column = np.minimum(first_column[:, None] + taps, columns - 1)  # (n, 4)
    row = np.minimum(first_row[:, None] + taps, rows - 1)
    index = np.arange(len(position))[:, None]
    values = across[index, column][:, :, None] * down[index, row][:, None, :]  # (n, 4, 4)
    places = column[:, :, None] * rows + row[:, None, :]
    starts = np.arange(len(position) + 1) * 16
    return csr_array((values.ravel(), places.ravel(), starts), shape=(len(position), columns * rows))


def _bending(rows: int, columns: int) -> Any:
    """Returns the sparse matrix from coefficients to the terms of the bending energy."""
    from scipy.sparse import diags_array, eye_array, kron, vstack

    def differences(count: int, order: int) -> Any:
        weights = {1: [-1.0, 1.0], 2: [1.0, -2.0, 1.0]}[order]
        return diags_array(weights, offsets=range(order + 1), shape=(count - order, count))

    along_u = kron(differences(columns, 2), eye_array(rows))
    along_v = kron(eye_array(columns), differences(rows, 2))
    twist = kron(differences(columns, 1), differences(rows, 1))
    return vstack([along_u, along_v, np.sqrt(2) * twist]).tocsr()


def _solve_banded(
    basis: Any,
    target: Float64[np.ndarray, "n"],
    weights: Float64[np.ndarray, "n"],
    penalty: Any,
    bandwidth: int,
) -> Float64[np.ndarray, "m"]:
    """Returns the coefficients that minimise the weighted squares plus the penalty, by banded Cholesky."""
    from scipy.linalg import solveh_banded
    from scipy.sparse import coo_array, tril

    weighted = basis.multiply(weights[:, None]).tocsr()
    normal = coo_array(tril(basis.T @ weighted + penalty))
    count = normal.shape[0]
    bands = np.zeros((bandwidth + 1, count))
    bands[normal.row - normal.col, normal.col] = normal.data
    bands[0] += RIDGE * bands[0].mean()
    return solveh_banded(bands, weighted.T @ target, lower=True, check_finite=False)


def _nearness(uv: Float64[np.ndarray, "n 2"], camera: Camera) -> Float64[np.ndarray, "h w"]:
    """Returns 1 at points down to 0 at REACH typical distances from the third nearest point.

    The third nearest, because one point alone does not show that it is right.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(uv)
    rank = min(MIN_POINTS, len(uv))
    between = np.percentile(tree.query(uv, [rank])[0], 90)
    typical = max(min(np.sqrt(camera.width * camera.height / len(uv)), float(between)), 1.0)
    coarse = camera.resized(max(2, camera.width // 4), max(2, camera.height // 4))
    step = [camera.width / coarse.width, camera.height / coarse.height]
    centers = pixel_centers(coarse.width, coarse.height)
    distance = tree.query((centers * step).reshape(-1, 2), [rank])[0].reshape(coarse.height, coarse.width)
    near = np.clip(1 - np.square(distance / (REACH * typical)), 0, 1)
    return sample(near, (pixel_centers(camera.width, camera.height) / step).reshape(-1, 2)).reshape(
        camera.height, camera.width
    )


def openness(normals: Float32[np.ndarray, "h w 3"], camera: Camera) -> Float64[np.ndarray, "h w"]:
    """Returns 1 for surfaces that face the camera down to 0 for grazing ones."""
    directions = rays(camera.K, camera.width, camera.height)
    cosine = -np.einsum("hwc,hwc->hw", normals, directions) / np.linalg.norm(directions, axis=-1)
    return np.clip((cosine - GRAZING[0]) / (GRAZING[1] - GRAZING[0]), 0, 1)
