"""How good a result is: meshes against a reference, maps against the truth.

`surfaces` scores meshes, `registration` moves one onto the other first, `maps` scores depth, normals and
sigma. All functions are pure and draw from seeds.
"""

from recon.evaluation.maps import (
    CalibrationScore,
    DepthScore,
    NormalScore,
    align_depth,
    align_disparity,
    calibration_metrics,
    depth_metrics,
    normal_angles,
    normal_metrics,
)
from recon.evaluation.registration import icp
from recon.evaluation.surfaces import (
    MeshScore,
    describe,
    error_colors,
    evaluate_mesh,
    vertex_distances,
    visible_points,
)

__all__ = [
    "CalibrationScore",
    "DepthScore",
    "MeshScore",
    "NormalScore",
    "align_depth",
    "align_disparity",
    "calibration_metrics",
    "depth_metrics",
    "describe",
    "error_colors",
    "evaluate_mesh",
    "icp",
    "normal_angles",
    "normal_metrics",
    "vertex_distances",
    "visible_points",
]
