"""Meshes textured from photos of a wall whose colours are known at every point."""

from dataclasses import replace

import numpy as np
import pytest

from recon import raycasting, texturing
from recon.errors import InputError
from recon.geometry import look_at, rays
from recon.raycasting import RayCaster
from recon.scene import Camera, Mesh, View

CAMERA = Camera.from_fov(200, 160, 60.0)
CELLS = 24  # of a side of the wall


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours of the wall z = 0 at points of it; much finer than its vertices lie."""
    waves = [np.sin(40 * x + 3 * y), np.sin(35 * y), np.cos(30 * x - 25 * y)]
    return np.stack([128 + 60 * wave for wave in waves], axis=-1)


def wall() -> Mesh:
    """A square of side 2 about the origin, seen from negative z."""
    line = np.linspace(-1, 1, CELLS + 1)
    x, y = (part.ravel() for part in np.meshgrid(line, line))
    corner = (np.arange(CELLS)[:, None] * (CELLS + 1) + np.arange(CELLS)).ravel()
    a, b, c, d = corner, corner + 1, corner + CELLS + 1, corner + CELLS + 2
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    colors = np.clip(pattern(x, y), 0, 255).astype(np.uint8)
    return Mesh(np.stack([x, y, 0 * x], axis=1), faces.astype(np.int64), colors=colors)


def viewed(name: str, center: tuple[float, float, float], at: tuple[float, float, float]) -> View:
    pose = look_at(np.array(center, float), np.array(at, float), np.array([0.0, 1.0, 0.0]))
    return View(name, CAMERA, pose)


def photo_of(view: View, gain: float = 1.0) -> np.ndarray:
    """What the view shows of the endless wall."""
    directions = rays(view.camera.K, view.camera.width, view.camera.height) @ view.cam_from_world[:3, :3]
    depth = -view.center[2] / directions[..., 2]
    points = view.center + directions * depth[..., None]
    return np.clip(gain * pattern(points[..., 0], points[..., 1]), 0, 255).astype(np.uint8)


LEFT, RIGHT = viewed("left", (-0.6, 0, -1.6), (-0.5, 0, 0)), viewed("right", (0.6, 0, -1.6), (0.5, 0, 0))
MIDDLE = viewed("middle", (0, 0.1, -1.5), (0, 0, 0))  # looks at both halves and has no photo


def off(mesh: Mesh, view: View, truth: np.ndarray) -> float:
    """Mean difference of the mesh's picture, unshaded, from a photo, grey levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raycasting, "AMBIENT", 1.0)
        caster = RayCaster(mesh)
        drawn = caster.draw(view.camera, view.cam_from_world).astype(float)
    seen = caster.cast(view.camera, view.cam_from_world).faces >= 0
    return float(np.abs(drawn - truth)[seen].mean())


def test_a_texture_shows_what_vertices_cannot() -> None:
    photos = {view.name: photo_of(view) for view in (LEFT, RIGHT)}
    mesh, truth = wall(), photo_of(MIDDLE)
    textured = texturing.texture_mesh(mesh, [LEFT, RIGHT], photos)
    assert off(textured, MIDDLE, truth) < 0.35 * off(mesh, MIDDLE, truth)


def test_the_surface_stays_the_same() -> None:
    mesh = wall()
    textured = texturing.texture_mesh(mesh, [LEFT], {"left": photo_of(LEFT)})
    assert np.array_equal(textured.vertices[textured.faces], mesh.vertices[mesh.faces])
    assert textured.uv is not None
    assert (textured.uv >= 0).all()
    assert (textured.uv <= 1).all()


def test_photos_of_other_exposure_meet() -> None:
    photos = {"left": photo_of(LEFT, 0.8), "right": photo_of(RIGHT, 1.2)}
    textured = texturing.texture_mesh(wall(), [LEFT, RIGHT], photos)
    assert off(textured, MIDDLE, photo_of(MIDDLE)) < 12  # 0.2 of 128 is 26


def test_a_photo_paints_nothing_that_something_hides_from_it() -> None:
    shield = Mesh(
        np.array([[-0.9, -0.6, -0.5], [0.0, -0.6, -0.5], [0.0, 0.6, -0.5], [-0.9, 0.6, -0.5]]),
        np.array([[0, 2, 1], [0, 3, 2]]),
        colors=np.full((4, 3), 128, np.uint8),
    )
    mesh = wall()
    assert mesh.colors is not None
    assert shield.colors is not None
    both = Mesh(
        np.concatenate([mesh.vertices, shield.vertices]),
        np.concatenate([mesh.faces, shield.faces + len(mesh.vertices)]),
        colors=np.concatenate([mesh.colors, shield.colors]),
    )
    photo = photo_of(LEFT)
    photo[RayCaster(both).cast(CAMERA, LEFT.cam_from_world).faces >= len(mesh.faces)] = 0  # a black shield
    textured = texturing.texture_mesh(replace(both, colors=None), [LEFT], {"left": photo})
    assert textured.texture is not None
    assert textured.uv is not None
    at = textured.uv[textured.faces[: len(mesh.faces)]].mean(axis=1) * [1, -1] + [0, 1]
    height, width = textured.texture.shape[:2]
    found = textured.texture[(at[:, 1] * height).astype(int), (at[:, 0] * width).astype(int)]
    assert (found.max(axis=1) < 30).mean() < 0.01


def test_what_no_photo_shows_keeps_its_vertices_colours() -> None:
    mesh = wall()
    away = viewed("away", (0, 0, -1.6), (0, 0, -5))
    textured = texturing.texture_mesh(mesh, [away], {"away": photo_of(LEFT)})
    assert off(textured, MIDDLE, photo_of(MIDDLE)) == pytest.approx(
        off(mesh, MIDDLE, photo_of(MIDDLE)), abs=2
    )


def test_a_small_texture_shrinks_photos() -> None:
    photos = {view.name: photo_of(view) for view in (LEFT, RIGHT)}
    textured = texturing.texture_mesh(wall(), [LEFT, RIGHT], photos, max_size=100)
    assert textured.texture is not None
    assert max(textured.texture.shape) <= 100


@pytest.mark.parametrize(("views", "size"), [((), 4096), ((LEFT,), 8)])
def test_nothing_to_do_it_with_is_said(views, size) -> None:
    with pytest.raises(InputError, match="texture of"):
        texturing.texture_mesh(wall(), views, {"left": photo_of(LEFT)}, max_size=size)


def test_what_does_not_fit_is_said() -> None:
    away = viewed("away", (0, 0, -1.6), (0, 0, -5))
    with pytest.raises(InputError, match="1152 faces that none shows do not fit"):
        texturing.texture_mesh(wall(), [away], {"away": photo_of(LEFT)}, max_size=64)
