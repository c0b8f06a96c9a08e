"""Colour of a surface at a point: patterns of lines, cells and noise, made afresh at every point.

Nothing here looks at geometry other than the place on the surface: edges of colour and edges of depth are
independent. Every pattern fades to its mean where its detail is finer than the footprint of a pixel.
"""

import math
from typing import Any, no_type_check

from recon.jit import compiled

PLAIN, CLOUDS, STRIPES, TILES, BRICKS, PLAID, CELLS, WOOD, CARPET, PICTURE = range(10)
TEXT, FACADE, SPINE, SCREEN, KEYS, DOTS, MARBLE, LEAVES = range(10, 18)


@compiled
@no_type_check
def _below(x: Any) -> Any:
    """Returns the greatest integer that is not above x; on a GPU `math.floor` alone gives a float."""
    return int(math.floor(x))  # noqa: RUF046


@compiled
@no_type_check
def hashed(i: Any, j: Any, seed: Any) -> Any:
    """Returns a number in [0, 1) that looks random, the same for the same three integers."""
    h = (i * 374761393 + j * 668265263 + seed * 974634777 + 1013904223) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 3266489917) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFFFF) / 4294967296.0


@compiled
@no_type_check
def noise(u: Any, v: Any, seed: Any) -> Any:
    """Returns smooth noise in [0, 1] with detail of size 1."""
    i, j = _below(u), _below(v)
    s, t = u - i, v - j
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    low = hashed(i, j, seed) * (1.0 - s) + hashed(i + 1, j, seed) * s
    high = hashed(i, j + 1, seed) * (1.0 - s) + hashed(i + 1, j + 1, seed) * s
    return low * (1.0 - t) + high * t


@compiled
@no_type_check
def fbm(u: Any, v: Any, seed: Any, footprint: Any, octaves: Any) -> Any:
    """Returns fractal noise around 0.5; octaves finer than the footprint are left out."""
    total, weight, sum_of_weights, size = 0.0, 1.0, 0.0, 1.0
    for k in range(octaves):
        fade = min(max(1.5 - 3.0 * footprint / size, 0.0), 1.0)
        if fade > 0.0:
            total += weight * fade * (noise(u / size + 17.3 * k, v / size - 9.1 * k, seed + k) - 0.5)
        sum_of_weights += weight
        weight *= 0.55
        size *= 0.5
    return 0.5 + 1.6 * total / sum_of_weights


@compiled
@no_type_check
def line(x: Any, width: Any, footprint: Any) -> Any:
    """Returns the share of a pixel that lies within lines of a width at the integers (box filter)."""
    half = 0.5 * max(footprint, 1e-4)
    low, high = x - half + 0.5 * width, x + half + 0.5 * width
    covered_low = _below(low) * width + min(low - _below(low), width)
    covered_high = _below(high) * width + min(high - _below(high), width)
    return (covered_high - covered_low) / (2.0 * half)


@compiled
@no_type_check
def _tiles(u: Any, v: Any, seed: Any, footprint: Any, gap: Any) -> Any:
    i, j = _below(u), _below(v)
    grout = max(line(u, gap, footprint), line(v, gap, footprint))
    fade = min(1.0, footprint)
    tone = (hashed(i, j, seed) - 0.5) * (1.0 - fade)
    return grout, tone


@compiled
@no_type_check
def _cells(u: Any, v: Any, seed: Any, footprint: Any) -> Any:
    """Returns the tone of the nearest cell and nearness to the border of cells (Worley 1996)."""
    i, j = _below(u), _below(v)
    first, second, tone = 9.0, 9.0, 0.5
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            x, y = a + hashed(a, b, seed) - u, b + hashed(a, b, seed + 1) - v
            d = x * x + y * y
            if d < first:
                second, first, tone = first, d, hashed(a, b, seed + 2)
            elif d < second:
                second = d
    border = math.sqrt(second) - math.sqrt(first)
    fade = max(0.0, 1.0 - footprint)
    return 0.5 + (tone - 0.5) * fade, max(0.0, 1.0 - border / 0.12) * fade


@compiled
@no_type_check
def _ink(seed: Any, k: Any) -> Any:
    """Returns a colour, more often dark than bright."""
    bright = 0.1 + 0.9 * hashed(k, 4, seed)
    return bright * hashed(k, 1, seed), bright * hashed(k, 2, seed), bright * hashed(k, 3, seed)


@compiled
@no_type_check
def _text(u: Any, v: Any, seed: Any, footprint: Any) -> Any:
    """Returns how much ink is at a place of a printed page; lines have height 1."""
    row = _below(v)
    ink = line(v - 0.5, 0.45, footprint)
    word = noise(u * 1.3 + 31.0 * hashed(row, 3, seed), row * 7.7, seed)
    if footprint < 1.0:
        ink *= 0.3 if word > 0.62 else 1.0
    margin = hashed(row, 7, seed) > 0.85
    return 0.0 if margin else 0.75 * ink


@compiled
@no_type_check
def _picture(u: Any, v: Any, seed: Any, footprint: Any) -> Any:
    """Returns colours of a made-up painting or poster: a sky, a ground line, blobs, boxes, some text."""
    r, g, b = _ink(seed, 20)
    r2, g2, b2 = _ink(seed, 21)
    style = hashed(9, 9, seed)
    w = fbm(u * 3.0, v * 3.0, seed, 3.0 * footprint, 5)
    horizon = 0.3 + 0.4 * hashed(5, 5, seed) + 0.3 * (fbm(u * 4.0, 0.5, seed + 3, 4.0 * footprint, 4) - 0.5)
    if style < 0.4:  # landscape
        lit = min(max((v - horizon) / max(0.03, footprint) + 0.5, 0.0), 1.0)
        w = min(max(lit * (0.7 + 0.6 * (w - 0.5)) + (1.0 - lit) * 0.5 * w, 0.0), 1.0)
    elif style < 0.7:  # blocks
        n = 2.0 + _below(5.0 * hashed(6, 6, seed))
        tone = hashed(_below(u * n), _below(v * n), seed + 5)
        rr, gg, bb = _ink(seed, int(40.0 * tone))
        r, g, b = 0.5 * (r + rr), 0.5 * (g + gg), 0.5 * (b + bb)
        w = min(max(1.5 * w - 0.2, 0.0), 1.0)
    elif style < 0.82:  # blob
        x, y = u - 0.3 - 0.4 * hashed(7, 7, seed), v - 0.3 - 0.4 * hashed(8, 8, seed)
        d = math.sqrt(x * x + y * y) + 0.25 * (w - 0.5)
        w = min(max((0.25 - d) / max(0.05, footprint) + 0.5, 0.0), 1.0)
    else:  # a cover or leaflet: a title, a picture, print
        block = 0.3 + 0.3 * hashed(12, 4, seed)
        if block < v < block + 0.35 and 0.1 < u < 0.9:
            w = min(max(2.0 * w - 0.5, 0.0), 1.0)
        elif v > block + 0.4:
            w = 1.0 - line(v * 8.0, 0.4, 8.0 * footprint) * (noise(u * 9.0, _below(v * 8.0), seed) > 0.4)
        else:
            w = 1.0 - 0.7 * _text(u * 30.0, v * 30.0, seed, 30.0 * footprint)
    pale = 0.75 * hashed(11, 3, seed)
    r, g, b = r * (1.0 - pale) + pale, g * (1.0 - pale) + pale, b * (1.0 - pale) + pale
    return r2 * 0.6 * (1.0 - w) + r * w, g2 * 0.6 * (1.0 - w) + g * w, b2 * 0.6 * (1.0 - w) + b * w


@compiled
@no_type_check
def _waves(kind: Any, u: Any, v: Any, seed: Any, footprint: Any, warp: Any) -> Any:
    """Returns (share of the second colour, gain) of the patterns made of lines."""
    bend = warp * (fbm(0.37 * u, 0.37 * v, seed, 0.37 * footprint, 4) - 0.5)
    if kind == STRIPES:
        return line(u + bend, 0.5, footprint), 1.0
    if kind == PLAID:
        a, b = line(u, 0.5, footprint), line(v, 0.5, footprint)
        thin = max(line(u * 2.0 + 0.3, 0.1, 2.0 * footprint), line(v * 2.0 + 0.3, 0.1, 2.0 * footprint))
        return 0.5 * (a + b), 1.0 - 0.4 * thin
    if kind == WOOD:
        plank = _below(v)
        tone = (hashed(plank, 5, seed) - 0.5) * max(0.0, 1.0 - footprint)
        grain = fbm(u * 0.35 + 11.0 * plank, v * 6.0 + 2.0 * bend, seed, 6.0 * footprint, 4)
        return min(max(grain + 0.5 * tone, 0.0), 1.0), 1.0 - 0.5 * line(v, 0.03, footprint)
    rings = 0.5 + 0.5 * math.sin(6.2832 * (u + 3.0 * bend)) * max(0.0, 1.0 - 2.0 * footprint)
    return rings**4, 1.0  # marble


@compiled
@no_type_check
def _grids(kind: Any, u: Any, v: Any, seed: Any, footprint: Any) -> Any:
    """Returns (share of the second colour, gain) of the patterns made of cells."""
    if kind == TILES:
        grout, tone = _tiles(u, v, seed, footprint, 0.05)
        return grout, 1.0 + 0.35 * tone
    if kind == BRICKS:
        shift = 0.5 * (_below(2.0 * v) % 2)
        grout, tone = _tiles(u + shift, 2.0 * v, seed, 2.0 * footprint, 0.07)
        return grout, 1.0 + 0.6 * tone
    if kind == CELLS:
        tone, border = _cells(u, v, seed, footprint)
        return tone, 1.0 - 0.5 * border
    if kind == FACADE:
        i, j = _below(u), _below(v)
        window = line(u - 0.5, 0.5, footprint) * line(v - 0.5, 0.6, footprint)
        return window, 1.0 + (0.6 * hashed(i, j, seed) - 0.3) * window
    if kind == KEYS:
        gap = max(line(u, 0.18, footprint), line(v, 0.18, footprint))
        return 1.0 - gap, 1.0
    tone, _ = _cells(u, v, seed, footprint)  # leaves: cells in two sizes
    fine, _ = _cells(2.3 * u, 2.3 * v, seed + 5, 2.3 * footprint)
    return 0.6 * tone + 0.4 * fine, 0.7 + 0.6 * fine


@compiled
@no_type_check
def _weights(kind: Any, u: Any, v: Any, seed: Any, footprint: Any, warp: Any) -> Any:
    """Returns (share of the second colour, gain)."""
    if kind == PLAIN:
        return 0.0, 1.0
    if kind == CLOUDS:
        w = 0.5 + (1.0 + warp) * (fbm(u, v, seed, footprint, 5) - 0.5)
        return min(max(w, 0.0), 1.0), 1.0
    if kind in (STRIPES, PLAID, WOOD, MARBLE):
        return _waves(kind, u, v, seed, footprint, warp)
    if kind == CARPET:
        return fbm(u, v, seed, footprint, 3), 0.85 + 0.3 * fbm(8.0 * u, 8.0 * v, seed + 9, 8.0 * footprint, 3)
    if kind == TEXT:
        return _text(u, v, seed, footprint), 1.0
    if kind == SPINE:
        band = line(v, 0.15, footprint)
        return max(band, _text(3.0 * u, v * 4.0, seed, 4.0 * footprint) * line(v - 0.5, 0.5, footprint)), 1.0
    if kind == SCREEN:
        n = 2.0 + _below(3.0 * hashed(1, 1, seed))
        pane = hashed(_below(u * n), _below(v * n), seed)
        return (pane if pane > 0.5 else _text(u * 40.0, v * 30.0, seed, 40.0 * footprint)), 1.0
    if kind == DOTS:
        x, y = u - _below(u) - 0.5, v - _below(v) - 0.5
        d = math.sqrt(x * x + y * y)
        fade = max(0.0, 1.0 - footprint)
        return 0.3 + (min(max((0.3 - d) / max(footprint, 0.02) + 0.5, 0.0), 1.0) - 0.3) * fade, 1.0
    return _grids(kind, u, v, seed, footprint)


@compiled
@no_type_check
def place_on_surface(shape: Any, half: Any, point: Any, normal: Any) -> Any:
    """Returns (u, v) on the surface in metres: faces are flat, round things are unrolled."""
    x, y, z = point
    nx, ny, nz = normal
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if shape in (2, 3, 5, 6) and az < 0.9:
        return math.atan2(y, x) * half[0], z
    if az >= ax and az >= ay:
        return x, y
    if ax >= ay:
        return y, z
    return x, z


@compiled
@no_type_check
def face_size(shape: Any, half: Any, normal: Any) -> Any:
    """Returns the half size of the face that `place_on_surface` maps to."""
    nx, ny, nz = normal
    ax, ay, az = abs(nx), abs(ny), abs(nz)
    if shape in (2, 3, 5, 6) and az < 0.9:
        return math.pi * half[0], half[2]
    if az >= ax and az >= ay:
        return half[0], half[1]
    if ax >= ay:
        return half[1], half[2]
    return half[0], half[2]


@compiled
@no_type_check
def colour(materials: Any, i: Any, shape: Any, half: Any, surface: Any) -> Any:
    """Returns the colour (linear RGB) of material i on a solid.

    `surface` is (point, normal, size of a pixel there in m), in the frame of the solid.
    """
    point, normal, footprint = surface
    m = materials
    kind, seed = int(m[i, 0]), int(m[i, 9])
    u, v = place_on_surface(shape, half, point, normal)
    stain = 1.0
    if m[i, 15] > 0.0:
        stain += m[i, 15] * (fbm(2.3 * u, 2.3 * v, seed + 77, 2.3 * footprint, 3) - 0.5)
    if kind in (PICTURE, SCREEN):
        hu, hv = face_size(shape, half, normal)
        u, v, footprint = 0.5 + 0.5 * u / hu, 0.5 + 0.5 * v / hv, 0.5 * footprint / max(hu, hv)
        if kind == PICTURE:
            r, g, b = _picture(u, v, seed, footprint)
            return r * stain, g * stain, b * stain
    else:
        cosine, sine, scale = math.cos(m[i, 8]), math.sin(m[i, 8]), 1.0 / m[i, 7]
        u, v = (cosine * u + sine * v) * scale, (cosine * v - sine * u) * scale * m[i, 18]
        footprint *= scale
    w, gain = _weights(kind, u + 0.37 * (seed % 10), v + 0.21 * (seed % 7), seed, footprint, m[i, 11])
    w *= m[i, 10]
    gain *= stain
    return (
        (m[i, 1] * (1.0 - w) + m[i, 4] * w) * gain,
        (m[i, 2] * (1.0 - w) + m[i, 5] * w) * gain,
        (m[i, 3] * (1.0 - w) + m[i, 6] * w) * gain,
    )
