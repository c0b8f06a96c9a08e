"""Streets, parks and courtyards under a sky."""

import math

import numpy as np
from jaxtyping import Float64

from lotus.scenes import furniture, objects
from lotus.scenes import materials as m
from lotus.scenes import textures as kinds
from lotus.scenes.description import MAX_LIGHTS, Shape
from lotus.scenes.layout import Layout
from lotus.scenes.solids import Thing, ball, box, placed, rod, soft_box, solid, turn


def outdoors(rng: np.random.Generator) -> Layout:
    """Returns a street, a park or a courtyard at head height, by day or at dusk."""
    make = (_street, _park, _courtyard)[rng.integers(3)]
    thing, reach = make(rng)
    lights, air = daylight(rng)
    eye = np.array([*rng.uniform(-0.7, 0.7, 2) * reach[:2], rng.uniform(0.5, 2.2)])
    heading = (
        rng.normal(0, 0.5) + rng.choice([0.5, -0.5]) * math.pi if make is _street else rng.uniform(0, 6.28)
    )
    aim = eye + rng.uniform(2, 12) * np.array([math.cos(heading), math.sin(heading), 0])
    nearby = [s.centre for s in thing if 1.5 < math.dist(s.centre, eye) < 12 and max(s.half) < 3]
    if nearby and rng.random() < 0.8:
        aim = nearby[rng.integers(len(nearby))] + rng.normal(0, 0.4, 3)
    aim[2] = np.clip(aim[2], 0.2, eye[2] + rng.uniform(-0.3, 1.0))
    return Layout("outdoors", thing, lights, air, eye, aim)


def daylight(rng: np.random.Generator) -> tuple[Float64[np.ndarray, "l 8"], Float64[np.ndarray, "14"]]:
    """Returns sun (or none under clouds) and sky."""
    lights = np.zeros((MAX_LIGHTS, 8))
    height, heading, clouds = rng.uniform(0.15, 1.4), rng.uniform(0, 6.28), rng.uniform(0, 1)
    warm = math.exp(-3 * height)
    if rng.random() < 0.7:
        direction = (
            math.cos(heading) * math.cos(height),
            math.sin(heading) * math.cos(height),
            math.sin(height),
        )
        strength = rng.uniform(0.8, 3.0)
        lights[0] = (
            1 + 1,
            *direction,
            strength,
            strength * (1 - 0.4 * warm),
            strength * (1 - 0.7 * warm),
            0.02,
        )
    else:
        clouds = rng.uniform(0.8, 1.5)
    blue = rng.uniform(0, 1) * (clouds < 1)
    zenith = np.array([0.9 - 0.65 * blue, 0.95 - 0.5 * blue, 1.0 - 0.1 * blue]) * rng.uniform(0.5, 1.1)
    horizon = np.array([0.85, 0.9, 0.95]) * rng.uniform(0.7, 1.2) + warm * np.array([0.3, 0.05, -0.2])
    ambient = (zenith + horizon) * rng.uniform(0.2, 0.5)
    fog = rng.uniform(0.001, 0.03) if rng.random() < 0.25 else 0.0
    return lights, np.array(
        [*ambient, *horizon, *zenith, fog, clouds, rng.uniform(1, 4), 0.6, rng.integers(1000)]
    )


def _street(rng: np.random.Generator) -> tuple[Thing, tuple[float, float]]:
    half, length = rng.uniform(3, 8), 45.0
    walk = rng.uniform(1, 3)
    thing = [box((0, 0, -0.5), (60, 80, 0.5), m.ground(rng))]
    for side in (-1, 1):
        thing.append(box((side * (half + walk / 2), 0, 0.06), (walk / 2, length, 0.06), m.ground(rng)))
        y = -length
        while y < length:
            wide, high, deep = rng.uniform(5, 14), rng.uniform(3.5, 16), rng.uniform(2, 5)
            x = side * (half + walk + deep + rng.choice([0, 0, 1.5]))
            thing.append(box((x, y + wide / 2, high / 2), (deep, wide / 2, high / 2), m.facade(rng)))
            if rng.random() < 0.6:
                front = x - side * deep
                thing.append(box((front, y + wide / 2, 1.1), (0.06, 0.5, 1.1), m.paint(rng)))
                for k in range(rng.integers(0, 4)):
                    pane = m.plain(rng, m.grey(rng, 0.01, 0.15), 0.8)
                    thing.append(
                        box((front, y + wide * (k + 0.5) / 4, rng.uniform(1.4, 4)), (0.05, 0.5, 0.7), pane)
                    )
            y += wide + rng.choice([0, 0, 2.0])
    paint = m.plain(rng, m.grey(rng, 0.4, 0.8), 0.0, 0.5)
    for k in range(-8, 9 if rng.random() < 0.6 else -8):
        thing.append(box((0, 4 * k, 0.002), (0.07, 1.2, 0.003), paint))
    for _ in range(rng.integers(4, 13)):
        side = rng.choice([-1, 1])
        turned = rng.choice([0, math.pi]) + rng.normal(0, 0.05)
        thing += placed(car(rng), (side * (half - 1.1), rng.uniform(-25, 25), 0), turned)
    for _ in range(rng.integers(8, 22)):
        side, y = rng.choice([-1, 1]), rng.uniform(-25, 25)
        one = _street_things[rng.integers(len(_street_things))](rng)
        thing += placed(one, (side * (half + walk * rng.uniform(0.1, 0.8)), y, 0.12), rng.uniform(0, 6.28))
    return thing, (half * 0.9, 20)


def _park(rng: np.random.Generator) -> tuple[Thing, tuple[float, float]]:
    rise = rng.uniform(0.1, 0.6)
    ground = solid(
        Shape.SHEET, (0, 0, -rise), (60, 60, rise), m.ground(rng), objects.waves(rng, rise, 0.05, 0.4)
    )
    thing = [ground, box((0, 0, -2 * rise - 1), (200, 200, 0.5), m.ground(rng))]
    for _ in range(rng.integers(14, 34)):
        make = _park_things[rng.integers(len(_park_things))]
        angle, far = rng.uniform(0, 6.28), 1.5 + 18 * rng.random() ** 1.7
        thing += placed(
            make(rng), (far * math.cos(angle), far * math.sin(angle), -rise * 0.8), rng.uniform(0, 6.28)
        )
    return thing, (3, 3)


def _courtyard(rng: np.random.Generator) -> tuple[Thing, tuple[float, float]]:
    w, d, h = rng.uniform(3, 8), rng.uniform(3, 8), rng.uniform(1.5, 7)
    thing = [box((0, 0, -0.5), (40, 40, 0.5), m.ground(rng))]
    for x, y, a, b in (
        (-w - 0.2, 0, 0.2, d),
        (w + 0.2, 0, 0.2, d),
        (0, d + 0.2, w, 0.2),
        (0, -d - 0.2, w, 0.2),
    ):
        if rng.random() < 0.85:
            high = h * rng.uniform(0.4, 1)
            cover = m.facade(rng) if high > 3 and rng.random() < 0.7 else m.wall(rng)
            thing.append(box((x, y, high / 2), (a, b, high / 2), cover))
    for _ in range(rng.integers(5, 14)):
        x, y = rng.uniform(-0.9, 0.9, 2) * (w, d)
        roll = rng.random()
        if roll < 0.2:
            one = furniture.table(rng, (1.2, 0.8, 0.72), 5)
        elif roll < 0.45:
            one = furniture.chair(rng)
        elif roll < 0.6:
            one = objects.plant(rng, rng.uniform(0.3, 0.8))
        elif roll < 0.7:
            one = objects.lathe(
                rng, rng.uniform(0.15, 0.4), rng.uniform(0.3, 1.0), m.ceramic(rng), is_open=True
            )
        else:
            one = _park_things[rng.integers(len(_park_things))](rng)
        thing += placed(one, (x, y, 0), rng.uniform(0, 6.28))
    return thing, (w * 0.9, d * 0.9)


def car(rng: np.random.Generator) -> Thing:
    """Returns a car along y."""
    paint = m.plain(
        rng, m.grey(rng, 0.01, 0.8) if rng.random() < 0.6 else m.random_colour(rng, 1.0), 1.0, 0.05
    )
    glass, tyre = m.plain(rng, (0.02, 0.02, 0.025), 1.2, 0.0), m.plain(rng, (0.015, 0.015, 0.015))
    w, length, h = rng.uniform(0.8, 0.95), rng.uniform(1.8, 2.5), rng.uniform(0.65, 1.1)
    cabin = solid(Shape.SUPERELLIPSOID, (0, 0.1, h + 0.1), (w * 0.88, length * 0.55, 0.55), glass, (5.0, 3.0))
    roof = solid(Shape.SUPERELLIPSOID, (0, 0.1, h + 0.2), (w * 0.8, length * 0.42, 0.5), paint, (5.0, 4.0))
    thing = [soft_box((0, 0, h / 2 + 0.2), (w, length, h / 2), paint, 0.18), cabin, roof]
    for x in (-w, w):
        for y in (-0.6 * length, 0.6 * length):
            thing.append(rod((x - 0.1, y, 0.32), (x + 0.1, y, 0.32), 0.32, tyre))
    lamp = m.plain(rng, (0.6, 0.05, 0.04), 0.5)
    return [
        *thing,
        box((-0.6, -length, 0.75), (0.18, 0.03, 0.08), lamp),
        box((0.6, -length, 0.75), (0.18, 0.03, 0.08), lamp),
    ]


def tree(rng: np.random.Generator) -> Thing:
    """Returns a tree: trunk, branches, clumps of leaves."""
    height, bark = (
        rng.uniform(2.0, 7.0),
        m.material(rng, kinds.WOOD, (m.wood_colour(rng), (0.03, 0.025, 0.02)), 0.1, bumps=2.0),
    )
    r = 0.03 * height
    top = (*rng.normal(0, 0.05, 2) * height, 0.7 * height)
    thing, leaf = [rod((0, 0, -0.3), top, r, bark, 0.6)], m.leaf(rng)
    for _ in range(rng.integers(4, 11)):
        angle, out = rng.uniform(0, 6.28), height * rng.uniform(0.05, 0.3)
        end = np.array(
            [top[0] + out * math.cos(angle), top[1] + out * math.sin(angle), height * rng.uniform(0.6, 1.05)]
        )
        if len(thing) < 8:
            thing.append(rod((top[0] * 0.6, top[1] * 0.6, 0.45 * height), end, r * 0.35, bark, 0.5))
        size = height * rng.uniform(0.07, 0.2)
        clump = solid(
            Shape.SUPERELLIPSOID, (0, 0, 0), tuple(size * rng.uniform(0.7, 1.2, 3)), leaf, (1.6, 1.8)
        )
        thing += placed([clump], end, rng.uniform(0, 6.28), turn(rng.normal(0, 0.5), 0))
    return thing


def bush(rng: np.random.Generator) -> Thing:
    """Returns a bush or a hedge."""
    leaf = m.leaf(rng)
    if rng.random() < 0.3:
        return [soft_box((0, 0, 0.5), (rng.uniform(0.5, 3), 0.35, rng.uniform(0.4, 0.8)), leaf, 0.15)]
    return [
        ball((*rng.normal(0, 0.3, 2), rng.uniform(0.1, 0.5)), tuple(rng.uniform(0.2, 0.6, 3)), leaf)
        for _ in range(rng.integers(2, 7))
    ]


def rock(rng: np.random.Generator) -> Thing:
    """Returns a boulder."""
    base = m.grey(rng, 0.08, 0.45)
    stone = m.material(rng, kinds.CLOUDS, (base, m.shaded(base, 0.5)), 0.2, bumps=2.0, stains=0.8)
    size = 0.1 + 0.8 * rng.random() ** 2
    one = solid(
        Shape.SUPERELLIPSOID,
        (0, 0, 0),
        tuple(size * rng.uniform(0.4, 1, 3)),
        stone,
        tuple(rng.uniform(1.4, 3, 2)),
    )
    return placed([one], (0, 0, size * 0.2), rng.uniform(0, 6.28), turn(rng.normal(0, 0.4), 0))


def post(rng: np.random.Generator) -> Thing:
    """Returns a street lamp, a sign or a bollard."""
    metal, roll = m.metal(rng), rng.random()
    if roll < 0.3:
        return [rod((0, 0, 0), (0, 0, rng.uniform(0.6, 1.1)), rng.uniform(0.05, 0.1), metal)]
    height = rng.uniform(2.2, 5.5)
    thing = [rod((0, 0, 0), (0, 0, height), rng.uniform(0.03, 0.08), metal, 0.7)]
    if roll < 0.65:
        return [
            *thing,
            rod((0, 0, height), (0, -0.8, height + 0.2), 0.04, metal),
            ball((0, -0.9, height + 0.2), (0.12, 0.3, 0.07), metal),
        ]
    return [
        *thing,
        box(
            (0, -0.06, height - 0.3),
            (0.3, 0.01, 0.3),
            m.material(rng, kinds.PICTURE, (m.random_colour(rng, 1.0),)),
        ),
    ]


def person(rng: np.random.Generator) -> Thing:
    """Returns a standing figure."""
    shirt, trousers = m.fabric(rng), m.fabric(rng)
    skin = m.plain(rng, m.shaded((0.55, 0.33, 0.23), rng.uniform(0.2, 1.2)))
    s, step = rng.uniform(0.75, 1.08), rng.uniform(0, 0.25)
    thing = [
        rod((0.1 * s, 0, 0.9 * s), (0.1 * s, step, 0.02), 0.09 * s, trousers, 0.6),
        rod((-0.1 * s, 0, 0.9 * s), (-0.1 * s, -step, 0.02), 0.09 * s, trousers, 0.6),
        solid(Shape.SUPERELLIPSOID, (0, 0, 1.15 * s), (0.22 * s, 0.14 * s, 0.33 * s), shirt, (2.5, 2.5)),
        ball((0, 0, 1.63 * s), (0.085 * s, 0.1 * s, 0.125 * s), skin),
        ball((0, 0.015, 1.67 * s), (0.09 * s, 0.1 * s, 0.11 * s), m.plain(rng, m.wood_colour(rng))),
        rod((0, 0, 1.4 * s), (0, 0, 1.55 * s), 0.055 * s, skin),
    ]
    for side in (-1, 1):
        elbow = (side * 0.3 * s, rng.uniform(-0.15, 0.1), 1.12 * s)
        hand = (side * rng.uniform(0.15, 0.35) * s, rng.uniform(-0.35, 0), rng.uniform(0.85, 1.2) * s)
        thing += [
            rod((side * 0.2 * s, 0, 1.4 * s), elbow, 0.055 * s, shirt, 0.9),
            rod(elbow, hand, 0.045 * s, shirt, 0.8),
        ]
        thing.append(ball(hand, (0.05 * s, 0.05 * s, 0.06 * s), skin))
    return thing


def bench(rng: np.random.Generator) -> Thing:
    """Returns a park bench of slats."""
    plank, iron = m.wood(rng), m.metal(rng)
    thing = [box((0, -0.15 + 0.13 * k, 0.45), (0.8, 0.05, 0.02), plank) for k in range(4)]
    thing += [box((0, 0.32 + 0.03 * k, 0.6 + 0.14 * k), (0.8, 0.015, 0.05), plank) for k in range(3)]
    for x in (-0.65, 0.65):
        thing += [
            box((x, 0.05, 0.22), (0.03, 0.22, 0.22), iron),
            rod((x, 0.28, 0.4), (x, 0.42, 0.95), 0.025, iron),
        ]
    return thing


def bin_(rng: np.random.Generator) -> Thing:
    """Returns a litter bin or a barrel."""
    return objects.lathe(
        rng, rng.uniform(0.2, 0.35), rng.uniform(0.5, 1.0), m.paint(rng), is_open=bool(rng.random() < 0.5)
    )


_street_things = (tree, post, post, person, person, bench, bin_, bush)
_park_things = (tree, tree, bush, bush, rock, rock, person, bench, bin_, post)
