"""Furniture: what stands on floors and hangs on walls. Sizes are (width, depth, height), m; front toward -y."""

import numpy as np

from lotus.scenes import materials as m
from lotus.scenes import objects
from lotus.scenes import textures as kinds
from lotus.scenes.description import Shape
from lotus.scenes.solids import Thing, ball, box, placed, rod, soft_box, solid, turn

Size = tuple[float, float, float]


def _legs(rng: np.random.Generator, x: float, y: float, height: float, material) -> Thing:
    radius = rng.uniform(0.01, 0.035)
    corners = [(-x, -y), (x, -y), (-x, y), (x, y)]
    if rng.random() < 0.5:
        return [box((a, b, height / 2), (radius, radius, height / 2), material) for a, b in corners]
    spread = rng.choice([1.0, 1.15])
    return [rod((a, b, height), (a * spread, b * spread, 0), radius, material) for a, b in corners]


def table(rng: np.random.Generator, size: Size, cluttered: int, choice=objects.SMALL) -> Thing:
    """Returns a table with things on it."""
    w, d, h = size
    top, thick = (m.wood(rng) if rng.random() < 0.6 else m.paint(rng)), rng.uniform(0.01, 0.03)
    legs = top if rng.random() < 0.4 else m.metal(rng)
    if rng.random() < 0.2:
        board = [
            solid(Shape.CONE, (0, 0, h - thick), (w / 2, d / 2, thick), top, (1.0,)),
            rod((0, 0, 0), (0, 0, h - thick), 0.05, legs),
        ]
    else:
        board = [soft_box((0, 0, h - thick), (w / 2, d / 2, thick), top, rng.choice([0.002, 0.01]))]
        board += _legs(rng, w / 2 - 0.05, d / 2 - 0.05, h - 2 * thick, legs)
    return board + placed(objects.clutter(rng, cluttered, (0.42 * w, 0.4 * d), choice), (0, 0, h))


def desk(rng: np.random.Generator, size: Size) -> Thing:
    """Returns a desk with a computer, things, and drawers under it."""
    w, d, h = size
    thing = table(rng, size, int(rng.integers(2, 8)), objects.DESK)
    thing += placed(objects.screen(rng), (rng.uniform(-0.2, 0.2) * w, 0.25 * d, h), rng.normal(0, 0.2))
    thing += placed(objects.keyboard(rng), (rng.uniform(-0.1, 0.1) * w, -0.2 * d, h), rng.normal(0, 0.1))
    if rng.random() < 0.6:
        thing += placed(
            cabinet(rng, (0.4, d * 0.8, h * 0.8), 0), (rng.choice([-1, 1]) * (w / 2 - 0.25), 0, 0)
        )
    return thing


def chair(rng: np.random.Generator) -> Thing:
    """Returns a chair with thin legs, or an office chair."""
    seat, cushion = rng.uniform(0.42, 0.5), m.fabric(rng) if rng.random() < 0.5 else m.wood(rng)
    frame = m.metal(rng) if rng.random() < 0.5 else m.wood(rng)
    w, back = rng.uniform(0.19, 0.26), rng.uniform(0.35, 0.6)
    thing = [soft_box((0, 0, seat), (w, w, rng.uniform(0.012, 0.045)), cushion, 0.03)]
    if rng.random() < 0.35:  # office chair
        thing.append(rod((0, 0, 0.1), (0, 0, seat), 0.025, frame))
        for k in range(5):
            x, y = 0.28 * np.cos(1.257 * k), 0.28 * np.sin(1.257 * k)
            thing += [
                rod((0, 0, 0.12), (x, y, 0.06), 0.018, frame),
                ball((x, y, 0.03), (0.03, 0.03, 0.03), frame),
            ]
        rest = soft_box((0, 0, back / 2 + 0.05), (w, 0.03, back / 2), cushion, 0.06)
        return thing + placed([rest], (0, w, seat), 0, turn(-0.15, 0))
    thing += _legs(rng, w - 0.02, w - 0.02, seat, frame)
    posts = [rod((x, w, seat), (x, w + 0.06, seat + back), 0.014, frame) for x in (-w + 0.02, w - 0.02)]
    if rng.random() < 0.5:
        rest = [soft_box((0, w + 0.03, seat + back * 0.75), (w, 0.012, back * 0.25), cushion, 0.01)]
    else:
        n = int(rng.integers(3, 6))
        rest = [
            rod((x, w, seat), (x, w + 0.06, seat + back), 0.008, frame)
            for x in np.linspace(-w, w, n + 2)[1:-1]
        ]
        rest.append(rod((-w, w + 0.06, seat + back), (w, w + 0.06, seat + back), 0.016, frame))
    return thing + posts + rest


def cabinet(rng: np.random.Generator, size: Size, cluttered: int) -> Thing:
    """Returns a cupboard or chest of drawers, with things on top."""
    w, d, h = size
    front = m.wood(rng) if rng.random() < 0.5 else m.paint(rng)
    thing = [box((0, 0, h / 2), (w / 2, d / 2, h / 2), front if rng.random() < 0.7 else m.paint(rng))]
    columns, rows = max(1, round(w / 0.5)), max(1, round(h / rng.uniform(0.2, 0.7)))
    knob = m.metal(rng)
    gap, lift = 0.006, rng.choice([0.004, 0.012])
    for i in range(columns):
        for j in range(rows):
            x, z = (i + 0.5) * w / columns - w / 2, (j + 0.5) * h / rows
            thing.append(box((x, -d / 2, z), (w / columns / 2 - gap, lift, h / rows / 2 - gap), front))
            at = (x + rng.choice([0, 0.3]) * w / columns, -d / 2 - lift - 0.01, z)
            thing.append(
                ball(at, (0.015, 0.015, 0.015), knob)
                if len(thing) % 3
                else box(at, (0.05, 0.01, 0.006), knob)
            )
    return thing + placed(objects.clutter(rng, cluttered, (0.4 * w, 0.35 * d)), (0, 0, h))


def shelf(rng: np.random.Generator, size: Size, fullness: float = 0.8) -> Thing:
    """Returns shelves full of books and things."""
    w, d, h = size
    board, t = (m.wood(rng) if rng.random() < 0.6 else m.paint(rng)), 0.012
    thing = [box((x, 0, h / 2), (t, d / 2, h / 2), board) for x in (-w / 2, w / 2)]
    thing.append(box((0, d / 2, h / 2), (w / 2, 0.004, h / 2), board))
    rows = max(2, round(h / rng.uniform(0.28, 0.42)))
    for j in range(rows + 1):
        level = (h - 2 * t) * j / rows
        thing.append(box((0, 0, level + t), (w / 2, d / 2, t), board))
        if j == rows or rng.random() > fullness:
            continue
        room = (h - 2 * t) / rows - 2 * t
        if rng.random() < 0.3:
            thing += placed(objects.clutter(rng, 3, (0.35 * w, 0.2 * d)), (0, 0, level + 2 * t))
            continue
        thing += placed(row_of_books(rng, w * 0.94, d * 0.7, room), (-0.47 * w, -0.05 * d, level + 2 * t))
    return thing


def row_of_books(rng: np.random.Generator, length: float, depth: float, room: float) -> Thing:
    """Returns books that stand from x = 0 on, some missing, the last leaning."""
    thing, x = [], 0.0
    while x < length - 0.06 and len(thing) < 16:
        thick, high = rng.uniform(0.012, 0.05), room * rng.uniform(0.6, 0.95)
        if rng.random() < 0.1:
            x += rng.uniform(0.03, 0.2)
        one = [box((0, 0, high / 2), (thick / 2, depth / 2 * rng.uniform(0.8, 1), high / 2), m.spine(rng))]
        lean = rng.uniform(0.1, 0.3) if rng.random() < 0.07 else 0.0
        thing += placed(one, (x + thick / 2 + lean * 0.1, rng.normal(0, 0.008), 0), 0, turn(lean, 1))
        x += thick + lean * high + 0.001
    return thing


def sofa(rng: np.random.Generator, width: float) -> Thing:
    """Returns a sofa or armchair with cushions and rounded edges."""
    cover, d, r = m.fabric(rng), rng.uniform(0.75, 0.95), rng.uniform(0.04, 0.1)
    seat, back, arm = rng.uniform(0.36, 0.46), rng.uniform(0.7, 0.95), rng.uniform(0.08, 0.14)
    thing = [
        soft_box((0, 0, seat / 2), (width / 2, d / 2, seat / 2 - 0.03), cover, r),
        soft_box((0, d / 2 - 0.12, back / 2), (width / 2, 0.13, back / 2), cover, r),
        soft_box((-width / 2 + arm, 0, 0.3), (arm, d / 2, 0.3), cover, r),
        soft_box((width / 2 - arm, 0, 0.3), (arm, d / 2, 0.3), cover, r),
    ]
    n = max(1, round((width - 4 * arm) / 0.65))
    w = (width - 4 * arm) / n / 2
    for i in range(n):
        x = -width / 2 + 2 * arm + (2 * i + 1) * w
        thing.append(soft_box((x, -0.08, seat + 0.04), (w * 0.98, d / 2 - 0.1, 0.08), cover, 0.07))
    for _ in range(rng.integers(0, 4)):
        pillow = solid(Shape.SUPERELLIPSOID, (0, 0, 0), (0.22, 0.22, 0.09), m.fabric(rng), (4.0, 2.0))
        at = (rng.uniform(-0.4, 0.4) * width, 0.1, seat + 0.28)
        thing += placed([pillow], at, rng.normal(0, 0.4), turn(rng.uniform(0.8, 1.4), 0))
    if rng.random() < 0.3:
        thing += placed(objects.cloth(rng, 0.4), (rng.uniform(-0.3, 0.3) * width, -0.1, seat + 0.1))
    return thing


def bed(rng: np.random.Generator, width: float) -> Thing:
    """Returns a bed, its head toward +y."""
    frame, cover = m.wood(rng), m.fabric(rng)
    thing = [
        box((0, 0, 0.15), (width / 2, 1.0, 0.15), frame),
        soft_box((0, 0, 0.4), (width / 2, 0.98, 0.14), m.fabric(rng), 0.06),
        soft_box((0, 1.0, 0.5), (width / 2, 0.04, 0.5), frame, 0.02),
        solid(
            Shape.SHEET,
            (0, -0.3, 0.58),
            (width / 2 + 0.05, 0.7, 0.05),
            cover,
            objects.waves(rng, 0.05, 4, 18),
        ),
    ]
    for x in (-0.25 * width, 0.25 * width):
        pillow = solid(Shape.SUPERELLIPSOID, (x, 0.7, 0.6), (0.3, 0.2, 0.1), m.fabric(rng), (4.0, 2.0))
        thing += placed([pillow], (0, 0, 0), rng.normal(0, 0.05))
    return thing


def curtain(rng: np.random.Generator, width: float, height: float) -> Thing:
    """Returns a hanging wavy curtain, in the plane y = 0."""
    deep, k = rng.uniform(0.02, 0.06), rng.uniform(20, 60)
    form = [0.6 * deep, k, rng.normal(0, 0.2), rng.uniform(0, 6)] + [
        0.38 * deep,
        0.43 * k,
        rng.normal(0, 0.5),
        0.0,
    ]
    sheet = solid(Shape.SHEET, (0, 0, 0), (width / 2, height / 2, deep), m.fabric(rng), form)
    return placed([sheet], (0, 0, height / 2), 0, turn(np.pi / 2, 0))


def kitchen(rng: np.random.Generator, width: float) -> Thing:
    """Returns a counter with a sink and machines, and cupboards over it."""
    thing = cabinet(rng, (width, 0.6, 0.86), 0)
    top = m.plain(rng, m.grey(rng, 0.05, 0.6), 0.4) if rng.random() < 0.6 else m.wood(rng)
    thing.append(box((0, -0.01, 0.88), (width / 2 + 0.01, 0.32, 0.02), top))
    thing += placed(objects.clutter(rng, int(rng.integers(3, 10)), (0.45 * width, 0.22)), (0, 0, 0.9))
    for _ in range(rng.integers(1, 4)):
        machine = appliance(rng)
        thing += placed(machine, (rng.uniform(-0.4, 0.4) * width, 0.08, 0.9), rng.normal(0, 0.1))
    tap = m.metal(rng)
    x = rng.uniform(-0.3, 0.3) * width
    thing += [rod((x, 0.2, 0.9), (x, 0.2, 1.15), 0.012, tap), rod((x, 0.2, 1.15), (x, 0.02, 1.12), 0.01, tap)]
    thing.append(box((x, 0, 0.903), (0.25, 0.2, 0.003), m.metal(rng)))
    if rng.random() < 0.7:
        thing += placed(cabinet(rng, (width, 0.35, 0.65), 0), (0, 0.12, 1.4))
    return thing


def appliance(rng: np.random.Generator) -> Thing:
    """Returns a microwave, coffee machine, toaster or kettle."""
    case = m.plastic(rng) if rng.random() < 0.5 else m.metal(rng)
    w, d, h = rng.uniform(0.1, 0.26), rng.uniform(0.1, 0.18), rng.uniform(0.08, 0.2)
    if rng.random() < 0.3:
        return objects.lathe(rng, 0.09, 0.22, case, is_open=False)
    door = m.material(rng, kinds.PLAIN, (m.grey(rng, 0.005, 0.05),), shine=0.8, gloss=80)
    return [
        soft_box((0, 0, h), (w, d, h), case, 0.015),
        box((-0.15 * w, -d, h), (0.7 * w, 0.004, 0.7 * h), door),
        ball((0.8 * w, -d, h), (0.015, 0.015, 0.015), m.metal(rng)),
    ]


def hanging(rng: np.random.Generator) -> Thing:
    """Returns a picture, poster, board or clock, its back at y = 0, its centre at the origin."""
    w, h = rng.uniform(0.12, 0.6), rng.uniform(0.12, 0.5)
    roll = rng.random()
    if roll > 0.85:
        return pinboard(rng)
    if roll < 0.12:
        face = m.plain(rng, m.grey(rng, 0.5, 0.85))
        disc = solid(Shape.CONE, (0, 0, 0), (0.15, 0.15, 0.02), face, (0.95,))
        return placed([disc], (0, -0.02, 0), 0, turn(np.pi / 2, 0))
    picture = m.material(
        rng, kinds.PICTURE if roll < 0.75 else kinds.TEXT, (m.grey(rng, 0.6, 0.9), m.grey(rng, 0, 0.2)), 0.04
    )
    if rng.random() < 0.4:
        return [box((0, -0.003, 0), (w, 0.002, h), picture)]
    frame = m.wood(rng) if rng.random() < 0.5 else m.paint(rng)
    return [
        box((0, -0.012, 0), (w, 0.012, h), frame),
        box((0, -0.024, 0), (0.88 * w, 0.002, h - 0.12 * w), picture),
    ]


def window(rng: np.random.Generator, width: float, height: float) -> Thing:
    """Returns a bright window with bars, its back at y = 0, its lower edge at z = 0."""
    view = m.material(
        rng,
        kinds.PICTURE if rng.random() < 0.5 else kinds.CLOUDS,
        (m.random_colour(rng, 0.3, 0.4, 0.9), m.random_colour(rng, 0.5, 0.1, 0.9)),
        0.5,
        emission=rng.uniform(0.3, 5),
    )
    bar = m.paint(rng) if rng.random() < 0.3 else m.plain(rng, m.grey(rng, 0.5, 0.85))
    thing = [box((0, -0.01, height / 2), (width / 2, 0.005, height / 2), view)]
    for x in np.linspace(-width / 2, width / 2, int(rng.integers(2, 5))):
        thing.append(box((x, -0.03, height / 2), (0.03, 0.03, height / 2), bar))
    for z in np.linspace(0, height, int(rng.integers(2, 4))):
        thing.append(box((0, -0.03, z), (width / 2 + 0.03, 0.03, 0.03), bar))
    thing.append(box((0, -0.08, -0.03), (width / 2 + 0.08, 0.1, 0.015), bar))
    if rng.random() < 0.5:
        for side in (-1, 1):
            thing += placed(curtain(rng, 0.45, height + 0.5), (side * (width / 2 + 0.1), -0.2, -0.35))
    return thing


def door(rng: np.random.Generator) -> Thing:
    """Returns a door in its frame, its back at y = 0."""
    leaf, frame = (m.wood(rng) if rng.random() < 0.5 else m.paint(rng)), m.paint(rng)
    return [
        box((0, -0.02, 1.03), (0.5, 0.02, 1.03), frame),
        box((0, -0.03, 1.0), (0.43, 0.03, 1.0), leaf),
        rod((0.35, -0.11, 1.02), (0.25, -0.11, 1.02), 0.012, m.metal(rng)),
    ]


def pinboard(rng: np.random.Generator) -> Thing:
    """Returns a board with papers pinned to it, its back at y = 0, its centre at the origin."""
    w, h = rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.5)
    cork = m.material(rng, kinds.CARPET, (m.wood_colour(rng), m.wood_colour(rng)), 0.01)
    thing = [box((0, -0.01, 0), (w, 0.01, h), cork if rng.random() < 0.5 else m.paint(rng))]
    for _ in range(rng.integers(3, 14)):
        x, z = rng.uniform(-0.85, 0.85, 2) * (w, h)
        a = rng.uniform(0.04, 0.11)
        page = box((0, 0, 0), (a, 0.001, a * rng.uniform(0.6, 1.45)), m.paper(rng))
        thing += placed([page], (x, -0.021 - 0.003 * rng.random(), z), 0, turn(rng.normal(0, 0.08), 1))
    return thing
