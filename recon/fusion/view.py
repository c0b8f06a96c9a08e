"""What the kernels need to know of a view's camera, in the frame of the view: grid axes, units of voxels."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int64

from recon.fusion.blocks import SIDE
from recon.fusion.integration import VOTES, VOXELS
from recon.fusion.observations import Frame
from recon.scene import DepthMap

if TYPE_CHECKING:
    from recon.fusion.volume import TSDFVolume

BALL = SIDE * np.sqrt(3.0) / 2  # half the diagonal of a block, voxels


@dataclass(frozen=True, eq=False)
class Projection:
    """From the frame of the view to pixels."""

    camera: tuple[Float64[np.ndarray, "3 4"], np.float32, np.float32]
    """To (u z, v z, z), px and voxels; width and height, px."""

    voxels: Float32[np.ndarray, "3 512"]
    """Steps of (u z, v z, z) from a block's corner to its voxels."""

    votes: Float32[np.ndarray, "3 64"]
    """The same to its cells of votes."""


def center_of(cam_from_world: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "3"]:
    """Returns where a camera is, world frame; only of rigid transforms, and faster than `geometry.invert`."""
    return -(cam_from_world[:3, 3] @ cam_from_world[:3, :3])


def frame_of(
    depth_map: DepthMap, cam_from_world: Float64[np.ndarray, "4 4"], volume: "TSDFVolume"
) -> tuple[Frame, Int64[np.ndarray, "3"]]:
    """Returns the frame of a view and the block at its origin, the one of the camera, as the index counts."""
    assert volume.origin is not None
    center = center_of(cam_from_world) / volume.voxel_size
    block = np.floor(center / SIDE).astype(np.int64)
    frame = Frame(
        K=depth_map.camera.K,
        rotation=np.ascontiguousarray(cam_from_world[:3, :3]),
        center=center - SIDE * block,
        voxel_size=volume.voxel_size,
        truncation=volume.truncation,
    )
    return frame, block - volume.origin


def projection_of(frame: Frame, width: int, height: int) -> Projection:
    """Returns how the frame of a view projects into its picture."""
    linear = frame.K @ frame.rotation
    matrix = np.concatenate([linear, -(linear @ frame.center)[:, None]], axis=1)
    return Projection(
        camera=(matrix, np.float32(width), np.float32(height)),
        voxels=(linear @ VOXELS).astype(np.float32),
        votes=(linear @ VOTES).astype(np.float32),
    )


def visible_space(projection: Projection, farthest: float) -> Float64[np.ndarray, "6 4"]:
    """Returns half spaces a x + b y + c z + d >= 0 that hold the corners of all blocks with space seen free.

    Args:
        projection: Of the view.
        farthest: Largest depth, voxels.
    """
    matrix, width, height = projection.camera
    planes = np.stack(
        [
            matrix[0],
            width * matrix[2] - matrix[0],
            matrix[1],
            height * matrix[2] - matrix[1],
            matrix[2],
            np.array([0, 0, 0, farthest]) - matrix[2],
        ]
    )
    planes = planes / np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes[:, 3] += planes[:, :3].sum(axis=1) * (SIDE / 2) + BALL  # from the corner to the centre
    return planes
