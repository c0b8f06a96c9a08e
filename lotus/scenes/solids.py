"""Solids one by one, groups of them, and the table they end in.

A thing is a list of solids in its own frame: it stands on z = 0 at the origin, its front toward -y.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from lotus.scenes.description import FORM_SIZE, MATERIAL_SIZE, MAX_SOLIDS, Shape, Solids

Vector = Sequence[float | int] | Float64[np.ndarray, "3"]
Material = Float64[np.ndarray, "m"]


class Solid(NamedTuple):
    """One row of the table."""

    shape: Shape
    centre: Float64[np.ndarray, "3"]
    rotation: Float64[np.ndarray, "3 3"]
    half: Vector
    form: Sequence[float]
    material: Material


Thing = list[Solid]
UPRIGHT = np.eye(3)
DOWNRIGHT = np.diag([1.0, -1.0, -1.0])


def turn(angle: float | int, axis: int = 2) -> Float64[np.ndarray, "3 3"]:
    """Returns the rotation by an angle around an axis."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == 2:
        return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    if axis == 1:
        return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def solid(
    shape: Shape, centre: Vector, half: Vector, material: Material, form: Sequence[float] = ()
) -> Solid:
    """Returns an upright solid."""
    return Solid(shape, np.array(centre, np.float64), UPRIGHT, half, form, material)


def box(centre: Vector, half: Vector, material: Material) -> Solid:
    """Returns an upright box."""
    return solid(Shape.BOX, centre, half, material)


def soft_box(centre: Vector, half: Vector, material: Material, radius: float) -> Solid:
    """Returns an upright box with round edges."""
    return solid(Shape.ROUNDED_BOX, centre, half, material, (min(radius, 0.99 * min(half)),))


def rod(start: Vector, stop: Vector, radius: float, material: Material, taper: float = 1.0) -> Solid:
    """Returns a round bar between two points."""
    x, y, z = stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]
    length, across = math.sqrt(x * x + y * y + z * z), math.hypot(x, y)
    centre = np.array([0.5 * (start[0] + stop[0]), 0.5 * (start[1] + stop[1]), 0.5 * (start[2] + stop[2])])
    rotation = UPRIGHT
    if across > 1e-9:
        c, s, up, out = x / across, y / across, z / length, across / length
        rotation = np.array([[c * up, -s, c * out], [s * up, c, s * out], [-out, 0.0, up]])
    elif z < 0:
        rotation = DOWNRIGHT
    return Solid(Shape.CONE, centre, rotation, (radius, radius, length / 2), (taper,), material)


def ball(centre: Vector, half: Vector, material: Material) -> Solid:
    """Returns an ellipsoid."""
    return solid(Shape.ELLIPSOID, centre, half, material)


def placed(
    thing: Thing, position: Vector, yaw: float | int = 0.0, tilt: Float64[np.ndarray, "3 3"] | None = None
) -> Thing:
    """Returns the thing moved to a position, turned around z after `tilt` (a rotation)."""
    shift = np.array(position, np.float64)
    if yaw == 0.0 and tilt is None:
        return [
            Solid(shape, centre + shift, rotation, half, form, material)
            for shape, centre, rotation, half, form, material in thing
        ]
    turned = turn(yaw) if tilt is None else turn(yaw).dot(tilt)
    if len(thing) == 1:
        shape, centre, rotation, half, form, material = thing[0]
        return [Solid(shape, turned.dot(centre) + shift, turned.dot(rotation), half, form, material)]
    centres = np.array([s.centre for s in thing]) @ turned.T + shift
    rotations: dict[int, Float64[np.ndarray, "3 3"]] = {}  # many solids share the same array
    moved = []
    for (shape, _, rotation, half, form, material), centre in zip(thing, centres, strict=True):
        if id(rotation) not in rotations:
            rotations[id(rotation)] = turned.dot(rotation)
        moved.append(Solid(shape, centre, rotations[id(rotation)], half, form, material))
    return moved


def table_of(thing: Thing) -> tuple[Solids, int]:
    """Returns the table of the first `MAX_SOLIDS` solids, and how many there are."""
    kept = thing[:MAX_SOLIDS]
    count = len(kept)
    solids = Solids(
        np.zeros(MAX_SOLIDS, np.int64),
        np.zeros((MAX_SOLIDS, 3)),
        np.tile(np.eye(3), (MAX_SOLIDS, 1, 1)),
        np.ones((MAX_SOLIDS, 3)),
        np.zeros((MAX_SOLIDS, FORM_SIZE)),
        np.zeros((MAX_SOLIDS, MATERIAL_SIZE)),
    )
    solids.shapes[:count] = [s.shape for s in kept]
    if kept:
        solids.centres[:count] = np.concatenate([s.centre for s in kept]).reshape(count, 3)
        solids.rotations[:count] = np.concatenate([s.rotation for s in kept]).reshape(count, 3, 3)
        solids.materials[:count] = np.concatenate([s.material for s in kept]).reshape(count, -1)
    solids.halves[:count] = np.array([size for s in kept for size in s.half]).reshape(count, 3)
    for row, s in zip(solids.forms, kept, strict=False):
        if len(s.form) > 0:
            row[: len(s.form)] = s.form
    return solids, count
