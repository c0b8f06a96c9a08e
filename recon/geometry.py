"""Projective geometry on arrays: transforms, projection, normals from depth, sampling at depth edges.

Frames, signs and the half pixel are those of `recon/__init__.py`. Everything here is pure and vectorised.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Real

from recon.errors import InputError

RELATIVE_DEPTH_JUMP = 0.05  # neighbours that differ by more than 5 % of their depth lie on two surfaces


def transform(
    target_from_source: Float64[np.ndarray, "4 4"], points: Float[np.ndarray, "*batch 3"]
) -> Float64[np.ndarray, "*batch 3"]:
    """Returns points of the source frame in the target frame; a similarity scales them too."""
    return points @ target_from_source[:3, :3].T + target_from_source[:3, 3]


def rotate(
    target_from_source: Float64[np.ndarray, "4 4"], vectors: Float[np.ndarray, "*batch 3"]
) -> Float64[np.ndarray, "*batch 3"]:
    """Returns directions of the source frame in the target frame: rotated, neither moved nor scaled."""
    linear = target_from_source[:3, :3]
    return vectors @ (linear / np.cbrt(np.linalg.det(linear))).T


def invert(target_from_source: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """Returns `source_from_target` of a rigid transform or a similarity."""
    linear = target_from_source[:3, :3]
    scale_squared = np.cbrt(np.linalg.det(linear)) ** 2
    inverse = np.eye(4)
    inverse[:3, :3] = linear.T / scale_squared
    inverse[:3, 3] = -inverse[:3, :3] @ target_from_source[:3, 3]
    return inverse


def rotation_from_wxyz(wxyz: Float[np.ndarray, "*batch 4"]) -> Float64[np.ndarray, "*batch 3 3"]:
    """Returns the rotation matrix of a quaternion (w first); it need not have unit length."""
    q = np.asarray(wxyz, np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def look_at(
    center: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"], down: Float[np.ndarray, "3"]
) -> Float64[np.ndarray, "4 4"]:
    """Returns `cam_from_world` of a camera at `center` that looks at `target`.

    Args:
        center: Camera centre, world frame.
        target: Point on the optical axis, world frame.
        down: World direction that points down in the picture; not parallel to the view direction.
    """
    forward = (target - center) / np.linalg.norm(target - center)
    right = np.cross(down, forward)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation
    cam_from_world[:3, 3] = -rotation @ center
    return cam_from_world


def pixel_centers(width: int, height: int) -> Float64[np.ndarray, "h w 2"]:
    """Returns (u, v) of every pixel centre; the first is (0.5, 0.5)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v], axis=-1)


def project(
    K: Float64[np.ndarray, "3 3"], points_cam: Float[np.ndarray, "*batch 3"]
) -> Float64[np.ndarray, "*batch 2"]:
    """Returns pixels (u, v) of camera-frame points; NaN for points that are not in front of the camera."""
    points = np.asarray(points_cam, np.float64)
    z = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
    return (points / z) @ K[:2].T


def projection_jacobian(
    K: Float64[np.ndarray, "3 3"], points_cam: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 2 3"]:
    """Returns how pixels change with points, px per unit of the camera frame; NaN as in `project`."""
    z = points_cam[:, 2, None, None]
    uv = project(K, points_cam)
    return (K[:2] - np.concatenate([np.zeros((len(z), 2, 2)), uv[..., None]], axis=2)) / z


def unproject(
    K: Float64[np.ndarray, "3 3"], uv: Float[np.ndarray, "*batch 2"], depth: Float[np.ndarray, "*batch"]
) -> Float64[np.ndarray, "*batch 3"]:
    """Returns camera-frame points at pixels `uv` and z-depth `depth`."""
    homogeneous = np.concatenate([uv, np.ones_like(uv[..., :1])], axis=-1)
    return homogeneous @ np.linalg.inv(K).T * np.asarray(depth, np.float64)[..., None]


def rays(K: Float64[np.ndarray, "3 3"], width: int, height: int) -> Float64[np.ndarray, "h w 3"]:
    """Returns the viewing ray of every pixel centre, scaled to z = 1."""
    return unproject(K, pixel_centers(width, height), np.ones((height, width)))


def points_from_depth(
    K: Float64[np.ndarray, "3 3"], depth: Float32[np.ndarray, "h w"]
) -> Float64[np.ndarray, "h w 3"]:
    """Returns the camera-frame point of every pixel; the origin where depth is 0."""
    height, width = depth.shape
    return rays(K, width, height) * depth[..., None].astype(np.float64)


def normals_from_depth(
    K: Float64[np.ndarray, "3 3"],
    depth: Float32[np.ndarray, "h w"],
    relative_jump: float = RELATIVE_DEPTH_JUMP,
    step: int = 1,
) -> Float32[np.ndarray, "h w 3"]:
    """Returns unit normals of a depth map, camera frame, facing the camera; (0, 0, 0) where there is none.

    Tangents are central differences of the unprojected points; where one side is missing or jumps by more
    than `relative_jump` of the depth, the one-sided difference of the other side is taken. Exact on
    planes. The differences span `step` pixels to either side: more for noisy sensor depth.
    """
    points = points_from_depth(K, depth)
    tangent_u, valid_u = _tangent(points, depth, axis=1, step=step, relative_jump=relative_jump)
    tangent_v, valid_v = _tangent(points, depth, axis=0, step=step, relative_jump=relative_jump)
    normals = np.cross(tangent_v, tangent_u)  # v x u points to the camera in a right-down-forward frame
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    valid = valid_u & valid_v & (depth > 0) & (length[..., 0] > 0)
    normals = np.where(valid[..., None], normals / np.where(length > 0, length, 1), 0)
    facing = np.sign(-np.einsum("hwc,hwc->hw", normals, points))
    return (normals * facing[..., None]).astype(np.float32)


def _tangent(
    points: Float64[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    *,
    axis: int,
    step: int,
    relative_jump: float,
) -> tuple[Float64[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    forward = np.zeros_like(points)
    joined = np.zeros(depth.shape, bool)  # pixel and the one `step` ahead lie on one surface
    here: list[slice] = [slice(None), slice(None)]
    there: list[slice] = [slice(None), slice(None)]
    here[axis], there[axis] = slice(None, -step), slice(step, None)
    first, second = depth[tuple(here)], depth[tuple(there)]
    forward[tuple(here)] = points[tuple(there)] - points[tuple(here)]
    near = np.minimum(first, second)
    joined[tuple(here)] = (near > 0) & (np.abs(first - second) <= relative_jump * near)
    backward = np.roll(forward, step, axis=axis)
    joined_back = np.roll(joined, step, axis=axis)
    total = forward * joined[..., None] + backward * joined_back[..., None]
    return total, joined | joined_back


def depth_edges(
    depth: Float32[np.ndarray, "h w"], relative_jump: float = RELATIVE_DEPTH_JUMP
) -> Bool[np.ndarray, "h w"]:
    """Returns True where a pixel's 3x3 neighbourhood spans over `relative_jump` of its depth or a hole."""
    from scipy.ndimage import maximum_filter, minimum_filter

    low, high = (extreme(depth, 3, mode="nearest") for extreme in (minimum_filter, maximum_filter))
    return (low <= 0) | (high - low > relative_jump * np.maximum(low, np.finfo(np.float32).tiny))


def sample(values: Real[np.ndarray, "h w *c"], uv: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n *c"]:
    """Returns bilinear samples at pixels `uv`; coordinates beyond the border take the border's value."""
    corners, weights = _bilinear(values.shape[1], values.shape[0], uv)
    taps = values[corners[..., 1], corners[..., 0]].astype(np.float64)  # (n, 4, *c)
    return np.einsum("nk...,nk->n...", taps, weights)


def sample_depth(
    depth: Float32[np.ndarray, "h w"],
    uv: Float[np.ndarray, "n 2"],
    relative_jump: float = RELATIVE_DEPTH_JUMP,
) -> Float64[np.ndarray, "n"]:
    """Returns depth at pixels `uv`, never mixed over a depth edge; 0 outside the map and beside holes.

    Bilinear where the four taps lie on one surface, else the nearest tap. The mean is taken over 1 / depth,
    which is linear over the picture of a plane, so planes are sampled exactly.
    """
    height, width = depth.shape
    inside = (uv[:, 0] >= 0) & (uv[:, 0] < width) & (uv[:, 1] >= 0) & (uv[:, 1] < height)
    safe = np.where(inside[:, None], uv, 0.5)
    corners, weights = _bilinear(width, height, safe)
    taps = depth[corners[..., 1], corners[..., 0]].astype(np.float64)  # (n, 4)
    low, high = taps.min(axis=1), taps.max(axis=1)
    smooth = (low > 0) & (high - low <= relative_jump * low)
    blended = 1 / np.einsum("nk,nk->n", 1 / np.where(taps > 0, taps, 1), weights)
    nearest = taps[np.arange(len(uv)), weights.argmax(axis=1)]
    return np.where(inside, np.where(smooth, blended, nearest), 0)


def _bilinear(
    width: int, height: int, uv: Float[np.ndarray, "n 2"]
) -> tuple[np.ndarray, Float64[np.ndarray, "n 4"]]:
    position = np.clip(np.asarray(uv, np.float64) - 0.5, 0, [width - 1, height - 1])
    base = np.minimum(np.floor(position).astype(np.int64), np.maximum([width - 2, height - 2], 0))
    fraction = position - base
    steps = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    corners = np.minimum(base[:, None] + steps, [width - 1, height - 1])  # (n, 4, 2)
    weights = np.where(steps, fraction[:, None], 1 - fraction[:, None]).prod(axis=-1)
    return corners, weights


def similarity(
    source: Float64[np.ndarray, "n 3"], target: Float64[np.ndarray, "n 3"], with_scale: bool = True
) -> Float64[np.ndarray, "4 4"]:
    """Returns the similarity `target_from_source` that fits two point sets in least squares.

    Minimises sum_i |t_i - (c R s_i + b)|^2 (Umeyama, 1991, equations 40 to 43).

    Args:
        source: Points, source frame.
        target: The same points, target frame.
        with_scale: False fits a rigid transform (c = 1).

    Raises:
        InputError: Fewer than 3 points, or all on one line.
    """
    if len(source) < 3:
        raise InputError(f"similarity: {len(source)} point pairs, at least 3 wanted")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_centered, target_centered = source - source_mean, target - target_mean
    U, singular, Vt = np.linalg.svd(target_centered.T @ source_centered / len(source))
    if singular[1] <= 1e-12 * max(singular[0], np.finfo(float).tiny):
        raise InputError("similarity: all points lie on one line, the rotation about it is unknown")
    signs = np.array([1, 1, np.sign(np.linalg.det(U) * np.linalg.det(Vt))])
    rotation = (U * signs) @ Vt
    scale = (singular * signs).sum() / source_centered.var(axis=0).sum() if with_scale else 1.0
    target_from_source = np.eye(4)
    target_from_source[:3, :3] = scale * rotation
    target_from_source[:3, 3] = target_mean - scale * rotation @ source_mean
    return target_from_source
