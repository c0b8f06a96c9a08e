"""Depth from normals alone, up to its scale: the energy of `integration.py` without a prior.

As in bilateral normal integration (Cao et al. 2022), a smooth solution comes first, then the better side of
each pixel is chosen anew in every round.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32

from recon.errors import InputError
from recon.refinement.integration import Energy, descend
from recon.refinement.slopes import slopes_from_normals
from recon.scene import Camera

JUMP_PX = 0.35  # residual of a link, in pixels of depth, from which it is rather a jump than a slope
CUT = 1.0  # of log depth; links are chosen between, not cut, as there is no depth to hang on
GRAZING = -0.01  # n . r above which a normal says nothing; depth has no other source here
PULL = 3e-8  # of a pixel's weight, to the start: it fixes the scale that normals leave open
FIRST_ITERATIONS = 40  # without jumps, so that the start decides nothing
ROUNDS, ITERATIONS = 30, 5
LEAST_GAIN = 1e-3  # share of the energy that another round must win


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
    along, weights = [], []
    for axis, slope in ((1, slopes.along_u), (0, slopes.along_v)):
        links = slope.shape[axis]
        told = slope.isfinite() & known.narrow(axis, 0, links) & known.narrow(axis, 1, links)
        facing = slopes.facing.narrow(axis, 1, links) * slopes.facing.narrow(axis, 0, links)
        along.append(torch.where(told, slope, 0))
        weights.append(torch.where(told, facing, 0))
    focal = float(np.sqrt(camera.K[0, 0] * camera.K[1, 1]))
    start = torch.zeros(size, device=device)
    energy = Energy(
        start=start,
        pull=torch.where(known, PULL, 1.0),
        along_u=along[0],
        along_v=along[1],
        weight_u=weights[0],
        weight_v=weights[1],
        jump=JUMP_PX / focal,
        amid=start,
        cut=CUT,
    )
    smooth, _, _ = descend(replace(energy, jump=CUT), 1, iterations=FIRST_ITERATIONS)
    log_depth, _, _ = descend(energy, ROUNDS, smooth, iterations=ITERATIONS, least_gain=LEAST_GAIN)
    found = log_depth.cpu().numpy()
    parts, count = label(inside)
    depth = np.zeros(size, np.float32)
    for part in range(1, count + 1):
        here = parts == part
        depth[here] = np.exp(found[here] - np.median(found[here]))
    return depth
