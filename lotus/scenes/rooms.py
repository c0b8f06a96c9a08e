"""Furnished rooms, and the table-tops in them."""

import math
import numpy as np
from jaxtyping import Float64

from lotus.scenes import furniture as f
from lotus.scenes import materials as m
from lotus.scenes import objects
from lotus.scenes import textures as kinds
from lotus.scenes.description import MAX_LIGHTS
from lotus.scenes.layout import Layout
from lotus.scenes.solids import Thing, box, placed, solid
from lotus.scenes.description import Shape


WALL_M = 0.1  # half the thickness of walls
Walls = tuple[float, float, float]
"""Half width, half depth, height of a room."""


def shell(rng: np.random.Generator, walls: Walls) -> Thing:
    """Returns floor, ceiling and walls."""
    t = WALL_M
    thing = _floor_and_ceiling(rng, walls)
    paint = m.wall(rng)
    for side in range(4):
        away, along = _side(walls, side)
        cover = paint if rng.random() < 0.7 else m.wall(rng)
        one = box((0, away + t, walls[2] / 2), (along + t, t, walls[2] / 2), cover)
        thing += placed([one], (0, 0, 0), -side * math.pi / 2)
    return thing


def shell_with_window(rng: np.random.Generator, walls: Walls) -> tuple[Thing, int]:
    """Returns floor, ceiling and walls, one of them open where its window lets the sun in, and its side."""
    t, opened = WALL_M, int(rng.integers(4))
    thing, paint = _floor_and_ceiling(rng, walls), m.wall(rng)
    h = walls[2]
    for side in range(4):
        away, along = _side(walls, side)
        cover = paint if rng.random() < 0.7 else m.wall(rng)
        if side != opened:
            one = box((0, away + t, h / 2), (along + t, t, h / 2), cover)
            thing += placed([one], (0, 0, 0), -side * math.pi / 2)
            continue
        wide, low = rng.uniform(0.35, 0.95) * along, rng.choice([0.05, rng.uniform(0.6, 1.1)])
        high = rng.uniform(low + 0.8, h - 0.1)
        x = rng.uniform(-1, 1) * (along - wide) * 0.9
        left, right = x - wide + along, along - x - wide
        pieces = [
            box((x, away + t, low / 2), (wide, t, low / 2), cover),
            box((x, away + t, (h + high) / 2), (wide, t, (h - high) / 2), cover),
            box((-along + left / 2, away + t, h / 2), (left / 2 + 1e-3, t, h / 2), cover),
            box((along - right / 2, away + t, h / 2), (right / 2 + 1e-3, t, h / 2), cover),
        ]
        pane = placed(f.window(rng, 2 * wide, high - low), (x, away + 0.05, low))
        thing += placed(pieces + pane, (0, 0, 0), -side * math.pi / 2)
    return thing, opened


def _side(walls: Walls, side: int) -> tuple[float, float]:
    """Returns how far a wall is from the middle, and half its length."""
    return (walls[1], walls[0]) if side % 2 == 0 else (walls[0], walls[1])


def _floor_and_ceiling(rng: np.random.Generator, walls: Walls) -> Thing:
    w, d, h = walls
    t = WALL_M
    ceiling = m.plain(rng, m.grey(rng, 0.5, 0.9)) if rng.random() < 0.8 else m.wall(rng)
    return [
        box((0, 0, -t), (w + 2 * t, d + 2 * t, t), m.floor(rng)),
        box((0, 0, h + t), (w + 2 * t, d + 2 * t, t), ceiling),
    ]


def _sun_through(rng: np.random.Generator, side: int) -> Float64[np.ndarray, "8"]:
    """Returns a sun that shines into the window of a side."""
    heading, height = math.pi / 2 - side * math.pi / 2 + rng.uniform(-1.1, 1.1), rng.uniform(0.25, 1.1)
    direction = (math.cos(heading) * math.cos(height), math.sin(heading) * math.cos(height), math.sin(height))
    strength, warm = rng.uniform(1.0, 5.0), rng.uniform(0, 0.4)
    return np.array([2, *direction, strength, strength * (1 - 0.5 * warm), strength * (1 - warm), 0.01])


def _against_walls(rng: np.random.Generator, walls: Walls, amount: float, spared: int = -1) -> Thing:
    """Returns furniture along the four walls, little of it and low at the side that is spared."""
    w, d, h = walls
    thing: Thing = []
    for side in range(4):
        length, away = (2 * w, d) if side % 2 == 0 else (2 * d, w)
        yaw = -side * math.pi / 2
        x = -length / 2 + rng.uniform(0.1, 0.8)
        while x < length / 2 - 0.5 and len(thing) < 190:
            width = min(rng.uniform(0.6, 2.2), length / 2 - x - 0.1)
            if width < 0.5:
                break
            if side == spared and rng.random() < 0.75:
                x += width
                continue
            if rng.random() < amount:
                one, deep = _stand(rng, width, h if side != spared else 1.0)
                local = (x + width / 2, away - deep / 2 - 0.02, 0)
                thing += placed(placed(one, local), (0, 0, 0), yaw)
            else:
                on_wall = f.hanging(rng) if rng.random() < 0.7 else f.door(rng)
                z = 0 if len(on_wall) == 3 and on_wall[0].half[2] > 1 else rng.uniform(1.2, 1.8)
                thing += placed(placed(on_wall, (x + width / 2, away - 0.002, z)), (0, 0, 0), yaw)
            x += width + rng.uniform(0, 0.5)
    return thing


def _stand(rng: np.random.Generator, width: float, h: float) -> tuple[Thing, float]:
    """Returns a piece of furniture of about this width for a wall, with its depth."""
    roll = rng.random()
    if roll < 0.2:
        deep = rng.uniform(0.25, 0.4)
        return f.shelf(
            rng, (min(width, 1.2), deep, rng.uniform(0.8, min(2.2, h - 0.1))), rng.uniform(0.5, 1)
        ), deep
    if roll < 0.4:
        deep = rng.uniform(0.35, 0.6)
        high = rng.uniform(0.5, 1.2) if rng.random() < 0.7 else min(2.1, h - 0.1)
        return f.cabinet(rng, (width, deep, high), int(rng.integers(0, 6))), deep
    if roll < 0.55:
        return f.desk(rng, (max(width, 1.0), 0.7, rng.uniform(0.7, 0.78))), 0.75
    if roll < 0.7:
        return f.kitchen(rng, width), 0.62
    if roll < 0.85 and width > 0.8:
        return f.sofa(rng, width), 0.95
    if roll < 0.92 and width > 0.9:
        return f.bed(rng, width), 2.1
    return objects.plant(rng, rng.uniform(0.25, 0.6)), 0.6


def _middle(rng: np.random.Generator, walls: Walls, busy: float) -> tuple[Thing, np.ndarray]:
    """Returns a table with chairs and things on the floor, and the middle of the table's top."""
    w, d, _ = walls
    thing: Thing = []
    at = np.array([rng.uniform(-0.35, 0.35) * w, rng.uniform(-0.35, 0.35) * d, 0])
    size = (rng.uniform(0.8, 1.9), rng.uniform(0.6, 1.0), rng.choice([0.4, 0.72, 0.75]))
    yaw = rng.choice([0, math.pi / 2]) + rng.normal(0, 0.15)
    thing += placed(f.table(rng, size, int(busy * rng.integers(2, 10))), at, yaw)
    if size[2] > 0.5:
        for k in range(rng.integers(0, 5)):
            x, y = (rng.uniform(-0.35, 0.35) * size[0], -size[1] / 2 - rng.uniform(-0.1, 0.3))
            one = placed(placed(f.chair(rng), (x, y, 0), 0), (0, 0, 0), math.pi * (k % 2))
            one = placed(one, (0, 0, 0), rng.normal(0, 0.1))
            thing += placed(one, at, yaw)
    for _ in range(int(busy * rng.integers(0, 6))):
        x, y = rng.uniform(-0.8, 0.8, 2) * (w, d)
        roll = rng.random()
        one = (
            f.chair(rng)
            if roll < 0.3
            else objects.blob(rng, rng.uniform(0.1, 0.35))
            if roll < 0.6
            else (
                objects.plant(rng, rng.uniform(0.2, 0.5))
                if roll < 0.75
                else objects.cloth(rng, rng.uniform(0.2, 0.6))
            )
        )
        thing += placed(one, (x, y, 0), rng.uniform(0, 6.28))
    if rng.random() < 0.5:
        half = (rng.uniform(0.5, 1.5), rng.uniform(0.4, 1.0), 0.004)
        thing += placed(
            [box((0, 0, 0.004), half, m.rug(rng))], (at[0], at[1], 0), rng.choice([yaw, rng.uniform(0, 3)])
        )
    return thing, at + (0, 0, size[2])


def lamps(rng: np.random.Generator, walls: Walls) -> tuple[np.ndarray, Thing]:
    """Returns 1 to 3 lamps near the ceiling or on stands, and what is seen of them."""
    w, d, h = walls
    lights, thing = np.zeros((MAX_LIGHTS, 8)), []
    for k in range(rng.choice([1, 1, 2, 2, 3])):
        warm = rng.uniform(0, 1)
        colour = np.array([1.0, 1.0 - 0.25 * warm, 1.0 - 0.55 * warm]) * rng.uniform(0.5, 2.0)
        position = (rng.uniform(-0.8, 0.8) * w, rng.uniform(-0.8, 0.8) * d, h - rng.uniform(0.05, 0.9))
        radius = rng.uniform(0.03, 0.4)
        lights[k] = (1, *position, *colour, radius)
        shade = m.material(rng, kinds.PLAIN, (tuple(np.minimum(colour, 1)),), emission=rng.uniform(1, 4))
        r = rng.uniform(0.08, 0.25)
        thing.append(solid(Shape.ELLIPSOID, position, (r, r, r * rng.uniform(0.15, 1)), shade))
    return lights, thing


def indoor_air(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Returns ambient light of a room."""
    tint = 1 + 0.2 * rng.uniform(-1, 1, 3) * (1, 0.3, 1)
    ambient = np.exp(rng.uniform(np.log(low), np.log(high))) * tint
    return np.array(
        [*ambient, *ambient, *ambient, 0.0, 0.0, rng.uniform(0.3, 1.8), rng.uniform(0.1, 0.7), 0.0]
    )


def room(rng: np.random.Generator) -> Layout:
    """Returns a furnished room, seen from within."""
    walls = (rng.uniform(1.3, 3.5), rng.uniform(1.3, 3.5), rng.uniform(2.2, 3.0))
    w, d, h = walls
    busy = rng.uniform(0.3, 1.5)
    middle, top = _middle(rng, walls, busy)
    lights, seen = lamps(rng, walls)
    outside, side = shell_with_window(rng, walls)
    if rng.random() < 0.45:
        lights[3] = _sun_through(rng, side)
        lights[:3, 4:7] *= rng.choice([0.0, 0.3, 1.0])
    thing = outside + seen + middle
    thing += _against_walls(rng, walls, rng.uniform(0.4, 0.95), side)
    if rng.random() < 0.4:  # close and steep onto the table
        reach = rng.uniform(0.5, 1.3)
        heading, pitch = rng.uniform(0, 6.28), rng.uniform(0.35, 1.2)
        away = np.array(
            [math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)]
        )
        eye = np.clip(top + reach * away, (-w + 0.2, -d + 0.2, 0.3), (w - 0.2, d - 0.2, h - 0.1))
        return Layout("room", thing, lights, indoor_air(rng, 0.08, 0.8), eye, top + rng.normal(0, 0.15, 3))
    eye = np.array(
        [rng.uniform(-0.9, 0.9) * w, rng.uniform(-0.9, 0.9) * d, rng.uniform(0.7, min(2.0, h - 0.2))]
    )
    aim = np.array([rng.uniform(-0.8, 0.8) * w, rng.uniform(-0.8, 0.8) * d, rng.uniform(0.2, 1.4)])
    return Layout("room", thing, lights, indoor_air(rng, 0.08, 0.8), eye, aim)


def tabletop(rng: np.random.Generator) -> Layout:
    """Returns a table, desk or counter close by, full of things, with the room behind."""
    walls = (rng.uniform(1.0, 2.5), rng.uniform(1.0, 2.5), rng.uniform(2.2, 2.8))
    w, d, h = walls
    size = (rng.uniform(0.8, 1.8), rng.uniform(0.6, 1.0), rng.uniform(0.6, 0.8))
    choice = objects.DESK if rng.random() < 0.45 else objects.SMALL
    one = f.table(rng, size, int(rng.integers(5, 22)), choice)
    against = rng.random() < 0.5
    at = np.array(
        [rng.uniform(-0.2, 0.2) * w, d - size[1] / 2 - 0.02 if against else rng.uniform(-0.3, 0.3) * d, 0]
    )
    lights, seen = lamps(rng, walls)
    thing = shell(rng, walls) + seen + placed(one, at, 0 if against else rng.normal(0, 0.4))
    thing += _against_walls(rng, walls, rng.uniform(0.2, 0.8)) if not against else []
    for _ in range(3 if against else 0):
        thing += placed(f.hanging(rng), (at[0] + rng.uniform(-0.8, 0.8), d - 0.002, rng.uniform(1.0, 1.7)))
    top = at + (0, 0, size[2])
    target = top + (
        rng.uniform(-0.3, 0.3) * size[0],
        rng.uniform(-0.3, 0.3) * size[1],
        rng.uniform(-0.05, 0.15),
    )
    reach, pitch = rng.uniform(0.3, 1.2), rng.uniform(0.15, 1.3)
    heading = -math.pi / 2 + (rng.normal(0, 0.6) if against else rng.uniform(0, 6.28))
    away = np.array(
        [math.cos(heading) * math.cos(pitch), math.sin(heading) * math.cos(pitch), math.sin(pitch)]
    )
    eye = np.clip(target + reach * away, (-w + 0.15, -d + 0.15, 0.3), (w - 0.15, d - 0.15, h - 0.1))
    return Layout("tabletop", thing, lights, indoor_air(rng, 0.08, 0.8), eye, target)
