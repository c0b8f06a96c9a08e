"""Light at one pixel in three passes, compiled for the processor and for a GPU alike.

What is drawn is `scene` = (world, lights, air, view), where `view` is (K, rotation of cam_from_world,
position, seed). Nothing here makes an array, raises or reads what the same pass writes at another pixel, so
every pixel of a pass may have a thread of its own.
"""

import math
from typing import Any, no_type_check

import numpy as np

from lotus.scenes.light import FAR, bumped, from_around, from_lights, jitter_of, reflection, sky, surface_at
from lotus.scenes.textures import colour
from lotus.scenes.tracing import nearest, unit
from recon.jit import compiled


@compiled
@no_type_check
def direction(rotation: Any, x: Any, y: Any) -> Any:
    """Returns the ray's direction in the world through (x, y, 1) of the camera frame."""
    return (
        rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0],
        rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1],
        rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2],
    )


@compiled
@no_type_check
def trace_pixel(scene: Any, layers: Any, place: Any, guess: int, blockers: Any) -> Any:
    """Fills the layers (depth, index, normals, albedo, light, extra) at one pixel; returns the solid there.

    Light is what albedo multiplies, then shine; extra is what else is added: emission, mirrored light, the
    sky. `guess` and `blockers` (a solid per light) are solids that the rays may meet, or -1; they are the
    last pixel's where pixels follow each other.
    """
    world, lights, air, view = scene
    K, rotation, position, seed = view
    depth, index, normals, albedo, light, extra = layers
    row, column = place
    o = (position[0], position[1], position[2])
    x, y = (column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1]
    d = direction(rotation, x, y)
    t, i = nearest(world, o, d, FAR, guess)
    u = unit(d)
    if i < 0:
        extra[row, column, 0], extra[row, column, 1], extra[row, column, 2] = sky(air, u)
        return i
    p = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
    q, n, w = surface_at(world, i, p, u)
    depth[row, column], index[row, column] = t, i
    for c in range(3):
        normals[row, column, c] = rotation[c, 0] * w[0] + rotation[c, 1] * w[1] + rotation[c, 2] * w[2]
    slant = max(abs(u[0] * w[0] + u[1] * w[1] + u[2] * w[2]), 0.05)
    footprint = t / K[0, 0] / math.sqrt(slant)
    f = world.frames
    base = colour(world.materials, i, world.shapes[i], (f[i, 12], f[i, 13], f[i, 14]), (q, n, footprint))
    glow = world.materials[i, 14]
    for c in range(3):
        albedo[row, column, c] = base[c]
        extra[row, column, c] = glow * base[c]
    if glow > 0.0:
        return i
    lift = 1e-4 + 1e-4 * t
    point = (p[0] + lift * w[0], p[1] + lift * w[1], p[2] + lift * w[2])
    jitter = jitter_of(row, column, seed)
    tilted = bumped(world.materials, i, q, w, footprint)
    direct, shine = from_lights(world, lights, (point, tilted, u, i), jitter, blockers)
    around = from_around(world, air, point, w, jitter)
    for c in range(3):
        light[row, column, c] = direct[c] + around[c]
        light[row, column, 3 + c] = shine[c]
    if world.materials[i, 17] > 0.0:
        mirrored = reflection(world, lights, air, (point, tilted, u, i), footprint)
        for c in range(3):
            extra[row, column, c] += mirrored[c]
    return i


@compiled
@no_type_check
def smooth_pixel(layers: Any, place: Any, out: Any) -> None:
    """Adds to `out` the light's mean over the 5 x 5 neighbours on the same solid with about the same normal.

    The layers are (index, normals, light).
    """
    index, normals, light = layers
    row, column = place
    height, width = index.shape
    i = index[row, column]
    if i < 0:
        return
    x, y, z = normals[row, column, 0], normals[row, column, 1], normals[row, column, 2]
    total = np.float32(0)
    for a in range(max(row - 2, 0), min(row + 3, height)):
        for b in range(max(column - 2, 0), min(column + 3, width)):
            cosine = x * normals[a, b, 0] + y * normals[a, b, 1] + z * normals[a, b, 2]
            if index[a, b] == i and cosine > 0.9:
                total += np.float32(1)
                for c in range(6):
                    out[row, column, c] += light[a, b, c]
    for c in range(6):
        out[row, column, c] /= total


@compiled
@no_type_check
def soften_pixel(scene: Any, layers: Any, place: Any, colours: Any) -> None:
    """Gives a pixel the mean colour of 3 places in it, lit as their neighbours are.

    For pixels with `is_edge`, not the picture's outermost. The layers are (index, normals, light, extra).
    """
    world, _, air, view = scene
    K, rotation, position, _ = view
    index, normals, light, extra = layers
    row, column = place
    o = (position[0], position[1], position[2])
    f = world.frames
    red, green, blue = (
        np.float64(colours[row, column, 0]),
        np.float64(colours[row, column, 1]),
        np.float64(colours[row, column, 2]),
    )
    i = index[row, column]
    for k in range(2):
        x = (column + (1 + 4 * k) / 6.0 - K[0, 2]) / K[0, 0]
        y = (row + (5 - 4 * k) / 6.0 - K[1, 2]) / K[1, 1]
        d = direction(rotation, x, y)
        t, i = nearest(world, o, d, FAR, i)
        u = unit(d)
        if i < 0:
            r, g, b = sky(air, u)
        else:
            q, n, w = surface_at(world, i, (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]), u)
            h = (f[i, 12], f[i, 13], f[i, 14])
            base = colour(world.materials, i, world.shapes[i], h, (q, n, t / K[0, 0]))
            like = _like(index, normals, place, i, _in_camera(rotation, w))
            r, g, b = _lit(base, world.materials[i, 14], light, extra, like)
        red += r
        green += g
        blue += b
    colours[row, column, 0], colours[row, column, 1], colours[row, column, 2] = (
        red / 3.0,
        green / 3.0,
        blue / 3.0,
    )


@compiled
@no_type_check
def _lit(base: Any, glow: Any, light: Any, extra: Any, place: Any) -> Any:
    """Returns the colour of a surface that glows or is lit as a pixel is."""
    if glow > 0.0:
        return base[0] * glow, base[1] * glow, base[2] * glow
    a, b = place
    return (
        base[0] * light[a, b, 0] + extra[a, b, 0],
        base[1] * light[a, b, 1] + extra[a, b, 1],
        base[2] * light[a, b, 2] + extra[a, b, 2],
    )


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
def is_edge(index: Any, normals: Any, row: int, column: int) -> bool:
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
def _like(index: Any, normals: Any, place: Any, i: int, n: Any) -> Any:
    """Returns the pixel among 3 x 3 that is on solid i with the most similar normal, else the middle."""
    row, column = place
    best, found_row, found_column = -2.0, row, column
    for a in range(row - 1, row + 2):
        for b in range(column - 1, column + 2):
            cosine = normals[a, b, 0] * n[0] + normals[a, b, 1] * n[1] + normals[a, b, 2] * n[2]
            if index[a, b] == i and cosine > best + 1e-3:
                best, found_row, found_column = cosine, a, b
    return found_row, found_column
