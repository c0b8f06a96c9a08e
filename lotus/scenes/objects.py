"""Small things that lie about: cups, bottles, books, boxes, screens, plants, cables, crumpled cloth."""

import math
from collections.abc import Callable

import numpy as np

from lotus.scenes import materials as m
from lotus.scenes import textures as kinds
from lotus.scenes.description import Shape
from lotus.scenes.solids import Thing, ball, box, placed, rod, soft_box, solid, turn

STEPS = np.linspace(0, 1, 8)  # where a profile's radii are given


def lathe(
    rng: np.random.Generator, radius: float, height: float, material: m.Material, *, is_open: bool
) -> Thing:
    """Returns a vase, bottle, bowl or cup of a random profile."""
    style = rng.integers(4)
    k = STEPS
    if style == 0:  # bottle
        profile = np.where(k < rng.uniform(0.4, 0.65), 1.0, rng.uniform(0.2, 0.4))
    elif style == 1:  # vase
        profile = 0.6 + 0.4 * np.sin(k * rng.uniform(2, 5) + rng.uniform(0, 3))
    elif style == 2:  # bowl, cup
        profile = rng.uniform(0.4, 1) + (1 - k[::-1] ** 2) * rng.uniform(0, 0.6)
    else:
        profile = rng.uniform(0.35, 1, 8)
    profile = profile / profile.max() * 0.999
    return [
        solid(
            Shape.LATHE,
            (0, 0, height / 2),
            (radius, radius, height / 2),
            material,
            (*profile, float(is_open)),
        )
    ]


def cup(rng: np.random.Generator) -> Thing:
    """Returns a mug with a handle."""
    radius, height, material = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.12), m.ceramic(rng)
    taper = rng.uniform(0.75, 1.0)
    profile = np.linspace(taper, 1.0, 8) * 0.999
    body = solid(Shape.LATHE, (0, 0, height / 2), (radius, radius, height / 2), material, (*profile, 1.0))
    drink = box(
        (0, 0, height * 0.6),
        (radius * 0.6, radius * 0.6, 0.001),
        m.plain(rng, m.random_colour(rng, 0.8, 0.01, 0.3)),
    )
    r = height * 0.3
    handle = solid(Shape.TORUS, (radius + 0.3 * r, 0, height / 2), (r, r, 0.006), material)
    handle = handle._replace(rotation=turn(math.pi / 2, 0))
    return placed([body, drink, handle], (0, 0, 0), rng.uniform(0, 6.28))


def bottle(rng: np.random.Generator) -> Thing:
    """Returns a bottle, can or vase."""
    radius = rng.uniform(0.025, 0.06)
    material = m.ceramic(rng) if rng.random() < 0.6 else m.plastic(rng)
    return lathe(rng, radius, radius * rng.uniform(2, 7), material, is_open=rng.random() < 0.3)


def bowl(rng: np.random.Generator) -> Thing:
    """Returns a plate, bowl or basket, sometimes with fruit."""
    radius = rng.uniform(0.07, 0.16)
    height = radius * rng.uniform(0.15, 0.8)
    profile = np.linspace(rng.uniform(0.4, 0.8), 0.999, 8) ** rng.uniform(0.5, 1.2)
    thing = [
        solid(Shape.LATHE, (0, 0, height / 2), (radius, radius, height / 2), m.ceramic(rng), (*profile, 1.0))
    ]
    for _ in range(rng.integers(0, 5)):
        x, y = rng.uniform(-0.4, 0.4, 2) * radius
        r = rng.uniform(0.025, 0.045)
        thing.append(
            ball((x, y, r), (r, r, r * rng.uniform(0.8, 1.2)), m.plain(rng, m.random_colour(rng, 1.0), 0.3))
        )
    return thing


def book(rng: np.random.Generator) -> Thing:
    """Returns a book or magazine lying flat, or a pile of them."""
    thing, height = [], 0.0
    for _ in range(rng.choice([1, 1, 2, 4])):
        x, y, z = rng.uniform(0.06, 0.11), rng.uniform(0.09, 0.15), rng.uniform(0.003, 0.025)
        cover = (
            m.material(rng, kinds.PICTURE, (m.random_colour(rng),)) if rng.random() < 0.5 else m.spine(rng)
        )
        thing += placed([box((0, 0, z), (x, y, z), cover)], (0, 0, height), rng.normal(0, 0.2))
        height += 2 * z
    return thing


def sheet_of_paper(rng: np.random.Generator) -> Thing:
    """Returns a page."""
    x, y = rng.choice([0.074, 0.105, 0.148]), rng.choice([0.105, 0.148, 0.21])
    return [box((0, 0, 0.0006), (x, y, 0.0006), m.paper(rng))]


def carton(rng: np.random.Generator) -> Thing:
    """Returns a box of cardboard or a packet."""
    x, y, z = rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.14)
    roll = rng.random()
    colour = m.wood_colour(rng) if roll < 0.4 else m.random_colour(rng, 0.9)
    cover = m.plain(rng, colour) if roll < 0.6 else m.material(rng, kinds.PICTURE, (colour,))
    return [soft_box((0, 0, z), (x, y, z), cover, rng.choice([0.001, 0.004, 0.015]))]


def screen(rng: np.random.Generator) -> Thing:
    """Returns a monitor on its foot."""
    w, h, lift = rng.uniform(0.2, 0.36), rng.uniform(0.14, 0.22), rng.uniform(0.06, 0.14)
    case = m.plain(rng, m.grey(rng, 0.01, 0.06) if rng.random() < 0.8 else m.grey(rng, 0.5, 0.8), 0.3)
    is_on = rng.random() < 0.6
    picture = m.material(
        rng,
        kinds.SCREEN if is_on else kinds.PLAIN,
        (m.grey(rng, 0.3, 0.9), m.random_colour(rng, 0.6)) if is_on else ((0.012, 0.012, 0.014),),
        emission=rng.uniform(0.4, 1.2) if is_on else 0.0,
        shine=0.5,
        gloss=100,
    )
    panel = [
        soft_box((0, 0, lift + h), (w, 0.02, h), case, 0.008),
        box((0, -0.0195, lift + h), (w - 0.012, 0.002, h - 0.012), picture),
        rod((0, 0.03, 0), (0, 0.03, lift + h), 0.02, case),
    ]
    return [*placed(panel, (0, 0, 0)), soft_box((0, 0.03, 0.01), (0.12, 0.09, 0.01), case, 0.005)]


def keyboard(rng: np.random.Generator) -> Thing:
    """Returns a keyboard and a mouse."""
    case = m.grey(rng, 0.01, 0.08) if rng.random() < 0.7 else m.grey(rng, 0.5, 0.8)
    keys = m.material(rng, kinds.KEYS, (m.shaded(case, 0.3), m.shaded(case, 1.5)), 0.019)
    board = soft_box((0, 0, 0.01), (rng.uniform(0.14, 0.23), 0.065, 0.01), keys, 0.004)
    mouse = solid(Shape.SUPERELLIPSOID, (0.3, 0, 0.012), (0.03, 0.052, 0.018), m.plastic(rng), (2.5, 2.2))
    return [board, mouse]


def laptop(rng: np.random.Generator) -> Thing:
    """Returns an open laptop."""
    case = m.grey(rng, 0.02, 0.5)
    w, d = rng.uniform(0.14, 0.19), rng.uniform(0.1, 0.13)
    keys = m.material(rng, kinds.KEYS, (m.shaded(case, 0.8), (0.02, 0.02, 0.02)), 0.019)
    lid = [
        soft_box((0, 0, d), (w, 0.004, d), m.plain(rng, case, 0.3), 0.003),
        box(
            (0, -0.004, d),
            (w - 0.008, 0.001, d - 0.008),
            m.material(
                rng, kinds.SCREEN, (m.grey(rng, 0.2, 0.9), m.random_colour(rng)), emission=rng.uniform(0.3, 1)
            ),
        ),
    ]
    lid = placed(lid, (0, d, 0.015), 0, turn(-rng.uniform(0.0, 0.6), 0))
    return [soft_box((0, 0, 0.008), (w, d, 0.008), keys, 0.003), *lid]


def plant(rng: np.random.Generator, size: float = 0.1) -> Thing:
    """Returns a pot with leaves."""
    pot = lathe(rng, size * 0.4, size * 0.7, m.ceramic(rng), is_open=False)
    thing, leaf = [*pot], m.leaf(rng)
    for _ in range(rng.integers(8, 24)):
        direction = rng.normal(0, 1, 3)
        direction[2] = abs(direction[2]) + 0.3
        direction *= size * rng.uniform(0.5, 1.3) / np.linalg.norm(direction)
        direction[2] += size * 0.7
        long, wide = size * rng.uniform(0.2, 0.45), size * rng.uniform(0.05, 0.16)
        blade = ball((0, 0, 0), (wide, long, size * 0.012), leaf)
        thing += placed([blade], direction, rng.uniform(0, 6.28), turn(rng.uniform(-0.8, 1.2), 0))
    return thing


def cable(rng: np.random.Generator) -> Thing:
    """Returns a cable that lies in bends."""
    material = m.plain(rng, m.grey(rng, 0.01, 0.04) if rng.random() < 0.7 else m.random_colour(rng), 0.2)
    radius, heading = rng.uniform(0.002, 0.005), rng.uniform(0, 6.28)
    point, thing = (0.0, 0.0, radius), []
    for _ in range(rng.integers(4, 9)):
        heading += rng.normal(0, 0.7)
        length = rng.uniform(0.05, 0.12)
        after = (point[0] + length * math.cos(heading), point[1] + length * math.sin(heading), radius)
        thing += [rod(point, after, radius, material), ball(after, (radius, radius, radius), material)]
        point = after
    return thing


def ring(rng: np.random.Generator) -> Thing:
    """Returns a ring: tape, bracelet, wreath."""
    size = rng.uniform(0.02, 0.08)
    tube = size * rng.uniform(0.1, 0.35)
    return [solid(Shape.TORUS, (0, 0, tube), (size, size, tube), m.anything(rng))]


def blob(rng: np.random.Generator, size: float | None = None) -> Thing:
    """Returns a superellipsoid, ball or soft box in any attitude."""
    size = rng.uniform(0.02, 0.08) if size is None else size
    half = tuple(size * rng.uniform(0.4, 1, 3))
    form = (rng.uniform(1.1, 6), rng.uniform(1.1, 6))
    one = solid(Shape.SUPERELLIPSOID, (0, 0, 0), half, m.anything(rng), form)
    if rng.random() < 0.5:
        return placed([one], (0, 0, half[2]), rng.uniform(0, 6.28))
    return placed([one], (0, 0, size * 0.6), rng.uniform(0, 6.28), turn(rng.uniform(0, 6.28), 0))


def pens(rng: np.random.Generator) -> Thing:
    """Returns pens that lie, or stand in a beaker."""
    thing = []
    for _ in range(rng.integers(1, 5)):
        pen = rod(
            (-0.07, 0, 0.005),
            (0.07, 0, 0.005),
            rng.uniform(0.003, 0.006),
            m.plastic(rng),
            rng.uniform(0.5, 1),
        )
        thing += placed([pen], (*rng.uniform(-0.05, 0.05, 2), 0), rng.uniform(0, 6.28))
    return thing


def cloth(rng: np.random.Generator, size: float | None = None) -> Thing:
    """Returns a crumpled cloth."""
    size = rng.uniform(0.08, 0.25) if size is None else size
    height = size * rng.uniform(0.08, 0.25)
    form = waves(rng, height, 2.5 / size, 9.0 / size)
    return [
        solid(Shape.SHEET, (0, 0, height), (size, size * rng.uniform(0.5, 1), height), m.fabric(rng), form)
    ]


def waves(rng: np.random.Generator, height: float, slow: float | int, fast: float | int) -> list[float]:
    """Returns the form of a sheet of 5 waves that stays within a height; frequencies in rad/m."""
    frequencies = np.geomspace(slow, fast, 5)
    amplitudes = frequencies**-1.0 * rng.uniform(0.3, 1, 5)
    amplitudes *= 0.98 * height / amplitudes.sum()
    angles, phases = rng.uniform(0, 6.28, (2, 5))
    columns = (amplitudes, frequencies * np.cos(angles), frequencies * np.sin(angles), phases)
    return np.stack(columns, axis=1).ravel().tolist()


def lamp(rng: np.random.Generator) -> Thing:
    """Returns a table lamp."""
    metal, height = m.metal(rng), rng.uniform(0.25, 0.5)
    shade = m.material(
        rng, kinds.PLAIN, (m.random_colour(rng, 0.3, 0.4, 0.9),), emission=rng.choice([0.5, 1.2, 2.0])
    )
    r = rng.uniform(0.08, 0.16)
    return [
        solid(Shape.CONE, (0, 0, 0.01), (0.08, 0.08, 0.01), metal, (0.9,)),
        rod((0, 0, 0), (0, 0, height), 0.008, metal),
        solid(Shape.CONE, (0, 0, height), (r, r, r * 0.7), shade, (rng.uniform(0.4, 1),)),
    ]


def contraption(rng: np.random.Generator, size: float | None = None) -> Thing:
    """Returns a machine of bars, wheels, tanks and hoses, such as a bicycle, a tool or a toy might be."""
    size = rng.uniform(0.05, 0.15) if size is None else size
    skins = [m.metal(rng), m.metal(rng), m.plastic(rng), m.anything(rng)]
    reach = (size, 0.35 * size, 0.5 * size)
    joints = (rng.uniform(-1, 1, (7, 3)) * reach + (0, 0, 0.6 * size)).tolist()
    thing = []
    for _ in range(rng.integers(5, 14)):
        a, b = rng.choice(7, 2, replace=False)
        thing.append(
            rod(
                joints[a],
                joints[b],
                size * rng.uniform(0.015, 0.06),
                skins[rng.integers(4)],
                rng.uniform(0.4, 1),
            )
        )
    for _ in range(rng.integers(1, 4)):
        r = size * rng.uniform(0.2, 0.45)
        wheel = solid(Shape.TORUS, (0, 0, 0), (r, r, r * rng.uniform(0.05, 0.2)), skins[rng.integers(4)])
        hub = solid(Shape.CONE, (0, 0, 0), (0.2 * r, 0.2 * r, 0.15 * r), skins[0], (1.0,))
        spokes = [rod((0, 0, 0), (r * math.cos(k), r * math.sin(k), 0), 0.02 * r, skins[1]) for k in range(6)]
        at = (rng.choice([-0.7, 0.7]) * size, 0.1 * size * rng.normal(), r)
        thing += placed([wheel, hub, *spokes], at, rng.normal(0, 0.2), turn(math.pi / 2, 0))
    for joint in joints[: rng.integers(1, 5)]:
        half = tuple(size * rng.uniform(0.06, 0.35, 3))
        form = tuple(rng.uniform(1.5, 5, 2))
        thing += placed(
            [solid(Shape.SUPERELLIPSOID, (0, 0, 0), half, skins[rng.integers(4)], form)], joint, rng.normal()
        )
    return thing


def monument(rng: np.random.Generator, size: float | None = None) -> Thing:
    """Returns a pile of turned and hewn pieces of one stone: a fountain, column, statue, or chess piece."""
    size = rng.uniform(0.05, 0.12) if size is None else size
    base = m.random_colour(rng, 0.5, 0.05, 0.6)
    stone = m.material(rng, kinds.CLOUDS, (base, m.shaded(base, 0.6)), 0.4 * size, bumps=1.0, stains=0.4)
    thing, level, r = [], 0.0, size * rng.uniform(0.4, 0.8)
    for _ in range(rng.integers(2, 6)):
        high = size * rng.uniform(0.1, 0.7)
        roll = rng.random()
        if roll < 0.4:
            piece = lathe(rng, r, high, stone, is_open=False)
        elif roll < 0.6:
            piece = [soft_box((0, 0, high / 2), (r, r * rng.uniform(0.6, 1), high / 2), stone, 0.1 * r)]
        elif roll < 0.8:
            piece = [
                solid(
                    Shape.SUPERELLIPSOID,
                    (0, 0, high / 2),
                    (r, r, high / 2),
                    stone,
                    tuple(rng.uniform(1.3, 5, 2)),
                )
            ]
        else:
            n, out = int(rng.integers(3, 7)), 0.75 * r
            spots = [(out * math.cos(6.2832 * k / n), out * math.sin(6.2832 * k / n)) for k in range(n)]
            piece = [rod((x, y, 0), (x, y, high), 0.15 * r, stone, rng.uniform(0.7, 1)) for x, y in spots]
            piece.append(box((0, 0, high), (r, r, 0.06 * size), stone))
        thing += placed(piece, (0, 0, level), rng.uniform(0, 6.28))
        level += high * 0.97
        r *= rng.uniform(0.6, 1.15)
    return thing


def stool(rng: np.random.Generator) -> Thing:
    """Returns a round stool, pouf, drum, bucket or floor vase."""
    r, h = rng.uniform(0.15, 0.3), rng.uniform(0.25, 0.65)
    roll = rng.random()
    if roll < 0.35:
        return lathe(rng, r, h, m.ceramic(rng), is_open=bool(rng.random() < 0.6))
    if roll < 0.65:
        return [
            solid(
                Shape.SUPERELLIPSOID,
                (0, 0, h / 2),
                (r * 1.3, r * 1.3, h / 2),
                m.fabric(rng),
                (2.0, rng.uniform(2, 5)),
            )
        ]
    seat, legs = m.anything(rng), m.metal(rng)
    spots = [(0.8 * r * math.cos(k), 0.8 * r * math.sin(k)) for k in (0.5, 2.6, 4.7)]
    thing = [rod((x, y, h), (1.3 * x, 1.3 * y, 0), 0.012, legs) for x, y in spots]
    return [*thing, solid(Shape.CONE, (0, 0, h), (r, r, 0.02), seat, (0.95,))]


Choice = tuple[Callable[[np.random.Generator], Thing], ...]
SMALL: Choice = (
    cup,
    bottle,
    bowl,
    book,
    sheet_of_paper,
    carton,
    cable,
    ring,
    blob,
    pens,
    cloth,
    plant,
    contraption,
    monument,
)
DESK: Choice = (screen, keyboard, laptop, lamp, cup, book, sheet_of_paper, pens, cable, bottle, carton)


def clutter(
    rng: np.random.Generator, count: int, reach: tuple[float, float], choice: Choice = SMALL
) -> Thing:
    """Returns things that lie about on z = 0 within reach (half sizes) of the origin."""
    thing = []
    for _ in range(count):
        make = choice[rng.integers(len(choice))]
        x, y = rng.uniform(-1, 1) * reach[0], rng.uniform(-1, 1) * reach[1]
        yaw = rng.normal(0, 0.25) if make in (screen, keyboard, laptop) else rng.uniform(0, 6.28)
        thing += placed(make(rng), (x, y, 0.0005), yaw)
    return thing
