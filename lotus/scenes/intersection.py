"""Where a ray meets a solid, in the frame of the solid.

Boxes, ellipsoids and cones in closed form. Rounded boxes and superellipsoids are {f <= 0} of a convex f; f is
convex along a ray too, so Newton's iteration from outside rises monotonically to the first root: no tangent
of a convex function passes its root. Tori, lathes and sheets by steps as long as the
bound on the slope of f allows (Hart 1996); a least step carries the ray through the surface, and the change of
sign is narrowed by false position.

A ray that starts inside a closed solid does not meet it: only entries count. Arguments everywhere: `h` half
sizes, `forms[i]` the form, `o` and `d` origin and direction (of any length).
"""

import math
from typing import Any, no_type_check

import numpy as np

from recon.jit import compiled

NONE = np.inf
TURN = 0.5 / math.pi
NEWTON_STEPS = 24  # 4 to 6 do, but at silhouettes
TRACE_STEPS = 48
MARCH_STEPS = 150  # shares of the way through the box that a step has at least
FALSE_POSITIONS = 12


@compiled
@no_type_check
def box_interval(h: Any, o: Any, d: Any) -> Any:
    """Returns where the ray enters and leaves the box; an empty interval if it misses."""
    ix, iy, iz = 1.0 / d[0], 1.0 / d[1], 1.0 / d[2]
    ax, bx = (-h[0] - o[0]) * ix, (h[0] - o[0]) * ix
    ay, by = (-h[1] - o[1]) * iy, (h[1] - o[1]) * iy
    az, bz = (-h[2] - o[2]) * iz, (h[2] - o[2]) * iz
    enter = max(min(ax, bx), min(ay, by), min(az, bz))
    leave = min(max(ax, bx), max(ay, by), max(az, bz))
    return enter, leave


@compiled
@no_type_check
def _ellipsoid(h: Any, o: Any, d: Any) -> Any:
    x, y, z = o[0] / h[0], o[1] / h[1], o[2] / h[2]
    a, b, c = d[0] / h[0], d[1] / h[1], d[2] / h[2]
    dd = a * a + b * b + c * c
    od = x * a + y * b + z * c
    root = od * od - dd * (x * x + y * y + z * z - 1.0)
    return (-od - math.sqrt(root)) / dd if root > 0.0 else NONE


@compiled
@no_type_check
def _cone(h: Any, forms: Any, i: int, o: Any, d: Any) -> Any:
    x, y, a, b = o[0] / h[0], o[1] / h[1], d[0] / h[0], d[1] / h[1]
    slope = (forms[i, 0] - 1.0) / (2.0 * h[2])
    best = NONE
    radius, rate = 1.0 + slope * (o[2] + h[2]), slope * d[2]
    qa = a * a + b * b - rate * rate
    qb = x * a + y * b - radius * rate
    root = qb * qb - qa * (x * x + y * y - radius * radius)
    if root > 0.0 and abs(qa) > 1e-14:
        for sign in (-1.0, 1.0):
            t = (-qb + sign * math.sqrt(root)) / qa
            # an entry: there the distance from the axis, less the radius, falls
            is_entry = qa * t + qb < 0.0 and radius + rate * t > 0.0
            if 0.0 < t < best and is_entry and abs(o[2] + t * d[2]) <= h[2]:
                best = t
    if d[2] != 0.0:
        top = o[2] > 0.0
        t = ((h[2] if top else -h[2]) - o[2]) / d[2]
        limit = forms[i, 0] if top else 1.0
        px, py = x + t * a, y + t * b
        if 0.0 < t < best and (d[2] < 0.0) == top and px * px + py * py <= limit * limit:
            best = t
    return best


@compiled
@no_type_check
def _rounded_box_value(h: Any, radius: Any, p: Any) -> Any:
    """Returns the signed distance to a rounded box and its gradient."""
    x, y, z = p
    qx, qy, qz = abs(x) - h[0] + radius, abs(y) - h[1] + radius, abs(z) - h[2] + radius
    mx, my, mz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
    length = math.sqrt(mx * mx + my * my + mz * mz)
    if length == 0.0:
        return max(qx, qy, qz) - radius, 0.0, 0.0, 0.0
    gx, gy, gz = math.copysign(mx, x) / length, math.copysign(my, y) / length, math.copysign(mz, z) / length
    return length - radius, gx, gy, gz


@compiled
@no_type_check
def _superellipsoid_value(h: Any, forms: Any, i: int, point: Any) -> Any:
    """Returns the norm whose unit ball is the superellipsoid, less 1, and its gradient."""
    x, y, z = point
    p, q = forms[i, 0], forms[i, 1]
    ax, ay, az = abs(x) / h[0] + 1e-9, abs(y) / h[1] + 1e-9, abs(z) / h[2] + 1e-9
    xp, yp = ax**p, ay**p
    sq, zq = (xp + yp) ** (q / p), az**q
    total = (sq + zq) ** (1.0 / q)
    outer = total / (sq + zq)
    across = outer * sq / (xp + yp)
    gx = math.copysign(across * xp / ax / h[0], x)
    gy = math.copysign(across * yp / ay / h[1], y)
    gz = math.copysign(outer * zq / az / h[2], z)
    return total - 1.0, gx, gy, gz


@compiled
@no_type_check
def _convex(shape: int, h: Any, forms: Any, i: int, ray: Any) -> Any:
    o, d = ray
    enter, leave = box_interval(h, o, d)
    t = max(enter, 0.0)
    tolerance = 1e-9 * (h[0] + h[1] + h[2]) if shape == 1 else 1e-9
    for step in range(NEWTON_STEPS):
        if t > leave:
            return NONE
        p = (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2])
        if shape == 1:
            value, gx, gy, gz = _rounded_box_value(h, forms[i, 0], p)
        else:
            value, gx, gy, gz = _superellipsoid_value(h, forms, i, p)
        if value < tolerance:
            return t if step > 0 or enter > 0.0 else NONE
        slope = gx * d[0] + gy * d[1] + gz * d[2]
        if slope >= 0.0:
            return NONE
        t -= value / slope
    return t


@compiled
@no_type_check
def _torus(h: Any, o: Any, d: Any) -> Any:
    enter, leave = box_interval(h, o, d)
    t = max(enter, 0.0)
    tube, ring = h[2], h[0] - h[2]
    speed = math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    for step in range(TRACE_STEPS):
        if t > leave:
            return NONE
        x, y, z = o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]
        across = math.sqrt(x * x + y * y) - ring
        value = math.sqrt(across * across + z * z) - tube
        if value < 1e-7:
            return t if step > 0 or enter > 0.0 else NONE
        t += value / speed
    return t


@compiled
@no_type_check
def lathe_radius(h: Any, forms: Any, i: int, z: Any) -> Any:
    """Returns the radius of a lathe at height z and its slope: a uniform cubic B-spline of 8 radii."""
    place = min(max((z / h[2] + 1.0) * 3.5, 0.0), 6.999999)
    k = int(place)
    s = place - k
    r1, r2 = forms[i, k], forms[i, k + 1]
    r0 = forms[i, k - 1] if k > 0 else 2.0 * r1 - r2
    r3 = forms[i, k + 2] if k < 6 else 2.0 * r2 - r1
    u = 1.0 - s
    radius = (
        u * u * u * r0
        + ((3.0 * s - 6.0) * s * s + 4.0) * r1
        + (((3.0 - 3.0 * s) * s + 3.0) * s + 1.0) * r2
        + s * s * s * r3
    ) / 6.0
    slope = 0.5 * (-u * u * r0 + (3.0 * s - 4.0) * s * r1 + ((2.0 - 3.0 * s) * s + 1.0) * r2 + s * s * r3)
    return radius * h[0], slope * h[0] * 3.5 / h[2]


@compiled
@no_type_check
def _turns(forms: Any, i: int, k: int, x: Any, y: Any) -> Any:
    """Returns the phase of the wave at columns k, k + 1, ... in turns, between -1/2 and 1/2."""
    turns = (forms[i, k + 1] * x + forms[i, k + 2] * y + forms[i, k + 3]) * TURN
    return turns - math.floor(turns + 0.5)


@compiled
@no_type_check
def sheet_height(forms: Any, i: int, x: Any, y: Any) -> Any:
    """Returns the height of a sheet; its waves are parabolas in place of sines, five times as fast."""
    height = 0.0
    for k in range(0, 20, 4):
        if forms[i, k] != 0.0:
            u = _turns(forms, i, k, x, y)
            height += forms[i, k] * 8.0 * u * (1.0 - 2.0 * abs(u))
    return height


@compiled
@no_type_check
def _side(shape: int, h: Any, forms: Any, i: int, p: Any) -> Any:
    """Returns the signed function whose zero is a lathe or a sheet."""
    if shape == 6:
        radius, _ = lathe_radius(h, forms, i, p[2])
        return math.sqrt(p[0] * p[0] + p[1] * p[1]) - radius
    return p[2] - sheet_height(forms, i, p[0], p[1])


@compiled
@no_type_check
def _lathe_end(h: Any, forms: Any, i: int, o: Any, d: Any) -> Any:
    """Returns where the ray meets the flat ends of a lathe; an open one has a bottom alone, with two sides."""
    best = NONE
    is_open = forms[i, 8] > 0.5
    for end in range(2):
        top = end == 1
        if d[2] == 0.0 or (top and is_open) or (not is_open and (d[2] < 0.0) != top):
            continue
        level = h[2] if top else -h[2]
        t = (level - o[2]) / d[2]
        x, y = o[0] + t * d[0], o[1] + t * d[1]
        radius, _ = lathe_radius(h, forms, i, level)
        if 0.0 < t < best and x * x + y * y <= radius * radius:
            best = t
    return best


@compiled
@no_type_check
def _steepest(shape: int, h: Any, forms: Any, i: int) -> Any:
    """Returns a bound on the slope of a lathe's radius along z, or of a sheet's height."""
    steepest = 0.0
    if shape == 6:
        for k in range(7):
            steepest = max(steepest, abs(forms[i, k + 1] - forms[i, k]))
        return steepest * 3.5 * h[0] / h[2]
    for k in range(0, 20, 4):
        steepest += abs(forms[i, k]) * math.hypot(forms[i, k + 1], forms[i, k + 2])
    return 8.0 * TURN * steepest


@compiled
@no_type_check
def _marched(shape: int, h: Any, forms: Any, i: int, ray: Any) -> Any:
    o, d = ray
    enter, leave = box_interval(h, o, d)
    t = max(enter, 0.0)
    if leave <= t:
        return NONE
    best = _lathe_end(h, forms, i, o, d) if shape == 6 else NONE
    steepest, across = _steepest(shape, h, forms, i), math.hypot(d[0], d[1])
    rate = across + steepest * abs(d[2]) if shape == 6 else abs(d[2]) + steepest * across
    least = (leave - t) / MARCH_STEPS
    before = _side(shape, h, forms, i, (o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]))
    if before < 0.0 and shape == 6 and forms[i, 8] < 0.5:
        return best  # through an end, or from inside
    for _ in range(MARCH_STEPS + 1):
        if t >= leave or t >= best:
            break
        high = t + max(abs(before) / rate, least)
        after = _side(shape, h, forms, i, (o[0] + high * d[0], o[1] + high * d[1], o[2] + high * d[2]))
        if (before > 0.0) != (after > 0.0):
            t = _root(shape, h, forms, i, (o, d, t, high, before, after))
            return min(t, best) if t < leave else best
        t, before = high, after
    return best


@compiled
@no_type_check
def _root(shape: int, h: Any, forms: Any, i: int, bracket: Any) -> Any:
    """Returns the place of a change of sign by false position (Illinois)."""
    o, d, low, high, before, after = bracket
    m = high
    for _ in range(FALSE_POSITIONS):
        m = high - (high - low) * after / (after - before)
        value = _side(shape, h, forms, i, (o[0] + m * d[0], o[1] + m * d[1], o[2] + m * d[2]))
        if abs(value) < 1e-10:
            break
        if (value > 0.0) == (after > 0.0):
            high, after, before = m, value, 0.5 * before
        else:
            low, before, after = m, value, 0.5 * after
    return m


@compiled
@no_type_check
def first_hit(shape: int, h: Any, forms: Any, i: int, ray: Any) -> Any:
    """Returns the smallest t > 0 where the ray (o, d) enters the solid, infinity if nowhere."""
    o, d = ray
    if shape == 0:
        enter, leave = box_interval(h, o, d)
        return enter if 0.0 < enter < leave else NONE
    if shape == 2:
        t = _ellipsoid(h, o, d)
        return t if t > 0.0 else NONE
    if shape == 3:
        return _cone(h, forms, i, o, d)
    if shape in (1, 4):
        return _convex(shape, h, forms, i, ray)
    if shape == 5:
        return _torus(h, o, d)
    return _marched(shape, h, forms, i, ray)


@compiled
@no_type_check
def outward(shape: int, h: Any, forms: Any, i: int, p: Any) -> Any:
    """Returns the normal (of any length) at a point of the surface."""
    x, y, z = p
    if shape == 0:
        gx, gy, gz = abs(x) - h[0], abs(y) - h[1], abs(z) - h[2]
        if gx >= gy and gx >= gz:
            return math.copysign(1.0, x), 0.0, 0.0
        if gy >= gz:
            return 0.0, math.copysign(1.0, y), 0.0
        return 0.0, 0.0, math.copysign(1.0, z)
    if shape == 1:
        _, nx, ny, nz = _rounded_box_value(h, forms[i, 0], p)
        return nx, ny, nz
    if shape == 2:
        return x / h[0] ** 2, y / h[1] ** 2, z / h[2] ** 2
    if shape == 4:
        _, nx, ny, nz = _superellipsoid_value(h, forms, i, p)
        return nx, ny, nz
    if shape == 5:
        share = 1.0 - (h[0] - h[2]) / math.sqrt(x * x + y * y)
        return x * share, y * share, z
    if shape == 7:
        along_x, along_y = 0.0, 0.0
        for k in range(0, 20, 4):
            rate = forms[i, k] * 8.0 * TURN * (1.0 - 4.0 * abs(_turns(forms, i, k, x, y)))
            along_x += rate * forms[i, k + 1]
            along_y += rate * forms[i, k + 2]
        return -along_x, -along_y, 1.0
    if abs(z) > h[2] * (1.0 - 1e-9):
        return 0.0, 0.0, math.copysign(1.0, z)
    if shape == 3:
        a, b = x / h[0], y / h[1]
        taper = (forms[i, 0] - 1.0) / (2.0 * h[2])
        return a / h[0], b / h[1], -math.sqrt(a * a + b * b) * taper
    _, slope = lathe_radius(h, forms, i, z)
    across = math.sqrt(x * x + y * y) + 1e-12
    return x / across, y / across, -slope
