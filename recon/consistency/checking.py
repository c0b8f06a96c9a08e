"""A depth map checked against its neighbours'."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from recon.geometry import invert
from recon.scene import DepthMap, View

OBJECTIONS = 2  # neighbours that see through a pixel, from which it is dropped
ABSENCES = 3  # neighbours that look and have no depth, from which a pixel that none confirms is dropped
DOUBT = 2.0  # factor on sigma where a single neighbour sees through


@dataclass(frozen=True, eq=False)
class Agreement:
    """A depth map after its neighbours were heard."""

    depth_map: DepthMap
    """Without the pixels that others see through."""

    confirming: UInt8[np.ndarray, "h w"]
    """Neighbours that see the pixel's surface where the pixel says."""

    contradicting: UInt8[np.ndarray, "h w"]
    """Neighbours that see through it."""

    missing: UInt8[np.ndarray, "h w"]
    """Neighbours that look at it and have no depth there."""

    @property
    def dropped_share(self) -> float:
        """Share of the pixels with depth that were dropped."""
        judged = (self.depth_map.depth > 0) | (self.contradicting >= OBJECTIONS) | (self.missing >= ABSENCES)
        gone = judged & (self.depth_map.depth == 0)
        return float(gone.sum() / max(judged.sum(), 1))


def check(view: View, depth_map: DepthMap, neighbours: Sequence[tuple[View, DepthMap]]) -> Agreement:
    """Returns a depth map checked against its neighbours'.

    Dropped is what two and more see through, if they are more than those that confirm it, and what none
    confirms where three and more look and have no depth: what a single view says of the sky, or of a
    backdrop.

    Args:
        view: Of the depth map.
        depth_map: Any size.
        neighbours: Other views with theirs; their order does not matter.
    """
    from recon.consistency.votes import count_votes
    from recon.jit import run_pieces

    shape = depth_map.depth.shape
    confirming, contradicting, missing = (np.zeros(shape, np.uint8) for _ in range(3))
    relative = _relative_sigma(depth_map)
    rays_from_pixel = np.linalg.inv(depth_map.camera.K)
    for other, other_map in neighbours:
        other_from_view = other.cam_from_world @ invert(view.cam_from_world)
        matrix = other_map.camera.K @ other_from_view[:3, :3] @ rays_from_pixel
        offset = other_map.camera.K @ other_from_view[:3, 3]
        run_pieces(
            count_votes,
            shape[0],
            None,
            (depth_map.depth, relative),
            (other_map.depth, _relative_sigma(other_map)),
            (matrix, offset),
            (confirming, contradicting, missing),
        )
    contested = contradicting > confirming
    dropped = contested & (contradicting >= OBJECTIONS)
    dropped |= (confirming == 0) & (missing >= ABSENCES)
    doubted = contested & ~dropped
    sigma = np.where(doubted, np.float32(DOUBT), np.float32(1)) * depth_map.sigma
    kept = DepthMap(
        camera=depth_map.camera,
        depth=np.where(dropped, np.float32(0), depth_map.depth),
        normals=np.where(dropped[..., None], np.float32(0), depth_map.normals),
        sigma=np.where(dropped, np.float32(0), sigma),
    )
    return Agreement(kept, confirming, contradicting, missing)


def _relative_sigma(depth_map: DepthMap) -> Float32[np.ndarray, "h w"]:
    known = depth_map.depth > 0
    return np.where(known, depth_map.sigma / np.where(known, depth_map.depth, 1), 1).astype(np.float32)
