"""Materials by family (wood, fabric, paint, ...), drawn at random: colours, pattern, shine.

A material is a row of numbers: 0 pattern (`textures`), 1:4 and 4:7 two colours (linear RGB), 7 period of the
pattern (m), 8 its angle, 9 seed, 10 share of the second colour, 11 warp, 12 shine, 13 its exponent, 14
emission, 15 stains, 16 bumps, 17 share of light that it mirrors, 18 stretch of the pattern across.
"""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from lotus.scenes import textures as kinds

Material = Float64[np.ndarray, "m"]
Colour = tuple[float, float, float]


def random_colour(
    rng: np.random.Generator, saturation: float = 0.5, low: float | int = 0.03, high: float = 0.8
) -> Colour:
    """Returns a linear RGB colour; brightness is uniform after gamma."""
    hue, vivid, value = rng.random(), rng.random(), rng.random()
    level = (low ** (1 / 2.2) + value * (high ** (1 / 2.2) - low ** (1 / 2.2))) ** 2.2
    return colorsys.hsv_to_rgb(hue, saturation * vivid, level)


def grey(rng: np.random.Generator, low: float | int, high: float | int) -> Colour:
    """Returns a nearly neutral colour."""
    return random_colour(rng, 0.12, low, high)


def wood_colour(rng: np.random.Generator) -> Colour:
    """Returns a brown between birch and wenge."""
    return colorsys.hsv_to_rgb(
        rng.uniform(0.04, 0.11), rng.uniform(0.35, 0.75), 0.03 + 0.5 * rng.random() ** 1.5
    )


def shaded(colour: Colour, factor: float) -> Colour:
    """Returns a darker or brighter colour."""
    return (min(colour[0] * factor, 0.95), min(colour[1] * factor, 0.95), min(colour[2] * factor, 0.95))


def material(
    rng: np.random.Generator,
    kind: int | np.integer,
    colours: Sequence[Colour],
    period: float = 0.1,
    **more: float | int,
) -> Material:
    """Returns a row with the given pattern; `more` sets angle, mix, warp, shine, gloss, ..."""
    given = more.get
    seed, shine = rng.integers(1, 1 << 20), given("shine", 0.0)
    is_polished = shine > 0.0 and rng.random() < 0.4
    mirror = given("mirror", rng.uniform(0.01, 0.08) if is_polished else 0.0)
    pattern = (period, given("angle", 0.0), seed, given("mix", 1.0), given("warp", 0.0))
    surface = (given("emission", 0.0), given("stains", 0.12), given("bumps", 0.0), mirror)
    row = (kind, *colours[0], *colours[-1], *pattern, shine, given("gloss", 20.0), *surface)
    return np.array((*row, given("stretch", 1.0), 0.0), np.float64)  # (MATERIAL_SIZE,)


def plain(rng: np.random.Generator, colour: Colour, shine: float = 0.0, stains: float = 0.1) -> Material:
    """Returns one colour with faint clouds."""
    pair = (colour, shaded(colour, rng.uniform(0.85, 1.15)))
    return material(rng, kinds.CLOUDS, pair, rng.uniform(0.05, 0.6), shine=shine, stains=stains, gloss=30.0)


def wood(rng: np.random.Generator) -> Material:
    """Returns planks or veneer."""
    base = wood_colour(rng)
    pair = (base, shaded(base, rng.uniform(0.4, 0.9)))
    shine = rng.choice([0.0, 0.1, 0.4])
    angle = rng.choice([0.0, math.pi / 2])
    return material(
        rng, kinds.WOOD, pair, rng.uniform(0.06, 0.6), angle=angle, warp=0.6, shine=shine, gloss=40.0
    )


def fabric(rng: np.random.Generator) -> Material:
    """Returns cloth: plain weave, stripes, plaid, dots, flowers."""
    kind = rng.choice(
        [kinds.CARPET, kinds.CLOUDS, kinds.STRIPES, kinds.PLAID, kinds.DOTS, kinds.CELLS],
        p=[0.4, 0.25, 0.12, 0.1, 0.06, 0.07],
    )
    base = random_colour(rng, 0.8, 0.02, 0.6)
    other = random_colour(rng, 0.8, 0.02, 0.7) if rng.random() < 0.5 else shaded(base, rng.uniform(0.5, 1.6))
    return material(
        rng,
        kind,
        (base, other),
        rng.uniform(0.015, 0.15),
        angle=rng.uniform(0, 3),
        warp=0.5,
        bumps=0.8,
        stains=0.4,
    )


def paint(rng: np.random.Generator) -> Material:
    """Returns lacquered board or metal sheet."""
    colour = grey(rng, 0.05, 0.85) if rng.random() < 0.6 else random_colour(rng, 0.8)
    return plain(rng, colour, shine=rng.choice([0.0, 0.1, 0.3, 0.8]), stains=rng.uniform(0, 0.2))


def metal(rng: np.random.Generator) -> Material:
    """Returns dark or bright metal."""
    colour = grey(rng, 0.01, 0.5)
    mirror = rng.uniform(0.05, 0.5) if rng.random() < 0.5 else 0.0
    return material(
        rng, kinds.PLAIN, (colour,), shine=rng.uniform(0.3, 1.5), gloss=rng.uniform(20, 120), mirror=mirror
    )


def plastic(rng: np.random.Generator) -> Material:
    """Returns shiny, often vivid, often black or white."""
    roll = rng.random()
    colour = (
        grey(rng, 0.01, 0.06)
        if roll < 0.3
        else grey(rng, 0.5, 0.85)
        if roll < 0.5
        else random_colour(rng, 1.0)
    )
    return plain(rng, colour, shine=rng.uniform(0, 0.8), stains=0.15)


def ceramic(rng: np.random.Generator) -> Material:
    """Returns glazed ware, sometimes with a pattern."""
    base = grey(rng, 0.4, 0.85) if rng.random() < 0.5 else random_colour(rng, 0.9)
    if rng.random() < 0.6:
        return plain(rng, base, shine=rng.uniform(0.3, 1.0), stains=0.1)
    kind = rng.choice([kinds.STRIPES, kinds.DOTS, kinds.CLOUDS, kinds.MARBLE, kinds.CELLS])
    other = random_colour(rng, 0.9)
    return material(
        rng, kind, (base, other), rng.uniform(0.01, 0.05), angle=rng.choice([0, 1.571]), warp=0.7, shine=0.6
    )


def paper(rng: np.random.Generator) -> Material:
    """Returns a printed page, card or poster."""
    white = grey(rng, 0.55, 0.88)
    if rng.random() < 0.6:
        return material(rng, kinds.TEXT, (white, grey(rng, 0.02, 0.1)), rng.uniform(0.005, 0.02))
    return material(rng, kinds.PICTURE, (white,))


def spine(rng: np.random.Generator) -> Material:
    """Returns the back of a book."""
    base = random_colour(rng, 0.9, 0.02, 0.75)
    return material(
        rng, kinds.SPINE, (base, random_colour(rng, 0.7)), rng.uniform(0.1, 0.3), angle=1.571, stains=0.2
    )


def wall(rng: np.random.Generator) -> Material:
    """Returns plaster, wallpaper, panels, tiles or bricks."""
    base = grey(rng, 0.25, 0.85) if rng.random() < 0.7 else random_colour(rng, 0.6, 0.08, 0.8)
    kind = rng.choice(
        [kinds.CLOUDS, kinds.STRIPES, kinds.TILES, kinds.BRICKS, kinds.CELLS, kinds.PLAID, kinds.WOOD],
        p=[0.62, 0.08, 0.1, 0.06, 0.04, 0.03, 0.07],
    )
    if kind == kinds.CLOUDS:
        return material(
            rng,
            kind,
            (base, shaded(base, 0.85)),
            rng.uniform(0.3, 2),
            bumps=0.1,
            stains=0.5 * rng.random() ** 3,
        )
    other = shaded(base, rng.uniform(0.5, 1.4)) if rng.random() < 0.7 else random_colour(rng, 0.5)
    period = rng.uniform(0.08, 0.4)
    return material(
        rng, kind, (base, other), period, mix=rng.uniform(0.3, 1), shine=rng.choice([0, 0.3]), stains=0.4
    )


def floor(rng: np.random.Generator) -> Material:
    """Returns boards, tiles, carpet or stone."""
    roll = rng.random()
    if roll < 0.4:
        return wood(rng)
    if roll < 0.6:
        base = grey(rng, 0.08, 0.7)
        return material(
            rng, kinds.TILES, (base, shaded(base, 0.6)), rng.uniform(0.15, 0.7), shine=0.3, stains=0.5
        )
    if roll < 0.68:  # striped carpet tiles
        base = random_colour(rng, 0.4, 0.02, 0.3)
        pair = (base, shaded(base, rng.uniform(1.5, 3)))
        return material(rng, kinds.STRIPES, pair, rng.uniform(0.01, 0.05), warp=0.3, bumps=0.8, stains=0.3)
    if roll < 0.85:
        base = random_colour(rng, 0.5, 0.03, 0.45)
        pair = (base, shaded(base, rng.uniform(0.5, 1.5)))
        return material(rng, kinds.CARPET, pair, rng.uniform(0.02, 0.2), bumps=0.5, stains=0.3)
    base = grey(rng, 0.1, 0.6)
    return material(rng, kinds.MARBLE, (base, shaded(base, 0.6)), rng.uniform(0.3, 1), warp=1.0, shine=0.4)


def rug(rng: np.random.Generator) -> Material:
    """Returns a bold pattern."""
    kind = rng.choice(
        [kinds.STRIPES, kinds.PLAID, kinds.CELLS, kinds.DOTS, kinds.PICTURE, kinds.TILES, kinds.CARPET]
    )
    pair = (random_colour(rng, 0.9, 0.03, 0.6), random_colour(rng, 0.9, 0.03, 0.6))
    return material(
        rng, kind, pair, rng.uniform(0.05, 0.4), angle=rng.choice([0, 0.785]), bumps=0.5, stains=0.5
    )


def ground(rng: np.random.Generator) -> Material:
    """Returns asphalt, grass, paving, gravel or sand."""
    roll = rng.random()
    if roll < 0.3:
        base = grey(rng, 0.04, 0.2)
        return material(
            rng, kinds.CARPET, (base, shaded(base, 1.4)), rng.uniform(0.1, 1), stains=0.5, bumps=0.5
        )
    if roll < 0.6:
        base = colorsys.hsv_to_rgb(rng.uniform(0.17, 0.3), rng.uniform(0.4, 0.8), rng.uniform(0.06, 0.3))
        return material(
            rng, kinds.LEAVES, (base, shaded(base, 0.5)), rng.uniform(0.03, 0.15), stains=0.6, bumps=1.0
        )
    if roll < 0.85:
        base = grey(rng, 0.1, 0.5)
        kind = rng.choice([kinds.TILES, kinds.BRICKS, kinds.CELLS])
        return material(rng, kind, (base, shaded(base, 0.5)), rng.uniform(0.15, 0.8), stains=0.5, bumps=0.4)
    base = colorsys.hsv_to_rgb(rng.uniform(0.06, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5))
    return material(rng, kinds.CLOUDS, (base, shaded(base, 0.7)), rng.uniform(0.3, 2), stains=0.5, bumps=1.0)


def facade(rng: np.random.Generator) -> Material:
    """Returns a house front with windows."""
    base = grey(rng, 0.15, 0.7) if rng.random() < 0.5 else random_colour(rng, 0.5, 0.08, 0.6)
    pane = grey(rng, 0.02, 0.15)
    return material(
        rng,
        kinds.FACADE,
        (base, pane),
        rng.uniform(1.2, 3),
        shine=0.1,
        stains=0.5,
        stretch=rng.uniform(0.5, 1),
    )


def leaf(rng: np.random.Generator) -> Material:
    """Returns foliage."""
    base = colorsys.hsv_to_rgb(rng.uniform(0.15, 0.4), rng.uniform(0.4, 0.9), rng.uniform(0.05, 0.35))
    return material(
        rng, kinds.LEAVES, (base, shaded(base, 0.35)), rng.uniform(0.02, 0.1), stains=0.6, bumps=1.5
    )


def anything(rng: np.random.Generator) -> Material:
    """Returns a material of any family."""
    return FAMILIES[rng.integers(len(FAMILIES))](rng)


FAMILIES = (wood, fabric, paint, metal, plastic, ceramic, paper, wall, floor, rug)
