"""Geometry of photo-to-mesh reconstruction: plain values and pure functions.

Conventions, everywhere in this project:

- Camera frame: OpenCV. x right, y down, z forward. World frame: as COLMAP gives it; no axis is up.
  Right-handed.
- Transforms: `target_from_source`, 4x4 float64, `points_cam = cam_from_world @ points_world`.
- Pixels: (u, v) = (column, row). The centre of the first pixel is (0.5, 0.5); array index = floor(u).
  Resizing a camera scales K and adds nothing.
- Depth: z in the camera frame, scene units, float32, 0 = none. Disparity = 1 / depth. Ray length is
  `distance`.
- Normals: unit, camera frame, on the camera's side of the surface; a wall that faces the camera has (0, 0,
  -1). (0, 0, 0) = none.
- Confidence: float32 in [0, 1]. Mask: bool, True = keep. Sigma: standard deviation of depth, scene units.
- TSDF: positive in front of the surface, in units of the truncation distance.
- Images: uint8 RGB (H, W, 3). Quaternions: w first, named `wxyz`. Angles in radians unless the name ends in
  `_deg`.
"""

from recon.errors import InputError, PipelineError, ReconError, ViewError
from recon.scene import (
    Camera,
    DepthMap,
    Lens,
    Mesh,
    Prediction,
    Scene,
    SparseCloud,
    SparseDepth,
    View,
)

__all__ = [
    "Camera",
    "DepthMap",
    "InputError",
    "Lens",
    "Mesh",
    "PipelineError",
    "Prediction",
    "ReconError",
    "Scene",
    "SparseCloud",
    "SparseDepth",
    "View",
    "ViewError",
]
