"""Where a ray meets a solid, in the frame of the solid.

Boxes, ellipsoids and cones in closed form. Rounded boxes and superellipsoids are convex level sets of a convex
function f, so f is convex along the ray too and Newton's iteration from the outside rises monotonically to the
first root (Jensen's tangent bound), quadratically. Tori by sphere tracing (Hart 1996), lathes and sheets by a
march of fixed steps and bisection.

A ray that starts inside a closed solid does not meet it: only entries count.
"""

import math

import numpy as np

from recon.jit import compiled

NONE = np.inf
NEWTON_STEPS = 24
TRACE_STEPS = 48
MARCH_STEPS = 40
BISECTIONS = 14


@compiled
def box_interval(hx, hy, hz, ox, oy, oz, dx, dy, dz):
    """Returns where the ray o + t d enters and leaves the box; an empty interval if it misses."""
    ix, iy, iz = 1.0 / dx, 1.0 / dy, 1.0 / dz
    ax, bx = (-hx - ox) * ix, (hx - ox) * ix
    ay, by = (-hy - oy) * iy, (hy - oy) * iy
    az, bz = (-hz - oz) * iz, (hz - oz) * iz
    enter = max(min(ax, bx), min(ay, by), min(az, bz))
    leave = min(max(ax, bx), max(ay, by), max(az, bz))
    return enter, leave


@compiled
def _ellipsoid(hx, hy, hz, ox, oy, oz, dx, dy, dz):
    x, y, z = ox / hx, oy / hy, oz / hz
    a, b, c = dx / hx, dy / hy, dz / hz
    dd = a * a + b * b + c * c
    half = x * a + y * b + z * c
    root = half * half - dd * (x * x + y * y + z * z - 1.0)
    return (-half - math.sqrt(root)) / dd if root > 0.0 else NONE


@compiled
def _cone(half, form, ox, oy, oz, dx, dy, dz):
    hz = half[2]
    x, y, a, b = ox / half[0], oy / half[1], dx / half[0], dy / half[1]
    slope = (form[0] - 1.0) / (2.0 * hz)
    best = NONE
    radius, rate = 1.0 + slope * (oz + hz), slope * dz
    qa = a * a + b * b - rate * rate
    qb = x * a + y * b - radius * rate
    qc = x * x + y * y - radius * radius
    root = qb * qb - qa * qc
    if root > 0.0 and abs(qa) > 1e-14:
        for sign in (-1.0, 1.0):
            t = (-qb + sign * math.sqrt(root)) / qa
            if t > 0.0 and t < best and abs(oz + t * dz) <= hz:
                # an entry: the distance from the axis shrinks against the radius there
                if qa * t + qb < 0.0 and radius + rate * t > 0.0:
                    best = t
    if dz != 0.0:
        top = oz > 0.0
        t = ((hz if top else -hz) - oz) / dz
        limit = form[0] if top else 1.0
        px, py = x + t * a, y + t * b
        if t > 0.0 and t < best and (dz < 0.0) == top and px * px + py * py <= limit * limit:
            best = t
    return best


@compiled
def _rounded_box_value(half, radius, x, y, z):
    """Returns the signed distance to a rounded box and its gradient."""
    qx, qy, qz = abs(x) - half[0] + radius, abs(y) - half[1] + radius, abs(z) - half[2] + radius
    mx, my, mz = max(qx, 0.0), max(qy, 0.0), max(qz, 0.0)
    length = math.sqrt(mx * mx + my * my + mz * mz)
    if length == 0.0:
        return max(qx, qy, qz) - radius, 0.0, 0.0, 0.0
    gx, gy, gz = math.copysign(mx, x) / length, math.copysign(my, y) / length, math.copysign(mz, z) / length
    return length - radius, gx, gy, gz


@compiled
def _superellipsoid_value(half, form, x, y, z):
    """Returns the norm whose unit ball is the superellipsoid, less 1, and its gradient."""
    p, q = form[0], form[1]
    ax, ay, az = abs(x) / half[0] + 1e-9, abs(y) / half[1] + 1e-9, abs(z) / half[2] + 1e-9
    xp, yp = ax**p, ay**p
    s = (xp + yp) ** (1.0 / p)
    sq, zq = s**q, az**q
    total = (sq + zq) ** (1.0 / q)
    outer = total / (sq + zq)
    across = outer * sq / (xp + yp)
    gx = math.copysign(across * xp / ax / half[0], x)
    gy = math.copysign(across * yp / ay / half[1], y)
    gz = math.copysign(outer * zq / az / half[2], z)
    return total - 1.0, gx, gy, gz


@compiled
def _convex(shape, half, form, ox, oy, oz, dx, dy, dz):
    enter, leave = box_interval(half[0], half[1], half[2], ox, oy, oz, dx, dy, dz)
    t = max(enter, 0.0)
    tolerance = 1e-9 * (half[0] + half[1] + half[2])
    for step in range(NEWTON_STEPS):
        if t > leave:
            return NONE
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        if shape == 1:
            value, gx, gy, gz = _rounded_box_value(half, form[0], x, y, z)
        else:
            value, gx, gy, gz = _superellipsoid_value(half, form, x, y, z)
        if value < tolerance:
            return t if step > 0 or enter > 0.0 else NONE
        slope = gx * dx + gy * dy + gz * dz
        if slope >= 0.0:
            return NONE
        t -= value / slope
    return t


@compiled
def _torus(half, ox, oy, oz, dx, dy, dz):
    enter, leave = box_interval(half[0], half[1], half[2], ox, oy, oz, dx, dy, dz)
    t = max(enter, 0.0)
    tube, ring = half[2], half[0] - half[2]
    speed = math.sqrt(dx * dx + dy * dy + dz * dz)
    for step in range(TRACE_STEPS):
        if t > leave:
            return NONE
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        across = math.sqrt(x * x + y * y) - ring
        value = math.sqrt(across * across + z * z) - tube
        if value < 1e-7:
            return t if step > 0 or enter > 0.0 else NONE
        t += value / speed
    return t


@compiled
def lathe_radius(half, form, z):
    """Returns the radius of a lathe at height z and its slope: a uniform cubic B-spline of 8 radii."""
    place = min(max((z / half[2] + 1.0) * 3.5, 0.0), 6.999999)
    k = int(place)
    s = place - k
    r0 = form[k - 1] if k > 0 else 2.0 * form[0] - form[1]
    r1, r2 = form[k], form[k + 1]
    r3 = form[k + 2] if k < 6 else 2.0 * form[7] - form[6]
    radius = (
        (1.0 - s) ** 3 * r0
        + (3.0 * s**3 - 6.0 * s * s + 4.0) * r1
        + (-3.0 * s**3 + 3.0 * s * s + 3.0 * s + 1.0) * r2
        + s**3 * r3
    ) / 6.0
    slope = (
        -((1.0 - s) ** 2) * r0
        + (3.0 * s * s - 4.0 * s) * r1
        + (-3.0 * s * s + 2.0 * s + 1.0) * r2
        + s * s * r3
    ) / 2.0
    return radius * half[0], slope * half[0] * 3.5 / half[2]


@compiled
def sheet_height(form, x, y):
    """Returns the height of a sheet and its slopes."""
    height, along_x, along_y = 0.0, 0.0, 0.0
    for k in range(5):
        amplitude, fx, fy = form[4 * k], form[4 * k + 1], form[4 * k + 2]
        if amplitude != 0.0:
            angle = fx * x + fy * y + form[4 * k + 3]
            height += amplitude * math.sin(angle)
            rate = amplitude * math.cos(angle)
            along_x += rate * fx
            along_y += rate * fy
    return height, along_x, along_y


@compiled
def _side(shape, half, form, x, y, z):
    """Returns the signed function whose zero is a lathe or a sheet."""
    if shape == 6:
        radius, _ = lathe_radius(half, form, z)
        return math.sqrt(x * x + y * y) - radius
    height, _, _ = sheet_height(form, x, y)
    return z - height


@compiled
def _lathe_end(half, form, enter, ox, oy, oz, dx, dy, dz):
    """Returns where the ray meets the flat ends of a lathe; an open one has a bottom only, seen from above too."""
    best = NONE
    for end in range(2):
        top = end == 1
        if dz == 0.0 or (top and form[8] > 0.5) or (form[8] < 0.5 and (dz < 0.0) != top):
            continue
        level = half[2] if top else -half[2]
        t = (level - oz) / dz
        x, y = ox + t * dx, oy + t * dy
        radius, _ = lathe_radius(half, form, level)
        if t > 0.0 and t < best and x * x + y * y <= radius * radius:
            best = t
    return best


@compiled
def _marched(shape, half, form, ox, oy, oz, dx, dy, dz):
    enter, leave = box_interval(half[0], half[1], half[2], ox, oy, oz, dx, dy, dz)
    if leave <= max(enter, 0.0):
        return NONE
    start = max(enter, 0.0)
    best = _lathe_end(half, form, enter, ox, oy, oz, dx, dy, dz) if shape == 6 else NONE
    two_sided = shape == 7 or form[8] > 0.5
    step = (leave - start) / MARCH_STEPS
    before = _side(shape, half, form, ox + start * dx, oy + start * dy, oz + start * dz)
    t = start
    for _ in range(MARCH_STEPS):
        if t > best:
            break
        after_t = t + step
        after = _side(shape, half, form, ox + after_t * dx, oy + after_t * dy, oz + after_t * dz)
        if (before > 0.0 and after <= 0.0) or (two_sided and before < 0.0 and after >= 0.0):
            low, high = t, after_t
            for _ in range(BISECTIONS):
                middle = 0.5 * (low + high)
                value = _side(shape, half, form, ox + middle * dx, oy + middle * dy, oz + middle * dz)
                if (value > 0.0) == (before > 0.0):
                    low, before = middle, value
                else:
                    high, after = middle, value
            root = low + (high - low) * before / (before - after)
            return min(root, best)
        t, before = after_t, after
    return best


@compiled
def first_hit(shape, half, form, ox, oy, oz, dx, dy, dz):
    """Returns the smallest t > 0 where o + t d enters the solid, infinity if nowhere."""
    if shape == 0:
        enter, leave = box_interval(half[0], half[1], half[2], ox, oy, oz, dx, dy, dz)
        return enter if enter > 0.0 and enter < leave else NONE
    if shape == 2:
        t = _ellipsoid(half[0], half[1], half[2], ox, oy, oz, dx, dy, dz)
        return t if t > 0.0 else NONE
    if shape == 3:
        return _cone(half, form, ox, oy, oz, dx, dy, dz)
    if shape in (1, 4):
        return _convex(shape, half, form, ox, oy, oz, dx, dy, dz)
    if shape == 5:
        return _torus(half, ox, oy, oz, dx, dy, dz)
    return _marched(shape, half, form, ox, oy, oz, dx, dy, dz)


@compiled
def outward(shape, half, form, x, y, z):
    """Returns the normal (not of unit length) at a point of the surface, in the frame of the solid."""
    if shape == 0:
        gx, gy, gz = abs(x) - half[0], abs(y) - half[1], abs(z) - half[2]
        if gx >= gy and gx >= gz:
            return math.copysign(1.0, x), 0.0, 0.0
        if gy >= gz:
            return 0.0, math.copysign(1.0, y), 0.0
        return 0.0, 0.0, math.copysign(1.0, z)
    if shape == 1:
        _, nx, ny, nz = _rounded_box_value(half, form[0], x, y, z)
        return nx, ny, nz
    if shape == 2:
        return x / half[0] ** 2, y / half[1] ** 2, z / half[2] ** 2
    if shape == 3:
        if abs(z) > half[2] * (1.0 - 1e-9):
            return 0.0, 0.0, math.copysign(1.0, z)
        a, b = x / half[0], y / half[1]
        radius = math.sqrt(a * a + b * b)
        return a / half[0], b / half[1], -radius * (form[0] - 1.0) / (2.0 * half[2])
    if shape == 4:
        _, nx, ny, nz = _superellipsoid_value(half, form, x, y, z)
        return nx, ny, nz
    if shape == 5:
        across = math.sqrt(x * x + y * y)
        share = 1.0 - (half[0] - half[2]) / across
        return x * share, y * share, z
    if shape == 6:
        if abs(z) > half[2] * (1.0 - 1e-9):
            return 0.0, 0.0, math.copysign(1.0, z)
        _, slope = lathe_radius(half, form, z)
        across = math.sqrt(x * x + y * y) + 1e-12
        return x / across, y / across, -slope
    _, along_x, along_y = sheet_height(form, x, y)
    return -along_x, -along_y, 1.0
