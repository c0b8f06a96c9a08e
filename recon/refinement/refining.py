"""A depth map refined by its normals and by sparse points, with its standard deviation."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from recon.geometry import normals_from_depth
from recon.refinement.balance import MIN_FACING, TURN, Balance, balance
from recon.refinement.integration import Energy, descend
from recon.refinement.multigrid import Multigrid, solve
from recon.refinement.slopes import Slopes, slopes_from_normals
from recon.scene import DepthMap, SparseDepth

if TYPE_CHECKING:
    from torch import Tensor

MIN_SIDE = 3  # pixels; smaller maps have no slopes to speak of
JUMP = 4.0  # times the step noise is no noise
CUT = 10.0  # residuals beyond this many jumps are cut
MIN_JUMP = 0.006  # of log depth over one pixel
BLURRED_PULL = 3e-5  # of a link's weight: pull that depth keeps amid a jump
LEAST_PULL = 1e-6  # of any pixel: less is lost in rounding where cuts leave a few pixels alone
MAX_CHANGE = 3.0  # of log depth: a pixel that moves farther had nothing to hold it, and stays
UNKNOWN_PULL = 1e-3  # of a pixel without depth, to what its surroundings say
PRIOR_SLOPE_WEIGHT = 0.1  # of the depth's own slope where no normal is known
CLEAR_NORMAL = np.radians(2.0)  # standard deviation of a normal that counts fully
LEAST_CLEAR = 0.01  # share that the vaguest counts
ANCHOR_WIDTH = 3.0  # standard deviations, beyond which an anchor is wrong
WORSE = 1.05  # factor on the anchors' median error that shows the normals to be wrong
MIN_ANCHORS = 10  # that may object
SUREST = 2  # percent of the pixels; their sigma is noise, if it is not far from what normals show
NOISE_ERROR = 1.5  # factor by which it may be more than that
LEAST_COMMON = 0.1  # of noise: the error that even the surest pixels share with those around
SIGMA_ITERATIONS = 5  # of the solves for sigma
JUMP_SIGMA = 0.25  # of a jump's size: a pixel amid it may end on the wrong side
AGREEING_DEG = 20.0  # refined depth and normal within this angle make one normal


@dataclass(frozen=True, eq=False)
class Refinement:
    """A refined depth map and how it came about."""

    depth_map: DepthMap
    """The given one where `is_used` is False."""

    is_used: bool
    """False where sparse points fit the refined depth clearly worse: then the normals are wrong."""

    smoothing_px: float
    """Length over which the normals overrule the depth."""

    error_before: float
    """Median |log z - log z_k| at the sparse points; NaN where there are too few."""

    error_after: float
    """The same after refinement by the normals alone."""

    energies: tuple[float, ...]
    """After every round; they never rise."""


def refine(
    depth_map: DepthMap,
    anchors: SparseDepth | None = None,
    *,
    normal_sigma: Float32[np.ndarray, "h w"] | None = None,
    noise: float | None = None,
    device: str = "cpu",
) -> Refinement:
    """Returns depth whose slopes agree with the normals, cut where neither side of a pixel does.

    Depth of low sigma pulls, depth of high sigma follows: what is known of a surface spreads along its
    normals into what is not (clipped, blurred by an edge). Pixels without depth stay without. The sparse
    points that are surer than depth judge the result of the normals first, and all pull only then; those far
    off are ignored.

    Args:
        depth_map: Aligned; its normals are a prediction of their own, not made from its depth.
        anchors: Sparse points, pixels of the map's camera.
        normal_sigma: Standard deviation of the normals' angle, radians, as far as it is known; those beyond
            2 degrees count less.
        noise: The part of sigma that may be noise from pixel to pixel, relative to depth, as far as normals
            show it; None takes the surest pixels' sigma for it.
        device: Of torch.
    """
    import torch

    height, width = depth_map.depth.shape
    known = depth_map.depth > 0
    if min(height, width) < MIN_SIDE or not known.any() or not depth_map.normals.any():
        return unrefined(depth_map)
    slopes = slopes_from_normals(depth_map.camera, depth_map.normals, device)
    log_depth = _log_depth(depth_map, device)
    trust = balance(log_depth, slopes)
    energy = _energy(depth_map, log_depth, slopes, trust)
    if normal_sigma is not None:
        energy = _weighed(energy, normal_sigma)
    refined, energies, multigrid = descend(energy)
    start, after = energy.start.cpu().numpy(), refined.cpu().numpy()
    errors_before, errors_after, surer = _errors(anchors, start, after, depth_map)
    before_error, after_error = (_median(errors) for errors in (errors_before, errors_after))
    if _object(errors_before[surer], errors_after[surer]):
        return Refinement(depth_map, False, trust.smoothing, before_error, after_error, tuple(energies))
    if anchors is not None and len(anchors):
        energy = _anchored(energy, anchors, after, depth_map, trust)
        refined, _, multigrid = descend(energy, rounds=1, start=refined)
    facing = slopes.facing.clamp(MIN_FACING, 1).square().cpu().numpy()
    sigma = _sigma(_common(depth_map, trust, noise), energy, multigrid, trust, facing)
    refined = torch.where((refined - energy.start).abs() < MAX_CHANGE, refined, energy.start)
    return Refinement(
        _updated(depth_map, refined.cpu().numpy(), sigma),
        is_used=True,
        smoothing_px=trust.smoothing,
        error_before=before_error,
        error_after=after_error,
        energies=tuple(energies),
    )


def unrefined(depth_map: DepthMap) -> Refinement:
    """Returns a depth map as it is."""
    return Refinement(depth_map, False, 0.0, float("nan"), float("nan"), ())


def _log_depth(depth_map: DepthMap, device: str) -> "Tensor":
    import torch

    depth = np.where(depth_map.depth > 0, depth_map.depth, np.float32(np.nan))
    return torch.from_numpy(np.log(depth)).to(device)


def _energy(depth_map: DepthMap, log_depth: "Tensor", slopes: Slopes, trust: Balance) -> Energy:
    import torch

    known = log_depth.isfinite()
    start = torch.where(known, log_depth, log_depth[known].median())
    jump = max(JUMP * trust.step_noise, MIN_JUMP)
    facing = slopes.facing.clamp(MIN_FACING, 1)
    along, weights = [], []
    amid = torch.zeros_like(start)  # largest disagreement of depth and normals at a pixel
    for axis, slope in ((1, slopes.along_u), (0, slopes.along_v)):
        count = slope.shape[axis]
        own = start.narrow(axis, 1, count) - start.narrow(axis, 0, count)
        both = known.narrow(axis, 1, count) & known.narrow(axis, 0, count)
        told = slope.isfinite()
        step = torch.where(told, slope, torch.where(both, own, torch.zeros_like(own)))
        both_facing = (facing.narrow(axis, 1, count) * facing.narrow(axis, 0, count)).square()
        weight = trust.smoothing**2 * both_facing * torch.where(told, 1.0, PRIOR_SLOPE_WEIGHT)
        weights.append(torch.where(both, weight, weight * UNKNOWN_PULL))
        along.append(step)
        off = torch.where(both, (own - step).abs(), torch.zeros_like(own))
        for first in (0, 1):
            torch.maximum(amid.narrow(axis, first, count), off, out=amid.narrow(axis, first, count))
    amid = torch.nn.functional.max_pool2d(amid[None], 3, 1, 1)[0]
    clear = (1 + (amid / jump) ** 2) ** -2
    pull = _relative_precision(depth_map).to(start.device) * clear.clamp(
        min=BLURRED_PULL * trust.smoothing**2
    )
    return Energy(
        start=start,
        pull=torch.where(known, pull.clamp(min=LEAST_PULL), UNKNOWN_PULL),
        along_u=along[0],
        along_v=along[1],
        weight_u=weights[0],
        weight_v=weights[1],
        jump=jump,
        amid=amid,
        cut=CUT * jump,
    )


def _relative_precision(depth_map: DepthMap) -> "Tensor":
    """Returns (typical sigma / sigma)^2 of log depth, at most 1; 1 where there is no depth."""
    import torch

    known = depth_map.depth > 0
    sigma = np.where(known, depth_map.sigma / np.where(known, depth_map.depth, 1), np.inf)
    typical = np.median(sigma[known])
    precision = np.where(known, np.minimum((typical / sigma) ** 2, 1), 1)
    return torch.from_numpy(precision.astype(np.float32))


def _at(anchors: SparseDepth, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows, columns and indices of the anchors inside the picture."""
    column, row = np.floor(anchors.uv).astype(np.int64).T
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return row[inside], column[inside], np.flatnonzero(inside)


def _weighed(energy: Energy, normal_sigma: Float32[np.ndarray, "h w"]) -> Energy:
    """Returns the energy with less weight on slopes between pixels of which one's normal is vague."""
    import torch

    relative = np.square(CLEAR_NORMAL / np.maximum(normal_sigma, CLEAR_NORMAL))
    relative = np.where(np.isfinite(normal_sigma), np.maximum(relative, LEAST_CLEAR), 1)
    known = torch.from_numpy(relative.astype(np.float32)).to(energy.start.device)
    return replace(
        energy,
        weight_u=energy.weight_u * torch.minimum(known[:, 1:], known[:, :-1]),
        weight_v=energy.weight_v * torch.minimum(known[1:], known[:-1]),
    )


def _errors(
    anchors: SparseDepth | None,
    before: Float32[np.ndarray, "h w"],
    after: Float32[np.ndarray, "h w"],
    depth_map: DepthMap,
) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Returns |log z - log z_k| before and after at the anchors on known depth, and which are surer than it.

    Where depth was measured in the photos it is surer than they are, and its noise is partly theirs.
    """
    if anchors is None:
        return np.zeros(0), np.zeros(0), np.zeros(0, bool)
    row, column, index = _at(anchors, before.shape)
    depth = depth_map.depth[row, column]
    row, column, index, depth = (each[depth > 0] for each in (row, column, index, depth))
    target = np.log(anchors.depth[index])
    surer = anchors.sigma[index] / anchors.depth[index] < depth_map.sigma[row, column] / depth
    return np.abs(target - before[row, column]), np.abs(target - after[row, column]), surer


def _median(errors: Float64[np.ndarray, "n"]) -> float:
    return float(np.median(errors)) if len(errors) >= MIN_ANCHORS else float("nan")


def _object(before: Float64[np.ndarray, "n"], after: Float64[np.ndarray, "n"]) -> bool:
    """Returns whether anchors' errors are clearly larger afterwards, and those of more than chance has it."""
    chance = len(before) / 2 + np.sqrt(len(before))  # two deviations above one half
    return bool(_median(after) > WORSE * _median(before) and (after > before).sum() > chance)


def _anchored(
    energy: Energy,
    anchors: SparseDepth,
    refined: Float32[np.ndarray, "h w"],
    depth_map: DepthMap,
    trust: Balance,
) -> Energy:
    """Returns the energy with the sparse points' pull, each as precise as it says and as a pixel's depth."""
    import torch

    row, column, index = _at(anchors, refined.shape)
    target = np.log(anchors.depth[index])
    relative = anchors.sigma[index] / anchors.depth[index]
    variance = relative**2 + trust.depth_noise**2
    depth = depth_map.depth[row, column]
    spread = np.hypot(depth_map.sigma[row, column] / np.where(depth > 0, depth, 1), relative)
    off = (target - refined[row, column]) / np.maximum(spread, trust.depth_noise)
    robust = np.where(depth > 0, (1 + (off / ANCHOR_WIDTH) ** 2) ** -2, 0)
    robust *= np.abs(off) < ANCHOR_WIDTH
    clear = (energy.amid.cpu().numpy()[row, column] < energy.jump).astype(np.float64)
    pull = robust * clear * trust.depth_noise**2 * trust.correlated / variance
    total, moment = np.zeros(refined.shape), np.zeros(refined.shape)
    np.add.at(total, (row, column), pull)
    np.add.at(moment, (row, column), pull * target)
    own = energy.pull.double()
    new_pull = own + torch.from_numpy(total).to(own.device)
    start = (own * energy.start.double() + torch.from_numpy(moment).to(own.device)) / new_pull
    return replace(energy, start=start.float(), pull=new_pull.float())


def _common(depth_map: DepthMap, trust: Balance, noise: float | None) -> Float32[np.ndarray, "h w"]:
    """Returns the part of relative sigma that depth has in common with its surroundings."""
    known = depth_map.depth > 0
    relative = np.where(known, depth_map.sigma / np.where(known, depth_map.depth, 1), 0)
    noise = np.percentile(relative[known], SUREST) if noise is None else noise
    noise = min(noise, NOISE_ERROR * trust.depth_noise)  # an error wider than that is no noise to normals
    return np.sqrt(np.maximum(relative**2 - noise**2, 0) + (LEAST_COMMON * noise) ** 2).astype(np.float32)


def _sigma(
    common: Float32[np.ndarray, "h w"],
    energy: Energy,
    multigrid: Multigrid,
    trust: Balance,
    facing: Float32[np.ndarray, "h w"],
) -> Float[np.ndarray, "h w"]:
    """Returns the standard deviation of refined log depth.

    Each pixel is a mean of others' depth, with weights (row of A^-1) * pi. What depth has in common with
    its surroundings, sigma^2 beyond pixel noise, stays: its mean under these weights. Pixel noise falls by
    the area of the mean. Normals add their lasting error times the distance to what they lean on, whose
    square is smoothing^2 * A^-1 1, times facing^4 as the weights of the slopes: less where that distance is
    short beside the length of such errors.

    Args:
        common: As of `_common`.
        energy: Of the refinement.
        multigrid: Of its last round.
        trust: Noise of depth and errors of slopes.
        facing: As in `Slopes`, squared.
    """
    import torch

    pull = energy.pull
    shared, _ = solve(
        multigrid,
        pull * torch.from_numpy(common).to(pull.device),
        torch.from_numpy(common).to(pull.device),
        most=SIGMA_ITERATIONS,
    )
    lever, _ = solve(multigrid, torch.ones_like(pull), 1 / pull.clamp(min=0.01), most=SIGMA_ITERATIONS)
    of_depth = shared.clamp(min=0).cpu().numpy()
    distance = trust.smoothing * facing * np.sqrt(lever.clamp(min=0).cpu().numpy())
    area = np.maximum(4 * np.pi * distance**2 / trust.correlated, 1)
    turn = TURN * max(common.shape) / (2 * np.pi)
    of_normals = trust.slope_error / facing * distance * np.minimum(distance / turn, 1)
    amid = energy.amid.cpu().numpy()
    of_jumps = JUMP_SIGMA * np.where(amid > energy.jump, amid, 0)
    return np.sqrt(of_depth**2 + trust.depth_noise**2 / area + of_normals**2 + of_jumps**2)


def _updated(
    depth_map: DepthMap, log_depth: Float32[np.ndarray, "h w"], sigma: Float[np.ndarray, "h w"]
) -> DepthMap:
    """Returns the refined map, with normals of the refined depth where they are near the predicted ones."""
    known = depth_map.depth > 0
    depth = np.where(known, np.exp(log_depth), 0).astype(np.float32)
    own = normals_from_depth(depth_map.camera.K, depth)
    near = np.einsum("hwc,hwc->hw", own, depth_map.normals) > np.cos(np.radians(AGREEING_DEG))
    normals = np.where((near | ~depth_map.normals.any(axis=-1))[..., None], own, depth_map.normals)
    return DepthMap(
        camera=depth_map.camera,
        depth=depth,
        normals=np.where(known[..., None], normals, 0).astype(np.float32),
        sigma=np.where(known, depth * np.maximum(sigma, 1e-6), 0).astype(np.float32),
    )
