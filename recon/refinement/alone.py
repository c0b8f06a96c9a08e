"""Depth from normals alone, up to its scale, by bilateral normal integration (Cao et al. 2022).

With l = log z, N = -n . r, f the focal length in pixels and a, b the links of a pixel to both sides along an
axis, every round lowers

    sum_p N_p^2 (s_p e_a^2 + (1 - s_p) e_b^2) along u, and the same along v,
    s_p = sigmoid(k f^2 N_p^2 (d_b^2 - d_a^2))

with d the difference of l over a link and e = d - g its residual, the weights s held: their bilaterally
weighted functional. f N |d| is the normal's part along the axis, at most 1 where a surface goes on, however
steep, and more at a jump. Steps are compared, not residuals: an outline bends away from the camera before it
ends, so that a jump there adds to the slope. Beyond the mask there is no step: a pixel that has one link only
keeps it where it is flat.

Two things differ. g is that of two normals (`slopes.py`), which at steep outlines is right where that of one
is not. And k grows (graduated non-convexity): parts drift as far apart as the soft choice lets them before it
becomes a hard one; a hard one from the start freezes them where the first smooth solution left them. What no
k undoes is a tear that opens slowly between normals that hardly differ: the smooth solution spreads it.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32

from recon.errors import InputError
from recon.refinement.integration import MIN_LINK, weighted_step
from recon.refinement.slopes import slopes_from_normals
from recon.scene import Camera

if TYPE_CHECKING:
    from torch import Tensor

GRAZING = -0.01  # n . r above which a normal says nothing; depth has no other source here
PULL = 1e-5  # of a pixel's weight, to where it is: it holds the scale that normals leave open
SHARPNESS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # k; f N d has no unit
ROUNDS = 8  # at most, of each k
ITERATIONS = 4  # of conjugate gradients per round
STILL_PX = 0.1  # mean move in depth below which the next k follows


def integrate(
    camera: Camera,
    normals: Float32[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
    *,
    device: str = "cpu",
) -> Float32[np.ndarray, "h w"]:
    """Returns the depth whose slopes are those of the normals, cut at jumps; its median is 1.

    Every connected part of the mask has a scale of its own that normals do not tell: its median is 1.

    Args:
        camera: Of the normals' size.
        normals: Camera frame, toward the camera; (0, 0, 0) for none.
        mask: Where depth is wanted; everywhere with a normal if not given.
        device: Of torch.

    Raises:
        InputError: The sizes differ, or no pixel of the mask has a normal.
    """
    import torch
    from scipy.ndimage import label

    size = (camera.height, camera.width)
    if normals.shape != (*size, 3) or (mask is not None and mask.shape != size):
        raise InputError(f"integrate: normals of {normals.shape[:2]}, camera of {size}")
    inside = normals.any(axis=-1) if mask is None else mask & normals.any(axis=-1)
    if not inside.any():
        raise InputError("integrate: no pixel of the mask has a normal")
    slopes = slopes_from_normals(camera, normals, device, grazing=GRAZING)
    known = torch.from_numpy(inside).to(device)
    along, links = [], []
    for axis, slope in ((1, slopes.along_u), (0, slopes.along_v)):
        count = slope.shape[axis]
        told = slope.isfinite() & known.narrow(axis, 0, count) & known.narrow(axis, 1, count)
        along.append(torch.where(told, slope, 0))
        links.append(told.float())
    focals = [float(camera.K[0, 0]), float(camera.K[1, 1])]
    facing = slopes.facing.clamp(min=-GRAZING)
    log_depth = _descended(along, links, facing, known, focals)
    found = log_depth.cpu().numpy()
    parts, count = label(inside)
    depth = np.zeros(size, np.float32)
    for part in range(1, count + 1):
        here = parts == part
        depth[here] = np.exp(found[here] - np.median(found[here]))
    return depth


def _descended(
    along: "list[Tensor]", links: "list[Tensor]", facing: "Tensor", known: "Tensor", focals: list[float]
) -> "Tensor":
    """Returns log depth after the rounds of every k, from a plane.

    Args:
        along: g along u, v.
        links: 1 where there is one, 0 where not; along u, v.
        facing: N.
        known: Pixels that have a depth (h, w).
        focals: Along u, v, pixels.
    """
    import torch

    mean = float(np.sqrt(focals[0] * focals[1]))
    shares = [focal / mean * facing for focal in focals]
    pull = torch.where(known, PULL, 1.0)
    log_depth = torch.zeros_like(facing)
    for sharpness in SHARPNESS:
        for _ in range(ROUNDS):
            weights, residuals = [], []
            for axis, slope, link, share in zip((1, 0), along, links, shares, strict=True):
                step = log_depth.diff(dim=axis) * link
                weights.append(_weights(step, link, share, sharpness * mean**2, axis))
                residuals.append(step - slope)
            moved, _ = weighted_step(pull, torch.zeros_like(pull), weights, residuals, iterations=ITERATIONS)
            log_depth = log_depth + moved
            if float(moved[known].abs().mean()) * mean < STILL_PX:
                break
    return log_depth


def _weights(step: "Tensor", link: "Tensor", facing: "Tensor", sharpness: float, axis: int) -> "Tensor":
    """Returns the weight of every link along an axis: what both its pixels give it.

    Args:
        step: d, 0 where there is no link.
        link: 1 where there is one, 0 where not.
        facing: N, times the axis's focal length over the mean one.
        sharpness: k f^2.
        axis: Of the links.
    """
    import torch

    squared, own = step.square(), facing.square()
    beyond = torch.zeros_like(own.narrow(axis, 0, 1))
    before, after = torch.cat([beyond, squared], axis), torch.cat([squared, beyond], axis)
    ahead = torch.sigmoid(sharpness * own * (before - after))
    count = step.shape[axis]
    given = (own * ahead).narrow(axis, 0, count) + (own * (1 - ahead)).narrow(axis, 1, count)
    return (given + MIN_LINK) * link
