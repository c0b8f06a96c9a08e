"""Solids one by one, groups of them, and the table they end in.

A thing is a list of solids in its own frame: it stands on z = 0 at the origin, its front toward -y.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from lotus.scenes.description import FORM_SIZE, MATERIAL_SIZE, MAX_SOLIDS, Shape, Solids

Vector = tuple[float, float, float]
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


def turn(angle: float, axis: int = 2) -> Float64[np.ndarray, "3 3"]:
    """Returns the rotation by an angle around an axis."""
    c, s = math.cos(angle), math.sin(angle)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((3, 3))
    rotation[axis, axis] = 1.0
    rotation[a, a], rotation[a, b], rotation[b, a], rotation[b, b] = c, -s, s, c
    return rotation


def solid(
    shape: Shape, centre: Sequence[float], half: Vector, material: Material, form: Sequence[float] = ()
) -> Solid:
    """Returns an upright solid."""
    return Solid(shape, np.array(centre, np.float64), UPRIGHT, half, form, material)


def box(centre: Sequence[float], half: Vector, material: Material) -> Solid:
    """Returns an upright box."""
    return solid(Shape.BOX, centre, half, material)


def soft_box(centre: Sequence[float], half: Vector, material: Material, radius: float) -> Solid:
    """Returns an upright box with round edges."""
    return solid(Shape.ROUNDED_BOX, centre, half, material, (min(radius, 0.99 * min(half)),))


def rod(
    start: Sequence[float], stop: Sequence[float], radius: float, material: Material, taper: float = 1.0
) -> Solid:
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


def ball(centre: Sequence[float], half: Vector, material: Material) -> Solid:
    """Returns an ellipsoid."""
    return solid(Shape.ELLIPSOID, centre, half, material)


def placed(
    thing: Thing, position: Sequence[float], yaw: float = 0.0, tilt: Float64[np.ndarray, "3 3"] | None = None
) -> Thing:
    """Returns the thing moved to a position, turned around z after `tilt` (a rotation)."""
    shift = np.array(position, np.float64)
    if yaw == 0.0 and tilt is None:
        return [Solid(s.shape, s.centre + shift, s.rotation, s.half, s.form, s.material) for s in thing]
    rotation = turn(yaw) if tilt is None else turn(yaw) @ tilt
    centres = np.array([s.centre for s in thing]) @ rotation.T + shift
    rotations = rotation @ np.array([s.rotation for s in thing])
    return [
        Solid(s.shape, centre, turned, s.half, s.form, s.material)
        for s, centre, turned in zip(thing, centres, rotations, strict=True)
    ]


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
    solids.centres[:count] = [s.centre for s in kept]
    solids.rotations[:count] = [s.rotation for s in kept]
    solids.halves[:count] = [s.half for s in kept]
    for row, s in zip(solids.forms, kept, strict=False):
        row[: len(s.form)] = s.form
    solids.materials[:count] = [s.material for s in kept]
    return solids, count
