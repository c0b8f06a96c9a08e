"""Planes that what was measured lies on: directions first, then offsets along each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from recon.geometry import invert, pixel_centers, rays, rotate, transform, unproject
from recon.scene import DepthMap

MOST_PATCHES, LEAST_STEP = 160, 4  # along the longer side; px between them
RADIUS = 8  # px, of a patch
LEAST_KNOWN = 0.6  # share of a patch that was measured
FLAT = 0.01  # relative standard deviation of inverse depth from the patch's plane
SAME_DEG, APART_DEG = 4.0, 15.0  # angles within which directions are one, beyond which they are two
SQUARE = 0.06  # cosine up to which two directions are at right angles
TRIALS, JUDGES = 300, 3000  # patches that propose a direction, and that judge it
LEAST_SHARE = 0.02  # of the patches that share a direction
MOST_DIRECTIONS, MOST_OFFSETS = 8, 24
FACING_DEG = 30.0  # a patch that faces farther away is of another surface
NARROWEST, WIDEST = 0.0015, 0.015  # of the unit, between which the bands that count offsets are
NOISES = 1.2  # relative standard deviations of measured depth that a band is wide
THICK = 1.5  # bands within which points are on a plane
LEAST_POINTS = 50  # in a band
MOST_BINS = 1_000_000  # of half a band; what is farther out is no wall
CROWDED = 1.2  # times as many as around it, on the emptier side
AROUND = 30  # halves of a band to either side
SIDES = (AROUND // 2 - 1, -AROUND // 2)  # shifts of that window
SPREAD = 0.15  # of the unit: standard deviation along both axes that tells a plane's own direction
DIRECTIONS = 32  # around, in which a plane's extent is kept
STRAY, STRAY_SHARE = 10, 50  # points that may lie beyond it, and at most one in so many


Posed = tuple[DepthMap, Float64[np.ndarray, "4 4"]]


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes normal . x = offset."""

    normals: Float64[np.ndarray, "k 3"]
    offsets: Float64[np.ndarray, "k"]
    spreads: Float64[np.ndarray, "k"]
    """Mean distance of their points, scene units."""

    along: Float64[np.ndarray, "k d 3"]
    """Unit vectors in each plane, evenly around."""

    reach: Float64[np.ndarray, "k d"]
    """How far along them its points lie: x of the plane is within their convex hull if along . x <= reach."""

    def __len__(self) -> int:
        return len(self.offsets)

    def seen_from(self, cam_from_world: Float64[np.ndarray, "4 4"]) -> "Planes":
        """Returns planes of the world in a camera's frame, facing it: their offsets are negative."""
        normals = rotate(cam_from_world, self.normals)
        offsets = self.offsets + normals @ cam_from_world[:3, 3]
        sign = np.where(offsets > 0, -1.0, 1.0)
        along = rotate(cam_from_world, self.along)
        reach = self.reach + along @ cam_from_world[:3, 3]
        return Planes(normals * sign[:, None], offsets * sign, self.spreads, along, reach)

    def widths(self, index: int) -> Float64[np.ndarray, "d"]:
        """Returns how wide the points of a plane lie along each of its vectors, scene units."""
        return self.reach[index] + np.roll(self.reach[index], DIRECTIONS // 2)


def grid_points(depth_map: DepthMap) -> Float64[np.ndarray, "n 3"]:
    """Returns the points of a depth map on a grid, its frame, where there is depth."""
    grid, camera = _grid(depth_map), depth_map.camera
    depth = depth_map.depth[grid]
    centers = pixel_centers(camera.width, camera.height)[grid]
    return unproject(camera.K, centers[depth > 0], depth[depth > 0])


def _grid(depth_map: DepthMap) -> tuple[slice, slice]:
    step = max(LEAST_STEP, round(max(depth_map.depth.shape) / MOST_PATCHES))
    return (slice(step // 2, None, step),) * 2


def patch_normals(depth_map: DepthMap) -> Float64[np.ndarray, "n 3"]:
    """Returns the normals of the patches around `grid_points`.

    A normal is zero where the patch is not flat or too little of it is known. On a plane inverse depth is
    linear in the ray; the sums of its normal equations are box filters.
    """
    from scipy.ndimage import uniform_filter

    depth, camera = depth_map.depth.astype(np.float64), depth_map.camera
    known = depth > 0
    k = known.astype(np.float64)
    w = np.where(known, 1 / np.where(known, depth, 1), 0)
    x, y, _ = np.moveaxis(rays(camera.K, camera.width, camera.height), -1, 0)
    grid = _grid(depth_map)

    def mean(values: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "a b"]:
        return uniform_filter(values, 2 * RADIUS + 1, mode="constant")[grid]

    share = mean(k)
    there = known[grid]
    flat = there & (share > LEAST_KNOWN)
    s = np.where(flat, share, 1)
    mx, my, mw = mean(k * x) / s, mean(k * y) / s, mean(w) / s
    a, b, c = mean(k * x * x) / s - mx * mx, mean(k * x * y) / s - mx * my, mean(k * y * y) / s - my * my
    d, e = mean(x * w) / s - mx * mw, mean(y * w) / s - my * mw
    determinant = a * c - b * b
    flat &= determinant > 1e-14
    safe = np.where(flat, determinant, 1)
    gx, gy = (c * d - b * e) / safe, (a * e - b * d) / safe
    left = np.maximum(mean(w * w) / s - mw * mw - gx * d - gy * e, 0)
    flat &= np.sqrt(left) < FLAT * mw
    normals = -np.stack([gx, gy, mw - gx * mx - gy * my], axis=-1)  # w = -normals . ray
    normals *= flat[..., None] / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-30)
    return normals[there]


def find_planes(maps: Iterable[Posed]) -> Planes:
    """Returns the planes that measured depth crowds on, world frame.

    Args:
        maps: What views measured, and their poses.
    """
    parts, depths, noises = [], [], []
    for depth_map, cam_from_world in maps:
        known = depth_map.depth > 0
        if not known.any():
            continue
        noises.append(float(np.median(depth_map.sigma[known] / depth_map.depth[known])))
        points, normals = grid_points(depth_map), patch_normals(depth_map)
        world_from_cam = invert(cam_from_world)
        parts.append((transform(world_from_cam, points), rotate(world_from_cam, normals)))
        depths.append(points[:, 2])
    if not parts:
        return _collected([])
    points, normals = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    unit = float(np.median(np.concatenate(depths)))
    band = unit * float(np.clip(NOISES * np.median(noises), NARROWEST, WIDEST))
    found = [
        _refined(points, normals, (direction, offset), unit, band)
        for direction in _directions(normals[normals.any(axis=1)])
        for offset in _offsets(points, normals, direction, band)
    ]
    return _collected(found)


_Found = tuple[Float64[np.ndarray, "3"], float, float, Float64[np.ndarray, "d 3"], Float64[np.ndarray, "d"]]


def _collected(found: Sequence[_Found]) -> Planes:
    normals, offsets, spreads, along, reach = zip(*found, strict=True) if found else ((),) * 5
    return Planes(
        np.array(normals, np.float64).reshape(-1, 3),
        np.array(offsets, np.float64),
        np.array(spreads, np.float64),
        np.array(along, np.float64).reshape(-1, DIRECTIONS, 3),
        np.array(reach, np.float64).reshape(-1, DIRECTIONS),
    )


def _directions(normals: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "k 3"]:
    """Returns directions that many normals share, most first, and those at right angles to two of them."""
    rng, left = np.random.default_rng(0), normals
    found: list[np.ndarray] = []
    least = max(LEAST_SHARE * len(normals), LEAST_POINTS)
    while len(found) < MOST_DIRECTIONS and len(left) >= least:
        tried, judges = (left[rng.permutation(len(left))[:count]] for count in (TRIALS, JUDGES))
        near = np.abs(tried @ judges.T) > np.cos(np.radians(SAME_DEG))
        direction = tried[near.sum(axis=1).argmax()]
        for _ in range(5):
            cosines = left @ direction
            same = np.abs(cosines) > np.cos(np.radians(1.5 * SAME_DEG))
            direction = np.sign(cosines[same]) @ left[same]
            direction = direction / np.linalg.norm(direction)
        if same.sum() < least:
            break
        found.append(_squared(direction, found))
        left = left[np.abs(left @ direction) < np.cos(np.radians(APART_DEG))]
    for i in range(len(found)):
        for j in range(i):
            if abs(found[i] @ found[j]) < SQUARE:
                third = np.cross(found[i], found[j])
                third /= np.linalg.norm(third)
                if all(abs(third @ other) < np.cos(np.radians(APART_DEG)) for other in found):
                    found.append(third)
    return np.array(found).reshape(-1, 3)


def _squared(
    direction: Float64[np.ndarray, "3"], found: Sequence[Float64[np.ndarray, "3"]]
) -> Float64[np.ndarray, "3"]:
    """Returns a direction at right angles to those found before that it nearly is at right angles to."""
    near = [other for other in found if abs(direction @ other) < SQUARE][:2]
    if len(near) == 2 and abs(near[0] @ near[1]) < 1e-9:
        third = np.cross(near[0], near[1])
        return third * np.sign(third @ direction) / np.linalg.norm(third)
    if near:
        direction = direction - (direction @ near[0]) * near[0]
    return direction / np.linalg.norm(direction)


def _offsets(
    points: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
    direction: Float64[np.ndarray, "3"],
    band: float,
) -> list[float]:
    """Returns where along a direction points crowd, most first."""
    from scipy.ndimage import gaussian_filter1d, maximum_filter1d, uniform_filter1d

    along = points[_may_face(normals, direction)] @ direction
    bin_size = band / 2
    if len(along) < LEAST_POINTS:
        return []
    middle = float(np.median(along))
    reach = np.percentile(np.abs(along - middle), 99.9) + 20 * bin_size
    low, high = middle + np.array([-1, 1]) * min(reach, MOST_BINS / 2 * bin_size)
    edges = np.arange(low, high + bin_size, bin_size)
    counts = np.histogram(along, edges)[0].astype(np.float64)
    crowd = gaussian_filter1d(counts, 2.0, mode="constant") * 5
    before, after = (uniform_filter1d(crowd, AROUND, mode="constant", origin=o) for o in SIDES)
    around = np.minimum(before, after)  # nothing is behind a wall, before it may be much
    peaks = np.flatnonzero(
        (crowd == maximum_filter1d(crowd, 9)) & (crowd > LEAST_POINTS) & (crowd > CROWDED * around)
    )
    best = peaks[np.argsort(-crowd[peaks], kind="stable")][:MOST_OFFSETS]
    return [float(edges[peak] + bin_size / 2) for peak in best]


def _may_face(
    normals: Float64[np.ndarray, "n 3"], direction: Float64[np.ndarray, "3"]
) -> Bool[np.ndarray, "n"]:
    return ~normals.any(axis=1) | (np.abs(normals @ direction) > np.cos(np.radians(FACING_DEG)))


def _refined(
    points: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
    plane: tuple[Float64[np.ndarray, "3"], float],
    unit: float,
    band: float,
) -> _Found:
    """Returns normal, offset, spread and extent of a plane; its own direction where its points tell one."""
    direction, offset = plane
    able = _may_face(normals, direction)
    for _ in range(2):
        on = able & (np.abs(points @ direction - offset) < THICK * band)
        offset = float((points[on] @ direction).mean())
    some = points[on]
    center = some.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((some - center).T))
    own = axes[:, 0] * np.sign(axes[:, 0] @ direction)
    if variances[1] > (SPREAD * unit) ** 2 and own @ direction > np.cos(np.radians(SAME_DEG)):
        direction, offset = own, float(own @ center)
    along, reach = _extent(some, direction)
    return direction, offset, float(np.abs(some @ direction - offset).mean()), along, reach


def _extent(
    points: Float64[np.ndarray, "n 3"], normal: Float64[np.ndarray, "3"]
) -> tuple[Float64[np.ndarray, "d 3"], Float64[np.ndarray, "d"]]:
    """Returns vectors around in a plane, and how far along each its points lie but for a few."""
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    angle = 2 * np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    along = np.outer(np.cos(angle), first) + np.outer(np.sin(angle), np.cross(normal, first))
    beyond = len(points) - 1 - min(STRAY, len(points) // STRAY_SHARE)
    return along, np.partition(points @ along.T, beyond, axis=0)[beyond]
