"""The picture as light: primary rays, then light from lamps with a shadow ray, and light from around.

Depth is exact: a primary ray is o + t d with d = (x, y, 1) in the camera frame, so t is the planar depth. Light
is sampled with a pattern that repeats every 4 pixels and is smoothed over 5 x 5 pixels of the same surface
(interleaved sampling, Keller and Heidrich 2001), apart from colour.
"""

import math

import numpy as np

from lotus.scenes.intersection import outward
from lotus.scenes.textures import colour, fbm, hashed
from lotus.scenes.tracing import Tree, blocked, build_tree, nearest, unit
from recon.jit import compiled

FAR = 1e4  # m


@compiled
def sky(air, dx, dy, dz):
    """Returns the colour of the sky in a direction (unit)."""
    up = max(dz, 0.0)
    w = math.sqrt(up)
    cloud = 0.0
    if air[10] > 0.0 and up > 0.01:
        u, v = dx / (up + 0.15), dy / (up + 0.15)
        cloud = min(
            max((fbm(u, v, int(air[13]), 0.02 / (up + 0.1), 6) - 0.75 + 0.5 * air[10]) * 4.0, 0.0), 1.0
        )
        cloud *= min(1.0, 4.0 * up)
    white = 0.9 * (air[3] + air[4] + air[5]) / 3.0
    return (
        (air[3] * (1.0 - w) + air[6] * w) * (1.0 - cloud) + white * cloud,
        (air[4] * (1.0 - w) + air[7] * w) * (1.0 - cloud) + white * cloud,
        (air[5] * (1.0 - w) + air[8] * w) * (1.0 - cloud) + white * cloud,
    )


@compiled
def _frame(nx, ny, nz):
    """Returns two unit vectors perpendicular to a unit vector (Duff et al. 2017)."""
    sign = math.copysign(1.0, nz)
    a = -1.0 / (sign + nz)
    b = nx * ny * a
    return (1.0 + sign * nx * nx * a, sign * b, -sign * nx), (b, sign + ny * ny * a, -ny)


@compiled
def _from_lights(solids, tree, lights, point, normal, view, material, jitter):
    """Returns (diffuse rgb, specular rgb) light from the lamps; one shadow ray each."""
    out = np.zeros(6)
    for k in range(lights.shape[0]):
        kind = lights[k, 0]
        if kind == 0.0:
            continue
        angle, reach = 6.2832 * jitter[0], math.sqrt(jitter[1]) * lights[k, 7]
        sx, sy = reach * math.cos(angle), reach * math.sin(angle)
        if kind == 1.0:
            lx, ly, lz = lights[k, 1] - point[0] + sx, lights[k, 2] - point[1] + sy, lights[k, 3] - point[2]
            distance = math.sqrt(lx * lx + ly * ly + lz * lz)
            strength = 1.0 / (0.15 + distance * distance)
        else:
            lx, ly, lz = lights[k, 1] + sx, lights[k, 2] + sy, lights[k, 3]
            distance, strength = FAR, 1.0
        lx, ly, lz = unit(lx, ly, lz)
        cosine = lx * normal[0] + ly * normal[1] + lz * normal[2]
        if cosine <= 0.0 or strength * cosine < 1e-3:
            continue
        if blocked(solids, tree, point[0], point[1], point[2], lx, ly, lz, distance - 0.02):
            continue
        hx, hy, hz = unit(lx - view[0], ly - view[1], lz - view[2])
        shine = max(hx * normal[0] + hy * normal[1] + hz * normal[2], 0.0) ** material[13]
        shine *= material[12] * strength * cosine * (material[13] + 8.0) * 0.05
        for c in range(3):
            out[c] += strength * cosine * lights[k, 4 + c]
            out[3 + c] += shine * lights[k, 4 + c]
    return out


@compiled
def _from_around(solids, tree, air, point, normal, jitter):
    """Returns light from all around along one ray, with what the nearest thing in that direction reflects."""
    angle, radius = 6.2832 * jitter[2], math.sqrt(jitter[3])
    t, b = _frame(normal[0], normal[1], normal[2])
    x, y, z = radius * math.cos(angle), radius * math.sin(angle), math.sqrt(1.0 - jitter[3])
    dx = x * t[0] + y * b[0] + z * normal[0]
    dy = x * t[1] + y * b[1] + z * normal[1]
    dz = x * t[2] + y * b[2] + z * normal[2]
    reach, found = nearest(solids, tree, point[0], point[1], point[2], dx, dy, dz, air[11])
    height = 1.0 - air[12] * (0.5 - 0.5 * dz)
    if found < 0:
        return air[0] * height, air[1] * height, air[2] * height
    opened = (reach / air[11]) ** 0.7
    m = solids.materials[found]
    glow = m[14]
    bounce = 0.45 * (1.0 - opened)
    return (
        air[0] * height * (opened + bounce * m[1]) + glow * m[1],
        air[1] * height * (opened + bounce * m[2]) + glow * m[2],
        air[2] * height * (opened + bounce * m[3]) + glow * m[3],
    )


@compiled
def _surface(solids, i, px, py, pz, dx, dy, dz):
    """Returns the point in the frame of the solid, the normal there, and the world normal toward the ray."""
    r, c = solids.rotations[i], solids.centres[i]
    x, y, z = px - c[0], py - c[1], pz - c[2]
    qx = r[0, 0] * x + r[1, 0] * y + r[2, 0] * z
    qy = r[0, 1] * x + r[1, 1] * y + r[2, 1] * z
    qz = r[0, 2] * x + r[1, 2] * y + r[2, 2] * z
    nx, ny, nz = outward(solids.shapes[i], solids.halves[i], solids.forms[i], qx, qy, qz)
    nx, ny, nz = unit(nx, ny, nz)
    wx = r[0, 0] * nx + r[0, 1] * ny + r[0, 2] * nz
    wy = r[1, 0] * nx + r[1, 1] * ny + r[1, 2] * nz
    wz = r[2, 0] * nx + r[2, 1] * ny + r[2, 2] * nz
    if wx * dx + wy * dy + wz * dz > 0.0:
        wx, wy, wz = -wx, -wy, -wz
    return (qx, qy, qz), (nx, ny, nz), (wx, wy, wz)


@compiled
def _bumped(material, shape, half, q, n, w, footprint, depth):
    """Returns the normal for light only, tilted by fine noise."""
    if material[16] == 0.0:
        return w
    s = 1.0 / max(0.012, 1.5 * footprint)
    seed = int(material[9])
    fade = material[16] * min(1.0, 0.02 / max(footprint, 1e-4))
    a = fade * (fbm(s * (q[0] + q[2]), s * (q[1] - q[2]), seed + 31, 0.5, 2) - 0.5)
    b = fade * (fbm(s * (q[0] - q[1]), s * (q[2] + q[1]), seed + 47, 0.5, 2) - 0.5)
    t, u = _frame(w[0], w[1], w[2])
    return unit(w[0] + a * t[0] + b * u[0], w[1] + a * t[1] + b * u[1], w[2] + a * t[2] + b * u[2])


@compiled
def _jitter(row, column, seed):
    """Returns 4 numbers of a pattern that covers the unit cube every 4 x 4 pixels (R2 sequence, Roberts)."""
    k = 4 * ((row & 1) * 2 + ((row >> 1) & 1)) + ((column & 1) * 2 + ((column >> 1) & 1))
    shift = hashed(row >> 2, column >> 2, seed)
    a = (0.7548776662 * k + shift) % 1.0
    b = (0.5698402910 * k + hashed(row >> 2, column >> 2, seed + 1)) % 1.0
    c = (0.8191725134 * k + hashed(row >> 2, column >> 2, seed + 2)) % 1.0
    return a, b, c, ((k + shift) / 16.0) % 1.0


@compiled
def trace(start, stop, solids, tree, lights, air, view, layers):
    """Fills rows of the layers (depth, index, normals, albedo, light, extra).

    `view` is (K, camera_from_world as rotation, position, seed); light is what albedo multiplies, extra what is
    added: shine, emission, the sky.
    """
    K, rotation, position, seed = view
    depth, index, normals, albedo, light, extra = layers
    for row in range(start, stop):
        for column in range(depth.shape[1]):
            x, y = (column + 0.5 - K[0, 2]) / K[0, 0], (row + 0.5 - K[1, 2]) / K[1, 1]
            dx = rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0]
            dy = rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1]
            dz = rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2]
            ox, oy, oz = position[0], position[1], position[2]
            t, i = nearest(solids, tree, ox, oy, oz, dx, dy, dz, FAR)
            ux, uy, uz = unit(dx, dy, dz)
            if i < 0:
                extra[row, column, 0], extra[row, column, 1], extra[row, column, 2] = sky(air, ux, uy, uz)
                continue
            px, py, pz = ox + t * dx, oy + t * dy, oz + t * dz
            q, n, w = _surface(solids, i, px, py, pz, dx, dy, dz)
            depth[row, column], index[row, column] = t, i
            for c in range(3):
                normals[row, column, c] = (
                    rotation[c, 0] * w[0] + rotation[c, 1] * w[1] + rotation[c, 2] * w[2]
                )
            material, shape, half = solids.materials[i], solids.shapes[i], solids.halves[i]
            slant = max(abs(ux * w[0] + uy * w[1] + uz * w[2]), 0.05)
            footprint = t / K[0, 0] / math.sqrt(slant)
            base = colour(material, shape, half, q, n, footprint)
            for c in range(3):
                albedo[row, column, c] = base[c]
            if material[14] > 0.0:
                for c in range(3):
                    extra[row, column, c] = material[14] * base[c]
                continue
            lifted = 1e-4 + 1e-4 * t
            point = (px + lifted * w[0], py + lifted * w[1], pz + lifted * w[2])
            jitter = _jitter(row, column, seed)
            tilted = _bumped(material, shape, half, q, n, w, footprint, t)
            direct = _from_lights(solids, tree, lights, point, tilted, (ux, uy, uz), material, jitter)
            around = _from_around(solids, tree, air, point, w, jitter)
            for c in range(3):
                light[row, column, c] = direct[c] + around[c]
                extra[row, column, c] = direct[3 + c]


@compiled
def smoothed(light, index, normals):
    """Returns the light averaged over the 5 x 5 neighbours on the same solid with about the same normal."""
    height, width = index.shape
    out = np.zeros_like(light)
    for row in range(height):
        for column in range(width):
            if index[row, column] < 0:
                continue
            total = 0.0
            for a in range(max(row - 2, 0), min(row + 3, height)):
                for b in range(max(column - 2, 0), min(column + 3, width)):
                    if index[a, b] != index[row, column]:
                        continue
                    cosine = 0.0
                    for c in range(3):
                        cosine += normals[a, b, c] * normals[row, column, c]
                    if cosine < 0.9:
                        continue
                    total += 1.0
                    for c in range(3):
                        out[row, column, c] += light[a, b, c]
            for c in range(3):
                out[row, column, c] /= total
    return out


def radiance(scene, K, width, height):
    """Returns (light that reaches the camera (h, w, 3), depth, normals) of a scene."""
    solids, tree, rotation, position = _prepared(scene)
    depth, index = np.zeros((height, width), np.float32), np.full((height, width), -1)
    normals, albedo, light, extra = np.zeros((4, height, width, 3), np.float32)
    view = (K, rotation, position, scene.seed & 0xFFFFFF)
    layers = (depth, index, normals, albedo, light, extra)
    trace(0, height, solids, tree, scene.lights, scene.air, view, layers)
    colours = albedo * smoothed(light, index, normals) + extra
    if scene.air[9] > 0.0:
        kept = np.where(depth > 0, np.exp(-scene.air[9] * depth), 1.0)[..., None].astype(np.float32)
        colours = colours * kept + scene.air[3:6].astype(np.float32) * (1.0 - kept)
    return colours, depth, normals


PROBE_SIZE = 20  # px


@compiled
def _probed(solids, tree, rotation, position, spread):
    depth, index = np.zeros((PROBE_SIZE, PROBE_SIZE)), np.full((PROBE_SIZE, PROBE_SIZE), -1)
    for row in range(PROBE_SIZE):
        for column in range(PROBE_SIZE):
            x, y = spread * (2 * column / (PROBE_SIZE - 1.0) - 1), spread * (2 * row / (PROBE_SIZE - 1.0) - 1)
            dx = rotation[0, 0] * x + rotation[1, 0] * y + rotation[2, 0]
            dy = rotation[0, 1] * x + rotation[1, 1] * y + rotation[2, 1]
            dz = rotation[0, 2] * x + rotation[1, 2] * y + rotation[2, 2]
            depth[row, column], index[row, column] = nearest(
                solids, tree, position[0], position[1], position[2], dx, dy, dz, FAR
            )
    return depth, index


def probe(scene):
    """Returns depth and index of the solid (-1 sky) on a coarse square grid over the view."""
    solids, tree, rotation, position = _prepared(scene)
    return _probed(solids, tree, rotation, position, math.tan(0.5 * scene.fov))


def _prepared(scene):
    solids = type(scene.solids)(*(column[: scene.count] for column in scene.solids))
    tree = Tree(*build_tree(scene.count, solids.centres, solids.rotations, solids.halves))
    rotation = np.ascontiguousarray(scene.cam_from_world[:3, :3])
    return solids, tree, rotation, -rotation.T @ scene.cam_from_world[:3, 3]
