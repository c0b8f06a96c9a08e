"""Worlds with a known surface: a room, a table with things on it, and single shapes for tests.

All units are arbitrary; z is up in the local frame that the shapes are described in, and each world is moved
by irrational amounts so that no surface lies on a voxel lattice by accident.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from recon.errors import InputError
from recon.geometry import invert, rotate, transform
from recon.scene import Mesh
from recon.synthetic.shapes import Shape, ball, box, frustum, inside_out, rectangle

OFFSET = np.array([np.sqrt(2) / 7, -np.sqrt(3) / 5, np.pi / 9])  # world frame, see the module docstring


@dataclass(frozen=True)
class Material:
    """How a surface looks: a colour with a solid texture."""

    color: tuple[float, float, float]
    """Linear red, green, blue in 0..1."""

    noise: float = 0.5
    """Contrast of the smooth noise; 0 for none."""

    blobs: float = 0.8
    """Contrast of the coloured blobs, the features that matchers find; 0 for none."""

    size: float = 0.5
    """Size of the coarsest features, units of the local frame."""

    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """How much longer features are along x, y and z: (8, 1, 1) looks like wood."""

    @property
    def is_blank(self) -> bool:
        """True for a surface without features to match."""
        return self.noise == 0 and self.blobs == 0


@dataclass(frozen=True)
class Lamp:
    """A point light, fixed in the world."""

    position: tuple[float, float, float]
    """Local frame."""

    power: float
    """Light that arrives at a surface that faces the lamp at distance 1."""


@dataclass(frozen=True, eq=False)
class World:
    """A surface and what is needed to photograph it."""

    mesh: Mesh
    """The true surface, faces counter-clockwise seen from free space."""

    face_materials: Int64[np.ndarray, "m"]
    materials: tuple[Material, ...]
    lamps: tuple[Lamp, ...]
    center: Float64[np.ndarray, "3"]
    """Where cameras look, world frame."""

    local_from_world: Float64[np.ndarray, "4 4"]
    """Similarity to the frame in which textures and lamps are described, z up there."""

    seed: int = 0
    """Changes all textures."""

    @property
    def down(self) -> Float64[np.ndarray, "3"]:
        """World direction that points down."""
        return rotate(invert(self.local_from_world), np.array([0.0, 0.0, -1.0]))

    def moved(self, new_from_world: Float64[np.ndarray, "4 4"]) -> "World":
        """Returns the same world in another frame: a rigid transform or a similarity."""
        return replace(
            self,
            mesh=replace(self.mesh, vertices=transform(new_from_world, self.mesh.vertices)),
            center=transform(new_from_world, self.center),
            local_from_world=self.local_from_world @ invert(new_from_world),
        )


Part = tuple[Shape, Material]


def build_world(
    parts: list[Part], lamps: tuple[Lamp, ...], *, center: tuple[float, float, float], seed: int = 0
) -> World:
    """Returns the world made of solid parts, shifted off every lattice.

    Args:
        parts: Shapes in the local frame (z up), each with its material.
        lamps: Lights, local frame.
        center: Where cameras look, local frame.
        seed: Changes all textures.

    Raises:
        InputError: There is no part.
    """
    if not parts:
        raise InputError("a world of no parts, at least one wanted")
    materials = tuple(dict.fromkeys(material for _, material in parts))
    offsets = np.cumsum([0, *(len(vertices) for (vertices, _), _ in parts)])
    vertices = np.concatenate([shape[0] for shape, _ in parts])
    faces = np.concatenate([shape[1] + offset for (shape, _), offset in zip(parts, offsets, strict=False)])
    owners = np.concatenate([np.full(len(shape[1]), materials.index(material)) for shape, material in parts])
    world_from_local = np.eye(4)
    world_from_local[:3, 3] = OFFSET
    local = World(
        mesh=Mesh(vertices, faces.astype(np.int64)),
        face_materials=owners.astype(np.int64),
        materials=materials,
        lamps=lamps,
        center=np.array(center, np.float64),
        local_from_world=np.eye(4),
        seed=seed,
    )
    return local.moved(world_from_local)


ROOM_SIZE_MIN = (2.8, 2.6, 1.9)  # what the furniture and cameras beside it need

WOOD = Material((0.32, 0.19, 0.09), noise=0.6, blobs=0.35, size=0.35, stretch=(5.0, 1.0, 1.0))
CARPET = Material((0.22, 0.2, 0.24), noise=0.6, blobs=0.9, size=0.6)
WALLPAPER = Material((0.5, 0.45, 0.36), noise=0.35, blobs=0.75, size=0.8)
PLASTER = Material((0.42, 0.46, 0.5), noise=0.6, blobs=0.5, size=0.7)
CARTON = Material((0.45, 0.3, 0.14), noise=0.5, blobs=0.85, size=0.25)
MARBLE = Material((0.55, 0.52, 0.48), noise=1.0, blobs=0.6, size=0.3)
ENAMEL = Material((0.15, 0.3, 0.42), noise=0.4, blobs=0.85, size=0.2)
BLANK_FABRIC = Material((0.45, 0.12, 0.1), noise=0.0, blobs=0.0)
BLANK_PAINT = Material((0.62, 0.62, 0.6), noise=0.0, blobs=0.0)


def room(seed: int = 0, *, size: tuple[float, float, float] = (4.0, 3.0, 2.5)) -> World:
    """Returns a furnished room of width, depth and height `size`, seen from inside.

    Textured walls, floor and ceiling; a table with boxes, balls and cylinders; a sofa and a column without
    any texture. The furniture keeps its size: the table its place in the middle, the rest along the walls.

    Raises:
        InputError: The room is too small for its furniture.
    """
    if (np.array(size) < ROOM_SIZE_MIN).any():
        raise InputError(f"room: size {size}, wanted at least {ROOM_SIZE_MIN}")
    x, y, z = size[0] / 2, size[1] / 2, size[2]
    walls = inside_out(box((-x, -y, 0.0), (x, y, z)))
    floor, ceiling, sides = walls[1][[0, 6]], walls[1][[1, 7]], walls[1][[2, 3, 4, 5, 8, 9, 10, 11]]
    parts = [
        ((walls[0], floor), CARPET),
        ((walls[0], ceiling), PLASTER),
        ((walls[0], sides), WALLPAPER),
        (box((-x + 0.02, -y + 0.02, 0.0), (-x + 0.62, -y + 1.62, 0.4)), BLANK_FABRIC),
        (box((-x + 0.02, -y + 0.02, 0.4), (-x + 0.22, -y + 1.62, 0.85)), BLANK_FABRIC),
        (frustum((x - 0.35, y - 0.35, 0.0), z, (0.15, 0.15)), BLANK_PAINT),
        (box((x - 0.9, -y + 0.03, 0.0), (x - 0.1, -y + 0.38, 1.5)), CARTON),
        *_table(),
    ]
    lamps = (Lamp((0.3 * x, 0.2 * y, 0.9 * z), 1.1), Lamp((-0.6 * x, -0.5 * y, 0.8 * z), 0.7))
    return build_world(parts, lamps, center=(0.0, 0.0, 0.75), seed=seed)


def _table() -> list[Part]:
    top = 0.7
    legs = [
        (box((sx * 0.5 - 0.03, sy * 0.3 - 0.03, 0.0), (sx * 0.5 + 0.03, sy * 0.3 + 0.03, top - 0.05)), WOOD)
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return [
        *legs,
        (box((-0.6, -0.4, top - 0.05), (0.6, 0.4, top)), WOOD),
        (box((-0.45, -0.2, top), (-0.2, 0.0, top + 0.28), yaw=0.4), CARTON),
        (box((-0.1, 0.1, top), (0.12, 0.26, top + 0.12), yaw=-0.7), ENAMEL),
        (ball((0.1, -0.15, top + 0.14), 0.14), MARBLE),
        (ball((-0.3, 0.2, top + 0.09), 0.09), ENAMEL),
        (frustum((0.38, 0.1, top), 0.32, (0.09, 0.09)), CARTON),
        (frustum((0.4, -0.22, top), 0.22, (0.1, 0.04)), MARBLE),
    ]


def tabletop(seed: int = 0, *, textured: bool = True) -> World:
    """Returns a group of things about 0.4 across on a textured table, seen from around and above.

    Args:
        seed: Changes all textures.
        textured: False makes the things blank; the table keeps its texture, so cameras can still be found.
    """
    plain = BLANK_PAINT

    def look(material: Material) -> Material:
        return replace(material, size=0.4 * material.size) if textured else plain

    cloth = replace(CARPET, size=0.3, color=(0.36, 0.33, 0.28))
    parts = [
        (box((-0.6, -0.5, -0.04), (0.6, 0.5, 0.0)), cloth),
        (box((-0.17, -0.1, 0.0), (-0.03, 0.06, 0.2), yaw=0.35), look(CARTON)),
        (box((-0.02, 0.06, 0.0), (0.16, 0.17, 0.1), yaw=-0.5), look(WOOD)),
        (ball((0.07, -0.08, 0.075), 0.075), look(MARBLE)),
        (ball((0.06, 0.11, 0.145), 0.045), look(ENAMEL)),
        (frustum((-0.1, 0.14, 0.0), 0.16, (0.05, 0.05)), look(ENAMEL)),
        (frustum((0.17, 0.02, 0.0), 0.12, (0.05, 0.015)), look(CARTON)),
        (frustum((-0.03, -0.17, 0.0), 0.07, (0.04, 0.05)), plain),
    ]
    lamps = (Lamp((0.5, -0.6, 1.0), 0.75), Lamp((-0.7, 0.3, 0.9), 0.5))
    return build_world(parts, lamps, center=(0.0, 0.0, 0.06), seed=seed)


def plane(seed: int = 0) -> World:
    """Returns one flat square of side 2, seen from above; `center` is its middle."""
    part = (rectangle((-1.0, -1.0, 0.0), (2.0, 0.0, 0.0), (0.0, 2.0, 0.0)), replace(CARPET, size=0.5))
    return build_world([part], (Lamp((0.5, 0.5, 1.5), 1.5),), center=(0.0, 0.0, 0.0), seed=seed)


def sphere(seed: int = 0, *, subdivisions: int = 5) -> World:
    """Returns one ball of radius 1 about `center`: 20 * 4**subdivisions triangles, as `shapes.ball` says."""
    part = (ball((0.0, 0.0, 0.0), 1.0, subdivisions), replace(CARPET, size=0.5))
    return build_world(
        [part], (Lamp((2.0, 1.0, 2.0), 3.0), Lamp((-2.0, -1.0, 1.0), 3.0)), center=(0.0, 0.0, 0.0), seed=seed
    )


def box_room(seed: int = 0) -> World:
    """Returns an empty room of 4 x 3 x 2.5 seen from inside; `center` is the middle of the box."""
    part = (inside_out(box((-2.0, -1.5, -1.25), (2.0, 1.5, 1.25))), WALLPAPER)
    return build_world([part], (Lamp((0.6, 0.3, 0.8), 2.0),), center=(0.0, 0.0, 0.0), seed=seed)
