"""A prior and a measurement of the same view made one."""

import numpy as np

from recon.scene import DepthMap

GATE = 3.0  # standard deviations by which both may differ and still be averaged
VAGUE = (0.03, 0.1)  # range of the relative sigma from which a prior is no surface: a guess, or clipped
TIMES_TYPICAL = 3.0  # as vague as the rest of the prior is, within that range


def merge(prior: DepthMap, measured: DepthMap) -> DepthMap:
    """Returns the precision-weighted mean where both agree, else the measurement, else the prior.

    A prior that is three times as vague as is typical of it, or vaguer than 10 %, is none where nothing was
    measured: sky and blank backgrounds, of which a clipped prediction only says that they are far, would
    become walls, and guesses between sparse points would stand beside surfaces that are known.

    Args:
        prior: What was known.
        measured: Of the same size, checked against other views; depth 0 where nothing was measured.
    """
    known, seen = prior.depth > 0, measured.depth > 0
    apart = np.abs(prior.depth - measured.depth) > GATE * np.hypot(prior.sigma, measured.sigma)
    vague = prior.sigma > _vague_from(prior) * prior.depth
    of_prior = _precision(prior) * (known & ~(seen & apart) & (seen | ~vague))
    of_measured = _precision(measured) * seen
    total = of_prior + of_measured
    any_known = total > 0
    safe = np.where(any_known, total, 1)
    depth = (of_prior * prior.depth + of_measured * measured.depth) / safe
    return DepthMap(
        camera=prior.camera,
        depth=np.where(any_known, depth, 0).astype(np.float32),
        normals=np.where(prior.normals.any(axis=-1, keepdims=True), prior.normals, measured.normals),
        sigma=np.where(any_known, 1 / np.sqrt(safe), 0).astype(np.float32),
    )


def _vague_from(prior: DepthMap) -> float:
    """Returns the relative sigma from which a prior is no surface."""
    known = prior.depth > 0
    typical = np.median(prior.sigma[known] / prior.depth[known]) if known.any() else 0.0
    return float(np.clip(TIMES_TYPICAL * typical, *VAGUE))


def _precision(depth_map: DepthMap) -> np.ndarray:
    sigma = np.where(depth_map.depth > 0, depth_map.sigma, 1).astype(np.float64)
    return 1 / np.square(np.maximum(sigma, np.finfo(np.float32).tiny))
