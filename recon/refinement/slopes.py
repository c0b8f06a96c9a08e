"""Slopes of log depth between neighbouring pixels, from their normals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64

from recon.geometry import rays
from recon.scene import Camera

if TYPE_CHECKING:
    from torch import Tensor

GRAZING = -0.08  # n . r above which a normal says nothing of the slope


@dataclass(frozen=True, eq=False)
class Slopes:
    """log z of the right (lower) neighbour minus log z, as normals say, float32; NaN where they do not."""

    along_u: "Tensor"
    """(h, w - 1)."""

    along_v: "Tensor"
    """(h - 1, w)."""

    facing: "Tensor"
    """-n . r (h, w), r with z = 1: an error of a normal becomes one of the slope times 1 / facing^2."""


def slopes_from_normals(
    camera: Camera, normals: Float32[np.ndarray, "h w 3"], device: str = "cpu", *, grazing: float = GRAZING
) -> Slopes:
    """Returns the slopes that join two tangent planes on the ray midway between their pixels.

    On the ray r_m = (r_a + r_b) / 2 the plane of pixel a has depth z_a (n_a . r_a) / (n_a . r_m), that of b
    likewise. Their equality gives log z_b - log z_a, exact for planes, also steep ones and any focal lengths.

    Args:
        camera: Of the normals' size.
        normals: Camera frame, toward the camera; (0, 0, 0) for none.
        device: Of torch.
        grazing: n . r above which a normal says nothing.
    """
    import torch

    directions = torch.from_numpy(rays(camera.K, camera.width, camera.height).astype(np.float32)).to(device)
    n = torch.from_numpy(np.ascontiguousarray(normals)).to(device)
    facing = -(n * directions).sum(-1)
    steps = (np.array([0.5, 0.0]), np.array([0.0, 0.5]))
    along = []
    for axis, step in zip((1, 0), steps, strict=True):
        half = torch.from_numpy(_half_step(camera, step)).to(device)
        change = (n * half).sum(-1)  # of n . r from the pixel to the ray midway to the next
        first, second = _pairs(facing, axis)
        after, before = _pairs(change, axis)
        ahead, behind = first - after, second + before
        known = torch.minimum(torch.minimum(first, second), torch.minimum(ahead, behind)) > -grazing
        ratio = torch.where(known, first * behind / (ahead * second), torch.ones_like(first))
        along.append(torch.where(known, torch.log(ratio), torch.full_like(ratio, torch.nan)))
    return Slopes(along[0], along[1], facing)


def _half_step(camera: Camera, step: Float64[np.ndarray, "2"]) -> Float32[np.ndarray, "3"]:
    """Returns how the ray of a pixel changes over half a pixel."""
    return (np.linalg.inv(camera.K)[:, :2] @ step).astype(np.float32)


def _pairs(values: "Tensor", axis: int) -> "tuple[Tensor, Tensor]":
    """Returns the values at both ends of every link along an axis."""
    count = values.shape[axis]
    return values.narrow(axis, 0, count - 1), values.narrow(axis, 1, count - 1)
