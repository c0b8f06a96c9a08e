"""The plain back end that ours has to beat: one RANSAC affine fit per view, unweighted TSDF, marching cubes.

Alignment as Murre (Guo et al. 2025) describes it: scale and shift by RANSAC, 1000 trials, then least squares
on the inliers. Fusion by Open3D's VoxelBlockGrid, every observation with weight 1. Written from the
descriptions.
"""

import numpy as np

from recon.errors import ViewError
from recon.geometry import sample
from recon.raycasting import import_open3d
from recon.scene import Mesh, Prediction, Scene, SparseDepth, View

TRIALS = 1000
MIN_POINTS = 10
INLIER_ERROR = 0.1  # relative depth; the networks' own error is about 5 %
MIN_DISPARITY = 1e-6  # share of the anchors' median disparity below which a pixel has no depth
BLOCK_SIZE = 8
MIN_VIEWS = 3.0  # Open3D's own default for the weight of a vertex


def ransac_affine(predicted: np.ndarray, target: np.ndarray, tolerance: np.ndarray) -> tuple[float, float]:
    """Scale and shift of the line with the most points within their tolerance, refitted to these points."""
    if len(predicted) < MIN_POINTS:
        raise ViewError(f"view: {len(predicted)} anchors, at least {MIN_POINTS} wanted")
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(predicted), (2, TRIALS))
    run = predicted[second] - predicted[first]
    run = np.where(run == 0, np.nan, run)
    scale = (target[second] - target[first]) / run
    shift = target[first] - scale * predicted[first]
    residual = np.abs(scale[:, None] * predicted + shift[:, None] - target)
    inliers = (residual < tolerance) & (scale[:, None] > 0)  # (trials, n)
    best = inliers[inliers.sum(axis=1).argmax()]
    if best.sum() < 2:
        raise ViewError("view: no scale and shift fit two anchors")
    design = np.stack([predicted[best], np.ones(best.sum())], axis=1)
    solution = np.linalg.lstsq(design, target[best], rcond=None)[0]
    return float(solution[0]), float(solution[1])


def plain_depth(prediction: Prediction, anchors: SparseDepth) -> np.ndarray:
    """Depth (h, w) float32 of a prediction under its RANSAC fit; 0 where there is none."""
    predicted = sample(prediction.values, anchors.uv)
    known = np.isfinite(predicted)
    predicted, depth = predicted[known], anchors.depth[known]
    is_disparity = prediction.kind == "affine_disparity"
    target = 1 / depth if is_disparity else depth
    scale, shift = ransac_affine(predicted, target, INLIER_ERROR * target)
    values = scale * prediction.values.astype(np.float64) + shift
    if is_disparity:
        values = 1 / np.where(values > MIN_DISPARITY * np.median(target), values, np.inf)
    return np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)


def plain_reconstruction(
    scene: Scene,
    predictions: dict[str, Prediction],
    images: dict[str, np.ndarray],
    voxel_size: float,
    truncation: float,
) -> Mesh:
    """Mesh of a posed scene; views that cannot be aligned are left out."""
    depths = {}
    for view in scene.views:
        if view.name not in predictions:
            continue
        prediction = predictions[view.name]
        height, width = prediction.values.shape
        anchors = scene.anchors(view).resized(view.camera, view.camera.resized(width, height))
        try:
            depths[view.name] = plain_depth(prediction, anchors)
        except ViewError:
            continue
    return plain_fusion([scene.view(name) for name in depths], depths, images, voxel_size, truncation)


def plain_fusion(
    views: list[View],
    depths: dict[str, np.ndarray],
    images: dict[str, np.ndarray],
    voxel_size: float,
    truncation: float,
    min_views: float = MIN_VIEWS,
) -> Mesh:
    """Mesh of depth maps of posed views by Open3D, all weights 1, where more than `min_views` saw it."""
    o3d = import_open3d()
    core = o3d.core
    grid = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(core.float32, core.float32, core.float32),
        attr_channels=((1), (1), (3)),
        voxel_size=voxel_size,
        block_resolution=BLOCK_SIZE,
        block_count=50_000,
    )
    for view in views:
        depth = depths[view.name]
        if not depth.any():
            continue
        height, width = depth.shape
        intrinsic = core.Tensor(view.camera.resized(width, height).K)
        extrinsic = core.Tensor(view.cam_from_world)
        picture = o3d.t.geometry.Image(core.Tensor(np.ascontiguousarray(depth)))
        color = o3d.t.geometry.Image(
            core.Tensor(_resampled(images[view.name], width, height) / np.float32(255))
        )
        reach = float(depth.max()) * 1.01
        multiplier = truncation / voxel_size
        blocks = grid.compute_unique_block_coordinates(
            picture, intrinsic, extrinsic, depth_scale=1.0, depth_max=reach, trunc_voxel_multiplier=multiplier
        )
        grid.integrate(
            blocks, picture, color, intrinsic, intrinsic, extrinsic, 1.0, reach, multiplier
        )  # depth_scale, depth_max, trunc_voxel_multiplier
    return _extract(grid, min(min_views, len(views)))


def _resampled(image: np.ndarray, width: int, height: int) -> np.ndarray:
    rows = (np.arange(height) + 0.5) * image.shape[0] / height
    columns = (np.arange(width) + 0.5) * image.shape[1] / width
    return np.ascontiguousarray(image[rows.astype(int)][:, columns.astype(int)].astype(np.float32))


def _extract(grid: object, weight: float) -> Mesh:
    try:
        found = grid.extract_triangle_mesh(weight_threshold=weight)  # type: ignore[attr-defined]
    except RuntimeError:  # Open3D's answer to an empty surface
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    colors = np.clip(found.vertex.colors.numpy() * 255, 0, 255).astype(np.uint8)
    return Mesh(
        vertices=found.vertex.positions.numpy().astype(np.float64),
        faces=found.triangle.indices.numpy().astype(np.int64),
        normals=found.vertex.normals.numpy().astype(np.float64),
        colors=colors,
    )
