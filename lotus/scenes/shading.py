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
from lotus.scenes.intersection import outward
from lotus.scenes.textures import colour, fbm, hashed
from lotus.scenes.tracing import blocker, build_world, into_solid, nearest, unit
from recon.jit import compiled

FAR = 1e4  # m
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
    colours = albedo * _smoothed(light, index, normals) + extra
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
            q, n, w = _surface(world, i, p, u)
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
            jitter = _jitter(row, column, seed)
            bumped = _bumped(world.materials, i, q, w, footprint)
            _from_lights(world, lights, (point, bumped, u, i), jitter, blockers, out)
            around = _from_around(world, air, point, w, jitter)
            for c in range(3):
                light[row, column, c] = out[c] + around[c]
                extra[row, column, c] = out[3 + c]


@compiled
@no_type_check
def _surface(world: Any, i: int, p: Any, u: Any) -> Any:
    """Returns the point in the frame of the solid, the normal there, and the world normal toward the ray."""
    f = world.frames
    q = into_solid(f, i, (p[0] - f[i, 9], p[1] - f[i, 10], p[2] - f[i, 11]))
    n = unit(outward(world.shapes[i], (f[i, 12], f[i, 13], f[i, 14]), world.forms, i, q))
    x = f[i, 0] * n[0] + f[i, 1] * n[1] + f[i, 2] * n[2]
    y = f[i, 3] * n[0] + f[i, 4] * n[1] + f[i, 5] * n[2]
    z = f[i, 6] * n[0] + f[i, 7] * n[1] + f[i, 8] * n[2]
    if x * u[0] + y * u[1] + z * u[2] > 0.0:
        return q, n, (-x, -y, -z)
    return q, n, (x, y, z)


@compiled
@no_type_check
def _frame(n: Any) -> Any:
    """Returns two unit vectors perpendicular to a unit vector (Duff et al. 2017)."""
    sign = math.copysign(1.0, n[2])
    a = -1.0 / (sign + n[2])
    b = n[0] * n[1] * a
    return (1.0 + sign * n[0] * n[0] * a, sign * b, -sign * n[0]), (b, sign + n[1] * n[1] * a, -n[1])


@compiled
@no_type_check
def _bumped(materials: Any, i: int, q: Any, w: Any, footprint: Any) -> Any:
    """Returns the normal for light only, tilted by fine noise."""
    if materials[i, 16] == 0.0:
        return w
    s = 1.0 / max(0.012, 1.5 * footprint)
    seed = int(materials[i, 9])
    fade = materials[i, 16] * min(1.0, 0.02 / max(footprint, 1e-4))
    a = fade * (fbm(s * (q[0] + q[2]), s * (q[1] - q[2]), seed + 31, 0.5, 2) - 0.5)
    b = fade * (fbm(s * (q[0] - q[1]), s * (q[2] + q[1]), seed + 47, 0.5, 2) - 0.5)
    t, u = _frame(w)
    return unit((w[0] + a * t[0] + b * u[0], w[1] + a * t[1] + b * u[1], w[2] + a * t[2] + b * u[2]))


@compiled
@no_type_check
def _jitter(row: int, column: int, seed: int) -> Any:
    """Returns 4 numbers of a pattern that covers the unit cube every 4 x 4 pixels (R3 sequence, Roberts)."""
    k = 4 * ((row & 1) * 2 + ((row >> 1) & 1)) + ((column & 1) * 2 + ((column >> 1) & 1))
    shift = hashed(row >> 2, column >> 2, seed)
    a = (0.7548776662 * k + shift) % 1.0
    b = (0.5698402910 * k + hashed(row >> 2, column >> 2, seed + 1)) % 1.0
    c = (0.8191725134 * k + hashed(row >> 2, column >> 2, seed + 2)) % 1.0
    return a, b, c, ((k + shift) / 16.0) % 1.0


@compiled
@no_type_check
def _from_lights(world: Any, lights: Any, surface: Any, jitter: Any, blockers: Any, out: Any) -> None:
    """Writes diffuse and specular light (rgb, rgb) from the lamps; one shadow ray each."""
    point, normal, view, i = surface
    shine, gloss = world.materials[i, 12], world.materials[i, 13]
    out[:] = 0.0
    for k in range(len(lights)):
        if lights[k, 0] == 0.0:
            continue
        angle, reach = 6.2832 * jitter[0], math.sqrt(jitter[1]) * lights[k, 7]
        x, y, z = lights[k, 1] + reach * math.cos(angle), lights[k, 2] + reach * math.sin(angle), lights[k, 3]
        distance, strength = FAR, 1.0
        if lights[k, 0] == 1.0:
            x, y, z = x - point[0], y - point[1], z - point[2]
            distance = math.sqrt(x * x + y * y + z * z)
            strength = 1.0 / (0.15 + distance * distance)
        d = unit((x, y, z))
        strength *= d[0] * normal[0] + d[1] * normal[1] + d[2] * normal[2]
        if strength < 2e-3:
            continue
        blockers[k] = blocker(world, point, d, distance - 0.02, blockers[k])
        if blockers[k] >= 0:
            continue
        bright = 0.0
        if shine > 0.0:
            half = unit((d[0] - view[0], d[1] - view[1], d[2] - view[2]))
            cosine = max(half[0] * normal[0] + half[1] * normal[1] + half[2] * normal[2], 0.0)
            bright = shine * 0.05 * (gloss + 8.0) * cosine**gloss
        for c in range(3):
            out[c] += strength * lights[k, 4 + c]
            out[3 + c] += strength * bright * lights[k, 4 + c]


@compiled
@no_type_check
def _from_around(world: Any, air: Any, point: Any, normal: Any, jitter: Any) -> Any:
    """Returns light from all around along one ray, with what the nearest thing in that direction reflects."""
    angle, radius = 6.2832 * jitter[2], math.sqrt(jitter[3])
    t, b = _frame(normal)
    x, y, z = radius * math.cos(angle), radius * math.sin(angle), math.sqrt(1.0 - jitter[3])
    d = (
        x * t[0] + y * b[0] + z * normal[0],
        x * t[1] + y * b[1] + z * normal[1],
        x * t[2] + y * b[2] + z * normal[2],
    )
    reach, found = nearest(world, point, d, air[11], -1)
    height = 1.0 - air[12] * (0.5 - 0.5 * d[2])
    if found < 0:
        return air[0] * height, air[1] * height, air[2] * height
    opened = (reach / air[11]) ** 0.7
    m, glow, bounce = world.materials, world.materials[found, 14], 0.45 * (1.0 - opened)
    return (
        air[0] * height * (opened + bounce * m[found, 1]) + glow * m[found, 1],
        air[1] * height * (opened + bounce * m[found, 2]) + glow * m[found, 2],
        air[2] * height * (opened + bounce * m[found, 3]) + glow * m[found, 3],
    )


@compiled
@no_type_check
def sky(air: Any, d: Any) -> Any:
    """Returns the colour of the sky in a direction (unit)."""
    up = max(d[2], 0.0)
    w = math.sqrt(up)
    cloud = 0.0
    if air[10] > 0.0 and up > 0.01:
        u, v = d[0] / (up + 0.15), d[1] / (up + 0.15)
        cloud = (fbm(u, v, int(air[13]), 0.02 / (up + 0.1), 6) - 0.75 + 0.5 * air[10]) * 4.0
        cloud = min(max(cloud, 0.0), 1.0) * min(1.0, 4.0 * up)
    white = 0.3 * (air[3] + air[4] + air[5])
    return (
        (air[3] * (1.0 - w) + air[6] * w) * (1.0 - cloud) + white * cloud,
        (air[4] * (1.0 - w) + air[7] * w) * (1.0 - cloud) + white * cloud,
        (air[5] * (1.0 - w) + air[8] * w) * (1.0 - cloud) + white * cloud,
    )


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
