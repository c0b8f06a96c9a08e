"""Which plane a gap belongs to, and its depth there."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from recon.geometry import invert, rays, transform
from recon.planar.finding import Planes, Posed, grid_points
from recon.scene import Camera, DepthMap, SparseDepth

CELL = 4  # px, side of what is decided at once
SMOOTHING = 5  # cells over which predicted normals are averaged
NEAR_DEG = 25.0  # of a direction, from which a gap's normals are not of it
ONE_DEG = 6.0  # within which planes have one direction
FACING = 0.05  # cosine to the ray, from which a plane is seen
LEAST_CELLS = 12  # of a part
AROUND = 3  # cells beside a part in which points speak for it
ON_PLANE = 0.0075  # of depth: how far points on a plane may be from it
BEHIND = 0.02  # of depth: how far points behind it are
MOST_BEHIND = 0.8  # of the points on it: a plane that more are seen behind does not go on there
ALIKE = 0.5  # of the most evidence: so much makes a plane a candidate, too
MOST_OFF, TYPICAL_OFF = 0.35, 0.2  # of predicted log depth
LEAST_EVIDENCE = 8.0  # points
MOST_MET = 0.9  # of a part's rays that its plane has to meet
LEAST_TOLD = 0.8  # of a part whose depth has to be predicted for it to count
BRIDGE = 3  # cells
BESIDE = 2  # cells from a plane, up to which a gap is its own
MEETING = 6  # cells from two planes, within which they meet
MEET_SHARE = 0.7  # of the cells there, on which nearer (or farther) has to be right
LEAST_SIGMA = 0.005  # relative
WINDOW = 31  # px, on which noise of measured pixels has little left
RELIEF = 0.75  # of their standard deviation: mean distance from a plane that is none
NOISY = 0.005  # relative sigma from which a measured pixel is part of a gap
BEYOND = 0.03  # of how wide a plane was measured: as far as that a part may lie beyond, typically
STRIP = 0.3  # of the same: narrower is a strip, which does not tell how far it goes on across
CONTRADICTS = 3.0  # standard deviations of a sparse point, from which a plane is not where it is
LEAST_OFF = 0.05  # of depth, for that
LET_GO = 1 / 32  # of the picture's longer side around such a point
OF_ONE_MIND = 4.0  # standard deviations of what was measured in a window, by which its mean is off a plane
LEAST_SEEN = 0.3  # of a plane's pixels in the window have to be measured for that


def fill_planes(
    planes: Planes,
    prior: DepthMap,
    measured: DepthMap,
    around: tuple[Float64[np.ndarray, "4 4"], Sequence[Posed]],
    allowed: Bool[np.ndarray, "h w"],
    doubted: Bool[np.ndarray, "h w"] | None = None,
) -> DepthMap:
    """Returns the depth of planes where nothing was measured, or with noise, and one fits; 0 elsewhere.

    Args:
        planes: Of the scene, world frame.
        prior: Predicted depth and normals, scene units; depth may be off by tens of percent, or not known
            (0), normals by ten degrees.
        measured: Of the same size; depth 0 where nothing was measured.
        around: Pose of the view; what other views measured, and their poses.
        allowed: Pixels that may be filled.
        doubted: Pixels that were measured, but no other view confirms: where they are many and depth is not
            predicted, what was measured behind a plane is noise. None if not given.
    """
    cam_from_world, others = around
    nothing = DepthMap(
        prior.camera,
        np.zeros_like(prior.depth),
        np.zeros_like(prior.normals),
        np.zeros_like(prior.sigma),
    )
    told = (measured.depth > 0) & (measured.sigma <= NOISY * measured.depth)
    gap = ~told & prior.normals.any(axis=-1) & allowed
    if not gap.any() or not len(planes):
        return nothing
    planes = planes.seen_from(cam_from_world)
    points = _in_view(measured, cam_from_world, others)
    unsure = np.zeros_like(gap) if doubted is None else doubted
    shares = np.stack([_cells(measured.depth > 0), _cells(unsure)])
    labels = _labels(prior, gap, planes, points, shares)
    labels = _joined(labels, gap, planes, prior.camera)
    chosen = gap & (labels >= 0)
    depth = np.where(chosen, _depth(planes, labels, rays(prior.camera.K, *_size(prior.camera))), 0)
    chosen &= np.isfinite(depth) & (depth > 0)
    chosen &= ~_is_relief(measured, depth, chosen)
    depth = np.where(chosen, depth, 0).astype(np.float32)
    sigma = np.maximum(planes.spreads[labels], LEAST_SIGMA * depth)
    return DepthMap(
        camera=prior.camera,
        depth=depth,
        normals=np.where(chosen[..., None], planes.normals[labels], 0).astype(np.float32),
        sigma=np.where(chosen, sigma, 0).astype(np.float32),
    )


def without_contradicted(walls: DepthMap, anchors: SparseDepth, measured: DepthMap) -> DepthMap:
    """Returns planes without what is around sparse points that are not on them, or is measured elsewhere.

    A part of a gap is what a network takes for one surface: a plant before a floor may be in it.

    Args:
        walls: Of `fill_planes`.
        anchors: Pixels of its camera.
        measured: In the photos, of the same size, whether other views confirm it or not; on a blank wall it
            is noise, before and behind, elsewhere it is of one mind.
    """
    ratio = anchors.values_of(walls.depth) / anchors.depth
    wrong = np.abs(ratio - 1) > np.maximum(LEAST_OFF, CONTRADICTS * anchors.sigma / anchors.depth)
    to_wrong, to_right = (
        _distance_to(anchors.uv[each & (ratio > 0)], walls.depth.shape) for each in (wrong, ~wrong)
    )
    keep = to_wrong >= np.minimum(to_right, LET_GO * max(walls.depth.shape))
    keep &= ~_is_measured_elsewhere(walls.depth, measured.depth)
    return DepthMap(
        camera=walls.camera,
        depth=np.where(keep, walls.depth, 0),
        normals=np.where(keep[..., None], walls.normals, 0),
        sigma=np.where(keep, walls.sigma, 0),
    )


def _is_measured_elsewhere(
    walls: Float32[np.ndarray, "h w"], measured: Float32[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Returns where most of what was measured in a window is on one side of the plane, and far off."""
    from scipy.ndimage import uniform_filter

    wall, both = walls > 0, (walls > 0) & (measured > 0)
    off = np.where(both, np.log(np.where(both, measured, 1) / np.where(both, walls, 1)), 0).astype(np.float64)
    seen, count = (uniform_filter(each.astype(np.float64), WINDOW) for each in (both, wall))
    mean, square = (uniform_filter(each, WINDOW) / np.maximum(seen, 1e-9) for each in (off, off**2))
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return wall & (np.abs(mean) > np.maximum(LEAST_OFF, OF_ONE_MIND * spread)) & (seen > LEAST_SEEN * count)


def _distance_to(uv: Float64[np.ndarray, "n 2"], shape: tuple[int, ...]) -> Float64[np.ndarray, "h w"]:
    """Returns the distance of each pixel from the nearest of those of points, infinity without any."""
    from scipy.ndimage import distance_transform_edt

    if not len(uv):
        return np.full(shape, np.inf)
    column, row = np.floor(uv).astype(np.int64).T
    clear = np.ones(shape, np.bool_)
    clear[np.clip(row, 0, shape[0] - 1), np.clip(column, 0, shape[1] - 1)] = False
    return np.asarray(distance_transform_edt(clear))


def _is_relief(
    measured: DepthMap, depth: Float64[np.ndarray, "h w"], chosen: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Returns where what was measured, noisy as it is, is off the plane in the window around a pixel."""
    from scipy.ndimage import uniform_filter

    both = chosen & (measured.depth > 0)
    off = np.where(both, (measured.depth - np.where(both, depth, 0)) / np.where(both, measured.sigma, 1), 0)
    mean = uniform_filter(off, WINDOW) / np.maximum(uniform_filter(both.astype(np.float64), WINDOW), 1e-9)
    return both & (np.abs(mean) > RELIEF)


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


def _in_view(
    measured: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    others: Sequence[Posed],
) -> Float64[np.ndarray, "n 3"]:
    """Returns points that were measured, frame of the view."""
    parts = [grid_points(measured)]
    for depth_map, other_from_world in others:
        parts.append(transform(cam_from_world @ invert(other_from_world), grid_points(depth_map)))
    return np.concatenate(parts)


def _depth(
    planes: Planes, labels: Int64[np.ndarray, "*shape"], toward: Float64[np.ndarray, "*shape 3"]
) -> Float64[np.ndarray, "*shape"]:
    """Returns where rays meet the planes of their labels; infinity where they do not, or from behind."""
    cosine = np.einsum("...c,...c->...", planes.normals[labels], toward)
    seen = cosine < -FACING * np.linalg.norm(toward, axis=-1)
    return np.where(seen, planes.offsets[labels] / np.where(seen, cosine, -1), np.inf)


def _cells(values: np.ndarray) -> np.ndarray:
    """Returns the means over cells; those at the border repeat the last pixels."""
    height, width = values.shape[:2]
    rows, columns = -(-height // CELL), -(-width // CELL)
    missing = ((0, rows * CELL - height), (0, columns * CELL - width), *((0, 0),) * (values.ndim - 2))
    padded = np.pad(values.astype(np.float64), missing, mode="edge")
    return padded.reshape(rows, CELL, columns, CELL, *values.shape[2:]).mean(axis=(1, 3))


def _labels(
    prior: DepthMap,
    gap: Bool[np.ndarray, "h w"],
    planes: Planes,
    points: Float64[np.ndarray, "n 3"],
    shares: Float64[np.ndarray, "2 a b"],
) -> Int64[np.ndarray, "a b"]:
    """Returns the plane of each cell, -1 where there is none.

    Args:
        prior: Of the view.
        gap: Pixels without depth.
        planes: Frame of the view.
        points: That were measured, same frame.
        shares: Of a cell's pixels that are confirmed, and that are doubted.
    """
    from scipy.ndimage import binary_dilation, find_objects

    camera = prior.camera
    open_cells = _cells(gap) > 0.5
    toward = _cells(rays(camera.K, *_size(camera)))
    group, heads = _grouped(planes)
    nearest = _nearest(_cells(np.where(gap[..., None], prior.normals, 0)), toward, heads)
    nearest[~open_cells] = -1
    log_depth = _cells(np.log(np.where(prior.depth > 0, prior.depth, np.nan)))
    column, row, within = _cell_of(points, camera, open_cells.shape)
    points, column, row = points[within], column[within], row[within]
    labels = np.full(open_cells.shape, -1)
    for direction in range(len(heads)):
        parts = _parts(nearest == direction)
        candidates = np.flatnonzero(group == direction)
        for number, box in enumerate(find_objects(parts), start=1):
            if (parts[box] == number).sum() < LEAST_CELLS:
                continue
            part = parts == number
            near = binary_dilation(part, iterations=AROUND)
            confirmed, doubted = shares[:, near].sum(axis=1)
            trust = float(confirmed / max(confirmed + doubted, 1e-9))
            predicted = toward[part], log_depth[part]
            labels[part] = _best_plane(planes, candidates, predicted, points[near[row, column]], trust)
    return labels


def _grouped(planes: Planes) -> tuple[Int64[np.ndarray, "k"], Float64[np.ndarray, "g 3"]]:
    """Returns which direction each plane has, and these directions."""
    heads: list[np.ndarray] = []
    group = np.zeros(len(planes), np.int64)
    for index, normal in enumerate(planes.normals):
        near = [number for number, head in enumerate(heads) if normal @ head > np.cos(np.radians(ONE_DEG))]
        if not near:
            heads.append(normal)
        group[index] = near[0] if near else len(heads) - 1
    return group, np.array(heads)


def _nearest(
    normals: Float64[np.ndarray, "a b 3"],
    toward: Float64[np.ndarray, "a b 3"],
    heads: Float64[np.ndarray, "g 3"],
) -> Int64[np.ndarray, "a b"]:
    """Returns the direction that the smoothed normals are nearest to, -1 where none is near."""
    from scipy.ndimage import uniform_filter

    smooth = uniform_filter(normals, (SMOOTHING, SMOOTHING, 1), mode="constant")
    smooth /= np.maximum(np.linalg.norm(smooth, axis=-1, keepdims=True), 1e-30)
    cosines = np.where(toward @ heads.T < -FACING, smooth @ heads.T, -1)
    return np.where(cosines.max(axis=-1) > np.cos(np.radians(NEAR_DEG)), cosines.argmax(axis=-1), -1)


def _parts(cells: Bool[np.ndarray, "a b"]) -> Int64[np.ndarray, "a b"]:
    """Returns numbers from 1 of the parts that cells fall into; bridges thinner than three join nothing."""
    from scipy.ndimage import binary_erosion, distance_transform_edt, label

    square = np.ones((3, 3), bool)
    parts, count = label(binary_erosion(cells, square))
    if count:
        distance, (row, column) = distance_transform_edt(parts == 0, return_indices=True)
        parts = np.where(cells & (distance < BRIDGE), parts[row, column], 0)
    rest, _ = label(cells & (parts == 0))
    return np.where(rest > 0, rest + count, parts).astype(np.int64)


def _cell_of(
    points: Float64[np.ndarray, "n 3"], camera: Camera, shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Returns column and row of the cells that points fall into, and which points do."""
    before = points[:, 2] > 0
    image = points @ camera.K.T
    uv = image[:, :2] / np.where(before, image[:, 2], 1)[:, None]
    within = before & (uv >= 0).all(axis=1) & (uv < _size(camera)).all(axis=1)
    cell = np.where(within[:, None], uv // CELL, 0).astype(np.int64)
    return np.minimum(cell[:, 0], shape[1] - 1), np.minimum(cell[:, 1], shape[0] - 1), within


def _best_plane(
    planes: Planes,
    candidates: Int64[np.ndarray, "c"],
    predicted: tuple[Float64[np.ndarray, "m 3"], Float64[np.ndarray, "m"]],
    points: Float64[np.ndarray, "n 3"],
    trust: float,
) -> int:
    """Returns the plane that a part of a gap lies on, -1 for none.

    Of planes so near each other that points behind do not tell them apart it is the farthest: skirting boards
    and frames stand before a wall, and nothing stands behind it.

    Args:
        planes: All.
        candidates: Those of its direction.
        predicted: Rays of its cells and their predicted log depth, NaN where it is not known.
        points: In it and around it.
        trust: Share of what was measured there that is confirmed.
    """
    found: list[tuple[int, float, float]] = []
    toward, log_depth = predicted
    is_told = np.isfinite(log_depth).mean() >= LEAST_TOLD
    noise = 0 if is_told else (1 - trust) * len(points)  # around a wrong prior, as where nothing is told
    for index in candidates:
        depth = _depth(planes, np.full(len(toward), index), toward)
        met = np.isfinite(depth)
        if met.mean() < MOST_MET:
            continue
        off = abs(float(np.nanmedian((np.log(depth) - log_depth)[met]))) if is_told else TYPICAL_OFF
        if off > MOST_OFF or _is_beyond(planes, int(index), toward[met] * depth[met][:, None]):
            continue
        above = (points @ planes.normals[index] - planes.offsets[index]) / points[:, 2]
        on = int((np.abs(above) < ON_PLANE).sum())
        behind = max(int((above < -BEHIND).sum()) - noise, 0)
        if behind > MOST_BEHIND * on:
            continue
        evidence = (on - behind) * float(np.exp(-((off / TYPICAL_OFF) ** 2) / 2))
        if evidence > LEAST_EVIDENCE:
            found.append((int(index), evidence, float(np.median(depth[met]))))
    if not found:
        return -1
    _, most, nearest = max(found, key=lambda one: one[1])
    alike = [one for one in found if one[1] >= ALIKE * most and one[2] <= (1 + BEHIND) * nearest]
    return max(alike, key=lambda one: one[2])[0]


def _is_beyond(planes: Planes, index: int, points: Float64[np.ndarray, "n 3"]) -> bool:
    """Returns whether most of some points of a plane lie beyond what was measured of it.

    A table ends where nothing is measured any more, and behind it the backdrop begins.
    """
    widths = planes.widths(index)
    widest = widths.max()
    asked = (widths == widest) | (widths.min() >= STRIP * widest)
    off = (points @ planes.along[index, asked].T - planes.reach[index, asked]).max(axis=1)
    return bool(np.median(off) > BEYOND * widest)


def _joined(
    labels: Int64[np.ndarray, "a b"], gap: Bool[np.ndarray, "h w"], planes: Planes, camera: Camera
) -> Int64[np.ndarray, "h w"]:
    """Returns the plane of each pixel, -1 for none.

    Cells between planes belong to the nearest, and planes that meet in a gap part at their line of
    intersection.
    """
    from scipy.ndimage import binary_dilation, distance_transform_edt

    distance, (row, column) = distance_transform_edt(labels < 0, return_indices=True)
    present = [int(index) for index in np.unique(labels) if index >= 0]
    near = {index: binary_dilation(labels == index, iterations=MEETING) for index in present}
    meeting = np.sum([near[index] for index in present], axis=0) > 1
    spread = np.where((distance <= BESIDE) | meeting, labels[row, column], -1)
    height, width = gap.shape
    toward, centers = rays(camera.K, width, height), _cells(rays(camera.K, width, height))

    def pixels(cells: np.ndarray) -> np.ndarray:
        return np.repeat(np.repeat(cells, CELL, 0), CELL, 1)[:height, :width]

    found = pixels(spread)
    for position, one in enumerate(present):
        for other in present[:position]:
            band = near[one] & near[other]
            judged = band & ((labels == one) | (labels == other))
            if not judged.any():
                continue
            nearer = _nearer(planes, one, other, centers[judged])
            right = float((np.where(nearer, one, other) == labels[judged]).mean())
            if max(right, 1 - right) < MEET_SHARE:
                continue
            where = pixels(band) & ((found == one) | (found == other))
            first = _nearer(planes, one, other, toward[where]) == (right >= MEET_SHARE)
            found[where] = np.where(first, one, other)
    return found


def _nearer(
    planes: Planes, one: int, other: int, toward: Float64[np.ndarray, "n 3"]
) -> Bool[np.ndarray, "n"]:
    """Returns whether rays meet one plane before the other."""
    count = len(toward)
    return _depth(planes, np.full(count, one), toward) < _depth(planes, np.full(count, other), toward)
