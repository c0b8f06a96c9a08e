"""The picture as light: primary rays, then light from lamps with a shadow ray each, and light from around.

Depth is exact: a primary ray is o + t d with d = (x, y, 1) in the camera frame, so t is the planar depth. Light
is sampled with a pattern that repeats every 4 pixels and is smoothed over 5 x 5 pixels of the same surface
(interleaved sampling, Keller and Heidrich 2001), apart from colour.
"""

import math
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lotus.scenes.description import SceneDescription
from lotus.scenes.light import FAR, bumped, from_around, from_lights, jitter_of, reflection, sky, surface_at
from lotus.scenes.textures import colour
from lotus.scenes.tracing import build_world, nearest, unit
from recon.jit import compiled

PROBE_SIZE = 20  # px


def radiance(
    scene: SceneDescription, K: Float64[np.ndarray, "3 3"], width: int, height: int
) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w 3"]]:
    """Returns the light that reaches the camera (linear RGB), depth and normals."""
    depth, index = np.zeros((height, width), np.float32), np.full((height, width), -1)
    normals, albedo, light, extra = np.zeros((4, height, width, 3), np.float32)
    rotation, position = _rays_of(scene)
    view = (K, rotation, position, scene.seed & 0xFFFFFF)
    layers = (depth, index, normals, albedo, light, extra)
    world = build_world(scene.solids, scene.count, position)
    _trace(0, height, world, scene.lights, scene.air, view, layers)
    light = _smoothed(light, index, normals)
    colours = albedo * light + extra
    _soften(world, scene.air, view, (index, normals, light, extra), colours)
    if scene.air[9] > 0.0:
        kept = np.where(depth > 0, np.exp(-scene.air[9] * depth), 1.0)[..., None].astype(np.float32)
        colours = colours * kept + scene.air[3:6].astype(np.float32) * (1.0 - kept)
    return colours, depth, normals


def probe(scene: SceneDescription) -> tuple[Float64[np.ndarray, "n n"], Int64[np.ndarray, "n n"]]:
    """Returns depth and index of the solid (-1 sky) on a coarse square grid over the view."""
    rotation, position = _rays_of(scene)
    world = build_world(scene.solids, scene.count, position)
    return _probed(world, rotation, position, math.tan(0.5 * scene.fov))


def _rays_of(scene: SceneDescription) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"]]:
    """Returns the rotation of cam_from_world and the camera's place."""
    rotation = np.ascontiguousarray(scene.cam_from_world[:3, :3])
    return rotation, -rotation.T @ scene.cam_from_world[:3, 3]


@compiled
@no_type_check
def _direction(rotation: Any, x: Any, y: Any) -> Any:
    return (
        rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0],
        rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1],
        rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2],
    )


@compiled
@no_type_check
def _probed(world: Any, rotation: Any, position: Any, spread: Any) -> Any:
    depth, index = np.zeros((PROBE_SIZE, PROBE_SIZE)), np.full((PROBE_SIZE, PROBE_SIZE), -1)
    o = (position[0], position[1], position[2])
    for row in range(PROBE_SIZE):
        for column in range(PROBE_SIZE):
            x, y = 2 * column / (PROBE_SIZE - 1.0) - 1, 2 * row / (PROBE_SIZE - 1.0) - 1
            d = _direction(rotation, spread * x, spread * y)
            depth[row, column], index[row, column] = nearest(world, o, d, FAR, -1)
    return depth, index


@compiled
@no_type_check
def _trace(start: int, stop: int, world: Any, lights: Any, air: Any, view: Any, layers: Any) -> None:
    """Fills rows of the layers: depth, index, normals, albedo, light, extra.

    `view` is (K, rotation of cam_from_world, position, seed); light is what albedo multiplies, extra what is
    added: shine, emission, the sky.
    """
    K, rotation, position, seed = view
    depth, index, normals, albedo, light, extra = layers
    o = (position[0], position[1], position[2])
    blockers = np.full(len(lights), -1)
    out, i = np.zeros(6), -1
    for row in range(start, stop):
        for column in range(depth.shape[1]):
            x, y = (column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1]
            d = _direction(rotation, x, y)
            t, i = nearest(world, o, d, FAR, i)
            u = unit(d)
            if i < 0:
                extra[row, column, 0], extra[row, column, 1], extra[row, column, 2] = sky(air, u)
                continue
            p = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
            q, n, w = surface_at(world, i, p, u)
            depth[row, column], index[row, column] = t, i
            for c in range(3):
                normals[row, column, c] = (
                    rotation[c, 0] * w[0] + rotation[c, 1] * w[1] + rotation[c, 2] * w[2]
                )
            slant = max(abs(u[0] * w[0] + u[1] * w[1] + u[2] * w[2]), 0.05)
            footprint = t / K[0, 0] / math.sqrt(slant)
            f = world.frames
            base = colour(
                world.materials, i, world.shapes[i], (f[i, 12], f[i, 13], f[i, 14]), (q, n, footprint)
            )
            glow = world.materials[i, 14]
            for c in range(3):
                albedo[row, column, c] = base[c]
                extra[row, column, c] = glow * base[c]
            if glow > 0.0:
                continue
            lift = 1e-4 + 1e-4 * t
            point = (p[0] + lift * w[0], p[1] + lift * w[1], p[2] + lift * w[2])
            jitter = jitter_of(row, column, seed)
            tilted = bumped(world.materials, i, q, w, footprint)
            from_lights(world, lights, (point, tilted, u, i), jitter, blockers, out)
            around = from_around(world, air, point, w, jitter)
            for c in range(3):
                light[row, column, c] = out[c] + around[c]
                extra[row, column, c] = out[3 + c]
            if world.materials[i, 17] > 0.0:
                mirrored = reflection(world, lights, air, (point, tilted, u, i), footprint)
                for c in range(3):
                    extra[row, column, c] += mirrored[c]


@compiled
@no_type_check
def _smoothed(light: Any, index: Any, normals: Any) -> Any:
    """Returns the light averaged over the 5 x 5 neighbours on the same solid with about the same normal."""
    height, width = index.shape
    out = np.zeros_like(light)
    for row in range(height):
        for column in range(width):
            i = index[row, column]
            if i < 0:
                continue
            x, y, z = normals[row, column, 0], normals[row, column, 1], normals[row, column, 2]
            total, red, green, blue = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for a in range(max(row - 2, 0), min(row + 3, height)):
                for b in range(max(column - 2, 0), min(column + 3, width)):
                    cosine = x * normals[a, b, 0] + y * normals[a, b, 1] + z * normals[a, b, 2]
                    if index[a, b] == i and cosine > 0.9:
                        total += np.float32(1)
                        red += light[a, b, 0]
                        green += light[a, b, 1]
                        blue += light[a, b, 2]
            out[row, column, 0], out[row, column, 1], out[row, column, 2] = (
                red / total,
                green / total,
                blue / total,
            )
    return out


@compiled
@no_type_check
def _soften(world: Any, air: Any, view: Any, layers: Any, colours: Any) -> None:
    """Gives pixels at edges the mean colour of 4 places in the pixel, lit as their neighbours are."""
    K, rotation, position, _ = view
    index, normals, light, extra = layers
    height, width = index.shape
    o = (position[0], position[1], position[2])
    f = world.frames
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            if not _is_edge(index, normals, row, column):
                continue
            total = np.zeros(3)
            i = index[row, column]
            for k in range(4):
                x = (column + 0.25 + 0.5 * (k & 1) + 0.125 * (k >> 1) - K[0, 2]) / K[0, 0]
                y = (row + 0.25 + 0.5 * (k >> 1) - 0.125 * (k & 1) - K[1, 2]) / K[1, 1]
                d = _direction(rotation, x, y)
                t, i = nearest(world, o, d, FAR, i)
                u = unit(d)
                if i < 0:
                    red, green, blue = sky(air, u)
                    total[0] += red
                    total[1] += green
                    total[2] += blue
                    continue
                q, n, w = surface_at(world, i, (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]), u)
                footprint = t / K[0, 0]
                base = colour(
                    world.materials, i, world.shapes[i], (f[i, 12], f[i, 13], f[i, 14]), (q, n, footprint)
                )
                a, b = _like(index, normals, row, column, i, _in_camera(rotation, w))
                glow = world.materials[i, 14]
                for c in range(3):
                    total[c] += base[c] * glow if glow > 0.0 else base[c] * light[a, b, c] + extra[a, b, c]
            for c in range(3):
                colours[row, column, c] = 0.25 * total[c]


@compiled
@no_type_check
def _in_camera(rotation: Any, w: Any) -> Any:
    return (
        rotation[0, 0] * w[0] + rotation[0, 1] * w[1] + rotation[0, 2] * w[2],
        rotation[1, 0] * w[0] + rotation[1, 1] * w[1] + rotation[1, 2] * w[2],
        rotation[2, 0] * w[0] + rotation[2, 1] * w[1] + rotation[2, 2] * w[2],
    )


@compiled
@no_type_check
def _is_edge(index: Any, normals: Any, row: int, column: int) -> bool:
    """Says whether a neighbour is on another solid or has quite another normal."""
    for a, b in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        if index[a, b] != index[row, column]:
            return True
        cosine = 0.0
        for c in range(3):
            cosine += normals[row, column, c] * normals[a, b, c]
        if cosine < 0.8 and index[row, column] >= 0:
            return True
    return False


@compiled
@no_type_check
def _like(index: Any, normals: Any, row: int, column: int, i: int, n: Any) -> Any:
    """Returns the pixel among 3 x 3 that is on solid i with the most similar normal; else the one asked for."""
    best, found_row, found_column = -2.0, row, column
    for a in range(row - 1, row + 2):
        for b in range(column - 1, column + 2):
            cosine = normals[a, b, 0] * n[0] + normals[a, b, 1] * n[1] + normals[a, b, 2] * n[2]
            if index[a, b] == i and cosine > best + 1e-3:
                best, found_row, found_column = cosine, a, b
    return found_row, found_column
