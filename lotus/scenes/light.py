"""Light on a surface: from lamps and the sun, from all around, from a reflection, and the sky itself."""

import math
from typing import Any, no_type_check

from lotus.scenes.intersection import outward
from lotus.scenes.textures import colour, fbm, hashed
from lotus.scenes.tracing import blocker, into_solid, nearest, unit
from recon.jit import compiled

FAR = 1e4  # m


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
def bumped(materials: Any, i: int, q: Any, w: Any, footprint: Any) -> Any:
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
def jitter_of(row: int, column: int, seed: int) -> Any:
    """Returns 4 numbers of a pattern that covers the unit cube every 4 x 4 pixels (the R3 sequence of Roberts 2018)."""
    k = 4 * ((row & 1) * 2 + ((row >> 1) & 1)) + ((column & 1) * 2 + ((column >> 1) & 1))
    shift = hashed(row >> 2, column >> 2, seed)
    a = (0.7548776662 * k + shift) % 1.0
    b = (0.5698402910 * k + hashed(row >> 2, column >> 2, seed + 1)) % 1.0
    c = (0.8191725134 * k + hashed(row >> 2, column >> 2, seed + 2)) % 1.0
    return a, b, c, ((k + shift) / 16.0) % 1.0


@compiled
@no_type_check
def from_lights(world: Any, lights: Any, surface: Any, jitter: Any, blockers: Any, out: Any) -> None:
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
def from_around(world: Any, air: Any, point: Any, normal: Any, jitter: Any) -> Any:
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
def surface_at(world: Any, i: int, p: Any, u: Any) -> Any:
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
def reflection(world: Any, lights: Any, air: Any, surface: Any, sharpness: Any) -> Any:
    """Returns what a surface mirrors: Schlick's share of what a ray meets, lit without shadows."""
    point, normal, view, i = surface
    cosine = -(view[0] * normal[0] + view[1] * normal[1] + view[2] * normal[2])
    base = world.materials[i, 17]
    share = base + (1.0 - base) * base**0.3 * (1.0 - min(max(cosine, 0.0), 1.0)) ** 5
    d = unit(
        (view[0] + 2 * cosine * normal[0], view[1] + 2 * cosine * normal[1], view[2] + 2 * cosine * normal[2])
    )
    t, k = nearest(world, point, d, FAR, -1)
    if k < 0:
        r, g, b = sky(air, d)
        return share * r, share * g, share * b
    p = (point[0] + t * d[0], point[1] + t * d[1], point[2] + t * d[2])
    q, n, w = surface_at(world, k, p, d)
    f = world.frames
    h = (f[k, 12], f[k, 13], f[k, 14])
    base = colour(world.materials, k, world.shapes[k], h, (q, n, sharpness + 0.02 * t))
    if world.materials[k, 14] > 0.0:
        share *= world.materials[k, 14]
        return share * base[0], share * base[1], share * base[2]
    red, green, blue = 0.7 * air[0], 0.7 * air[1], 0.7 * air[2]
    for j in range(len(lights)):
        x, y, z, strength = lights[j, 1], lights[j, 2], lights[j, 3], 0.5
        if lights[j, 0] == 1.0:
            x, y, z = x - p[0], y - p[1], z - p[2]
            strength = 0.8 / (0.15 + x * x + y * y + z * z)
        if lights[j, 0] > 0.0:
            v = unit((x, y, z))
            strength *= max(v[0] * w[0] + v[1] * w[1] + v[2] * w[2], 0.0)
            red += strength * lights[j, 4]
            green += strength * lights[j, 5]
            blue += strength * lights[j, 6]
    return share * base[0] * red, share * base[1] * green, share * base[2] * blue
