"""What a volume remembers of the views in it: enough to take them away, and to trust repeated ones less."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, UInt8

from recon.fusion.exposure import exposure_gains, sampling_step
from recon.fusion.view import center_of, frame_of
from recon.scene import DepthMap

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

# Errors of depth maps taken from nearly the same place are alike, so that a camera that stands still must not
# outvote others: of such views this many count fully, and their sum grows with the logarithm from then on.
FULL_VIEWS = 8.0
SAME_PLACE = 0.1  # of the depth: an angle of 6 degrees between the rays to a point
SAME_GAZE = np.cos(np.radians(30.0))
COLUMNS = 21


@dataclass(frozen=True, eq=False)
class SeenView:
    """How a view was integrated."""

    cam_from_world: Float64[np.ndarray, "4 4"]
    depth: float
    """Median, scene units; 0 where there is none."""

    trust: float
    gains: Float64[np.ndarray, "3"]

    def as_row(self) -> Float64[np.ndarray, "21"]:
        """Returns all of it as numbers."""
        return np.concatenate([self.cam_from_world.ravel(), [self.depth, self.trust], self.gains])

    @classmethod
    def from_row(cls, row: Float64[np.ndarray, "21"]) -> "SeenView":
        """Returns what `as_row` was called on."""
        return cls(row[:16].reshape(4, 4).copy(), float(row[16]), float(row[17]), row[18:21].copy())


def same_pose(view: SeenView, cam_from_world: Float64[np.ndarray, "4 4"]) -> bool:
    """Returns whether a view has this pose, to rounding."""
    return bool(np.allclose(view.cam_from_world, cam_from_world, rtol=1e-9, atol=1e-9))


def look_back(
    volume: "TSDFVolume",
    depth_map: DepthMap,
    cam_from_world: Float64[np.ndarray, "4 4"],
    color: UInt8[np.ndarray, "h w 3"] | None,
) -> SeenView:
    """Returns how a view is to be integrated, from those before it.

    Its trust is min(1, 8 / (1 + n)), n the number of earlier views from nearly the same place and direction.
    """
    step = sampling_step(depth_map)
    depths = depth_map.depth[::step, ::step]
    depths = depths[depths > 0]
    depth = float(np.median(depths)) if len(depths) else 0.0
    gains = np.ones(3)
    if color is not None and len(volume.index):
        frame, block = frame_of(depth_map, cam_from_world, volume)
        gains = exposure_gains(volume, depth_map, color, frame, block)
    return SeenView(cam_from_world.copy(), depth, _trust(volume.views, cam_from_world, depth), gains)


def _trust(views: list[SeenView], cam_from_world: Float64[np.ndarray, "4 4"], depth: float) -> float:
    if not views or depth == 0:
        return 1.0
    poses = np.stack([view.cam_from_world for view in views])
    centers = -np.einsum("nij,ni->nj", poses[:, :3, :3], poses[:, :3, 3])
    apart = np.linalg.norm(centers - center_of(cam_from_world), axis=1) / (SAME_PLACE * depth)
    alike = poses[:, 2, :3] @ cam_from_world[2, :3] > SAME_GAZE
    return float(min(1.0, FULL_VIEWS / (1 + np.exp(-0.5 * apart[alike] ** 2).sum())))
