"""Objects of any form, size and attitude over any ground: no layout that a network could learn by heart."""

import math

import numpy as np

from lotus.scenes import materials as m
from lotus.scenes import objects
from lotus.scenes.description import Shape
from lotus.scenes.layout import Layout
from lotus.scenes.outdoors import daylight
from lotus.scenes.rooms import indoor_air, lamps, shell
from lotus.scenes.solids import Thing, placed, solid, turn


def freeform(rng: np.random.Generator) -> Layout:
    """Returns a heap of things on crumpled ground, indoors or under the sky."""
    scale = math.exp(rng.uniform(math.log(0.15), math.log(1.0)))
    walls = (6 * scale, 6 * scale, 5 * scale)
    if rng.random() < 0.6:
        lights, seen = lamps(rng, walls)
        lights[:, 4:7] *= scale
        thing, air = shell(rng, walls) + seen, indoor_air(rng, 0.08, 0.8)
    else:
        lights, air = daylight(rng)
        thing = [solid(Shape.BOX, (0, 0, -1.5), (500, 500, 0.5), m.ground(rng), ())]
    if rng.random() < 0.6:
        rise = scale * rng.uniform(0.05, 0.5)
        form = objects.waves(rng, rise, 0.8 / scale, 5.0 / scale)
        cover = m.anything(rng) if rng.random() < 0.5 else m.ground(rng)
        thing.append(solid(Shape.SHEET, (0, 0, rise * 0.5), (5.5 * scale, 5.5 * scale, rise), cover, form))
    for _ in range(rng.integers(6, 45)):
        size = scale * math.exp(rng.uniform(math.log(0.08), math.log(0.9)))
        x, y = rng.normal(0, 1.5 * scale, 2)
        at = (x, y, size * rng.uniform(0.2, 1.0) + (scale * rng.uniform(0, 3) if rng.random() < 0.25 else 0))
        thing += placed(_form(rng, size), at, rng.uniform(0, 6.28), turn(rng.uniform(0, 6.28), 0))
    heading, pitch, reach = rng.uniform(0, 6.28), rng.uniform(0.0, 1.2), rng.uniform(1.5, 4.5) * scale
    away = np.array(
        [math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)]
    )
    target = rng.normal(0, 0.5 * scale, 3) + (0, 0, 0.5 * scale)
    eye = target + reach * away
    eye[2] = max(eye[2], 0.25 * scale)
    return Layout("freeform", thing, lights, air, eye, target)


def _form(rng: np.random.Generator, size: float) -> Thing:
    """Returns one solid of any kind."""
    half = tuple(size * rng.uniform(0.15, 1, 3))
    material, shape = m.anything(rng), Shape(rng.integers(8))
    if shape == Shape.ROUNDED_BOX:
        return [solid(shape, (0, 0, 0), half, material, (min(half) * rng.uniform(0.1, 0.95),))]
    if shape == Shape.CONE:
        return [solid(shape, (0, 0, 0), half, material, (rng.uniform(0.05, 1),))]
    if shape == Shape.SUPERELLIPSOID:
        return [solid(shape, (0, 0, 0), half, material, tuple(rng.uniform(1.05, 8, 2)))]
    if shape == Shape.TORUS:
        return [solid(shape, (0, 0, 0), (size, size, size * rng.uniform(0.05, 0.45)), material, ())]
    if shape == Shape.LATHE:
        return placed(
            objects.lathe(rng, size * 0.6, size * 1.6, material, is_open=bool(rng.random() < 0.5)),
            (0, 0, -size * 0.8),
        )
    if shape == Shape.SHEET:
        rise = size * rng.uniform(0.05, 0.3)
        return [
            solid(
                shape, (0, 0, 0), (size, size, rise), material, objects.waves(rng, rise, 2 / size, 8 / size)
            )
        ]
    return [solid(shape, (0, 0, 0), half, material, ())]
