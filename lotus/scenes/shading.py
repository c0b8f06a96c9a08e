"""The picture as light: primary rays, then light from lamps with a shadow ray each, and light from around.

Depth is exact: a primary ray is o + t d with d = (x, y, 1) in the camera frame, so t is the planar depth.
Light is sampled with a pattern that repeats every 4 pixels and is smoothed over 5 x 5 pixels of the same
surface (interleaved sampling, Keller and Heidrich 2001), apart from colour.
"""

import math
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lotus.scenes.description import SceneDescription
from lotus.scenes.light import FAR
from lotus.scenes.pixels import direction, is_edge, smooth_pixel, soften_pixel, trace_pixel
from lotus.scenes.tracing import build_world, nearest
from recon.jit import compiled, inlined

PROBE_SIZE = 20  # px
SEED_BITS = 0xFFFFFF  # of a scene's seed go into the pattern of the light's samples

_trace_pixel = inlined(trace_pixel)  # the many arguments of a call take as long as 5 % of the pixel
_smooth_pixel = inlined(smooth_pixel)


def radiance(
    scene: SceneDescription, K: Float64[np.ndarray, "3 3"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Returns the light that reaches the camera (linear RGB), depth and normals."""
    rotation, position = rays_of(scene)
    view = (K, rotation, position, scene.seed & SEED_BITS)
    world = build_world(scene.solids, scene.count, position)
    return traced((world, scene.lights, scene.air, view), (height, width))


def traced(
    scene: tuple[Any, ...], shape: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Returns light, depth and normals of a scene as in `pixels`; the shape is (height, width)."""
    air = scene[2]
    depth, index = np.zeros(shape, np.float32), np.full(shape, -1)
    normals, albedo, extra = np.zeros((3, *shape, 3), np.float32)
    light = np.zeros((*shape, 6), np.float32)
    _trace(scene, (depth, index, normals, albedo, light, extra))
    light = _smoothed((index, normals, light))
    extra += light[..., 3:]
    colours = albedo * light[..., :3] + extra
    _soften(scene, (index, normals, light, extra), colours)
    if air[9] > 0.0:
        kept = np.where(depth > 0, np.exp(-air[9] * depth), 1.0)[..., None].astype(np.float32)
        colours = colours * kept + air[3:6].astype(np.float32) * (1.0 - kept)
    return colours, depth, normals


def probe(scene: SceneDescription) -> tuple[Float64[np.ndarray, "n n"], Int64[np.ndarray, "n n"]]:
    """Returns depth and index of the solid (-1 sky) on a coarse square grid over the view."""
    rotation, position = rays_of(scene)
    world = build_world(scene.solids, scene.count, position)
    return _probed(world, rotation, position, math.tan(0.5 * scene.fov))


def rays_of(scene: SceneDescription) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Returns the rotation of cam_from_world and the camera's place."""
    rotation = np.ascontiguousarray(scene.cam_from_world[:3, :3])
    return rotation, -rotation.T @ scene.cam_from_world[:3, 3]


@compiled
@no_type_check
def _probed(world: Any, rotation: Any, position: Any, spread: Any) -> Any:
    depth, index = np.zeros((PROBE_SIZE, PROBE_SIZE)), np.full((PROBE_SIZE, PROBE_SIZE), -1)
    o = (position[0], position[1], position[2])
    for row in range(PROBE_SIZE):
        for column in range(PROBE_SIZE):
            x, y = 2 * column / (PROBE_SIZE - 1.0) - 1, 2 * row / (PROBE_SIZE - 1.0) - 1
            d = direction(rotation, spread * x, spread * y)
            depth[row, column], index[row, column] = nearest(world, o, d, FAR, np.int64(-1))
    return depth, index


@compiled
@no_type_check
def _trace(scene: Any, layers: Any) -> None:
    """Fills the layers: depth, index, normals, albedo, light, extra."""
    blockers = np.full(len(scene[1]), -1)
    i = np.int64(-1)
    for row in range(layers[0].shape[0]):
        for column in range(layers[0].shape[1]):
            i = _trace_pixel(scene, layers, (row, column), i, blockers)


@compiled
@no_type_check
def _smoothed(layers: Any) -> Any:
    """Returns the light averaged over neighbours; the layers are (index, normals, light)."""
    out = np.zeros_like(layers[2])
    for row in range(out.shape[0]):
        for column in range(out.shape[1]):
            _smooth_pixel(layers, (row, column), out)
    return out


@compiled
@no_type_check
def _soften(scene: Any, layers: Any, colours: Any) -> None:
    """Smooths the colours at edges; the layers are (index, normals, light, extra)."""
    for row in range(1, colours.shape[0] - 1):
        for column in range(1, colours.shape[1] - 1):
            if is_edge(layers[0], layers[1], row, column):
                soften_pixel(scene, layers, (row, column), colours)
