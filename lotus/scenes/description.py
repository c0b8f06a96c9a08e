"""What a scene is: tables of plain arrays that any renderer can read.

World frame: x right, y forward, z up, metres. A solid has its own frame with its bounding box centred at the
origin. Every table has a fixed number of rows, so that scenes stack into batches; rows beyond `count` are
empty.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

MAX_SOLIDS = 256
MAX_LIGHTS = 4
FORM_SIZE = 24  # numbers that shape a solid beyond its half sizes; see `Shape`
MATERIAL_SIZE = 20  # see `lotus.scenes.materials`
MAX_BLUR = 0.005  # share of the picture's width
MAX_MOTION = 0.015  # share of the picture's width


class Shape(IntEnum):
    """The kinds of solids. `half` is the half size of the bounding box, `form` what else shapes them."""

    BOX = 0
    ROUNDED_BOX = 1
    """form: radius of the edges, m."""
    ELLIPSOID = 2
    CONE = 3
    """Cylinder or frustum along z; form: radius at the top / radius at the bottom, at most 1."""
    SUPERELLIPSOID = 4
    """(|x|^p + |y|^p)^(q/p) + |z|^q = 1; form: p, q, both at least 1."""
    TORUS = 5
    """Around z; half the height is the radius of the tube."""
    LATHE = 6
    """Surface of revolution around z; form: 8 radii as shares of the half width, 1 if open at the top."""
    SHEET = 7
    """z = sum of waves over x and y; form: 5 times amplitude, frequency in x and y (rad/m), phase. A wave is
    like a sine, of parabolas."""


class Solids(NamedTuple):
    """The table of solids."""

    shapes: Int64[np.ndarray, "n"]
    centres: Float64[np.ndarray, "n 3"]
    rotations: Float64[np.ndarray, "n 3 3"]
    """world_from_solid."""
    halves: Float64[np.ndarray, "n 3"]
    forms: Float64[np.ndarray, "n f"]
    materials: Float64[np.ndarray, "n m"]


@dataclass(frozen=True)
class Photo:
    """What a camera makes of light."""

    exposure: float
    """Brightness of the picture's upper tones after exposure, 1 = white."""
    white_balance: tuple[float, float, float]
    contrast: float
    saturation: float
    vignette: float
    """Share of light lost in the corners."""
    blur: float
    """Standard deviation, share of the picture's width."""
    motion: tuple[float, float]
    """Blur by motion: length as share of the width, angle."""
    shot_noise: float
    read_noise: float
    jpeg_quality: int


@dataclass(frozen=True, eq=False)
class SceneDescription:
    """A scene, its light, the camera in it and the camera's habits."""

    seed: int
    kind: str
    count: int
    """Solids in use."""
    solids: Solids
    lights: Float64[np.ndarray, "l 8"]
    """Rows: 1 lamp, 2 sun or 0 none; position, or direction to the sun; colour; radius (m, or rad)."""
    air: Float64[np.ndarray, "14"]
    """Colours of ambient light, horizon and zenith; fog per metre, clouds, reach of occlusion (m), darkness
    from below, seed of clouds."""
    cam_from_world: Float64[np.ndarray, "4 4"]
    fov: float
    """Along the longer side of the picture, rad."""
    photo: Photo
