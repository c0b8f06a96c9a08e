"""Photos of a world: ray casting, solid textures, light fixed in the world, a box filter, sensor noise."""

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.errors import InputError
from recon.geometry import pixel_centers, project, rays, rotate, transform
from recon.raycasting import RayCaster
from recon.scene import Camera, Lens
from recon.synthetic.worlds import Material, World

GAMMA = 2.2  # of the photos; colours are linear before
AMBIENT = 0.25  # light that reaches every surface
MOTTLE = 0.25  # share of slow variation of the light, as from windows and bounces
MOTTLE_SIZE = 1.5  # local units; slow, so that blank surfaces stay without features
SENSOR_NOISE = 1.2  # standard deviation, grey levels of 255
BAND_ROWS = 16  # rows shaded at once; a band's arrays stay in the cache, a photo's do not
FIXED_POINT_STEPS = 30  # more than enough for lenses whose map can be inverted
BACKGROUND = 0.6  # linear grey where a ray meets nothing


def render(
    world: World,
    caster: RayCaster,
    view: tuple[Camera, Float64[np.ndarray, "4 4"]],
    *,
    supersample: int = 2,
    rng: np.random.Generator,
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the photo of one view.

    Args:
        world: What is seen.
        caster: Of the world's mesh, shared by all views.
        view: Camera and `cam_from_world`.
        supersample: Rays per pixel along each side; the mean of their linear colours is the pixel.
        rng: Draws the sensor noise.
    """
    camera, cam_from_world = view
    linear = np.concatenate(
        [
            _radiance(world, caster, _band(camera, top, bottom, supersample), cam_from_world)
            .reshape(bottom - top, supersample, camera.width, supersample, 3)
            .mean(axis=(1, 3))
            for top, bottom in _bands(camera.height)
        ]
    )
    levels = 255 * np.clip(linear, 0, 1) ** (1 / GAMMA)
    noisy = levels + rng.normal(0, SENSOR_NOISE, levels.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def through_lens(
    photo: UInt8[np.ndarray, "h w 3"], camera: Camera, lens: Lens
) -> UInt8[np.ndarray, "lens_h lens_w 3"]:
    """Returns the photo of a SIMPLE_RADIAL lens where a pinhole camera takes `photo`; black beyond it.

    The lens maps a ray (x, y, 1) to f * (1 + k r^2) * (x, y) + c with r^2 = x^2 + y^2 (COLMAP's model); its
    inverse is a fixed point, x = x_d / (1 + k r(x)^2).

    Args:
        photo: Finer than the result and at least as wide, so that little is lost.
        camera: Of `photo`.
        lens: Its parameters are f, cx, cy, k.

    Raises:
        InputError: The lens is of another model.
    """
    from scipy.ndimage import map_coordinates

    if lens.model != "SIMPLE_RADIAL":
        raise InputError(f"through_lens: model {lens.model}, wanted SIMPLE_RADIAL")
    focal, cx, cy, k = lens.params
    distorted = (pixel_centers(lens.width, lens.height) - [cx, cy]) / focal
    ray = distorted
    for _ in range(FIXED_POINT_STEPS):
        ray = distorted / (1 + k * np.einsum("hwc,hwc->hw", ray, ray))[..., None]
    uv = project(camera.K, np.concatenate([ray, np.ones_like(ray[..., :1])], axis=-1))
    at = [uv[..., 1] - 0.5, uv[..., 0] - 0.5]
    channels = [map_coordinates(photo[..., c].astype(np.float64), at, order=1) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _bands(height: int) -> list[tuple[int, int]]:
    return [(top, min(top + BAND_ROWS, height)) for top in range(0, height, BAND_ROWS)]


def _band(camera: Camera, top: int, bottom: int, supersample: int) -> Camera:
    """The camera of some rows of the picture, with finer pixels."""
    K = camera.K.copy()
    K[1, 2] -= top
    band = Camera(K, camera.width, bottom - top)
    return band.resized(band.width * supersample, band.height * supersample)


def surface_colors(
    world: World, points: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "n"], footprint: float
) -> UInt8[np.ndarray, "n 3"]:
    """Returns the colours that photos show at points of the surface, without noise.

    Args:
        world: Whose surface it is.
        points: World frame.
        faces: The triangle that each point lies on.
        footprint: Width of the area that each colour is the mean of, world units.
    """
    corners = world.mesh.vertices[world.mesh.faces[faces]]  # (n, 3, xyz)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    linear = _shade(world, points, normals, faces, np.full(len(points), footprint))
    return np.rint(255 * np.clip(linear, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def _radiance(
    world: World, caster: RayCaster, camera: Camera, cam_from_world: Float64[np.ndarray, "4 4"]
) -> Float64[np.ndarray, "h w 3"]:
    hits = caster.cast(camera, cam_from_world)
    hit = hits.faces >= 0
    depth = hits.depth[hit].astype(np.float64)
    directions = rays(camera.K, camera.width, camera.height)[hit]
    world_from_cam = np.linalg.inv(cam_from_world)
    points = transform(world_from_cam, directions * depth[:, None])
    normals = rotate(world_from_cam, hits.normals[hit].astype(np.float64))
    radiance = np.full((*hit.shape, 3), BACKGROUND)
    radiance[hit] = _shade(world, points, normals, hits.faces[hit], depth / camera.K[0, 0])
    return radiance


def _shade(
    world: World,
    points: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
    faces: Int64[np.ndarray, "n"],
    footprints: Float64[np.ndarray, "n"],
) -> Float64[np.ndarray, "n 3"]:
    """Returns linear colours: texture times light, neither of which depends on the view."""
    local = transform(world.local_from_world, points)
    local_normals = rotate(world.local_from_world, normals)
    local_footprints = footprints * np.cbrt(np.linalg.det(world.local_from_world[:3, :3]))
    albedo = np.empty_like(local)
    owners = world.face_materials[faces]
    for index, material in enumerate(world.materials):
        mine = owners == index
        albedo[mine] = _albedo(material, local[mine], local_footprints[mine], 7919 * world.seed + 101 * index)
    return albedo * _light(world, local, local_normals)[:, None]


def _albedo(
    material: Material, points: Float64[np.ndarray, "n 3"], footprints: Float64[np.ndarray, "n"], salt: int
) -> Float64[np.ndarray, "n 3"]:
    from recon.synthetic._texture import solid_color

    color = np.empty((len(points), 3))
    table = np.array([*material.color, material.noise, material.blobs])
    scaled = points / (material.size * np.array(material.stretch))
    solid_color(scaled, footprints / material.size, table, salt, color)
    return color


def _light(
    world: World, points: Float64[np.ndarray, "n 3"], normals: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n"]:
    light = np.full(len(points), AMBIENT)
    for lamp in world.lamps:
        toward = np.array(lamp.position) - points
        squared = np.einsum("nc,nc->n", toward, toward)
        cosine = np.einsum("nc,nc->n", toward, normals) / np.sqrt(squared)
        light += lamp.power * np.maximum(cosine, 0) / (squared + 0.5)  # softened: no glare beside the lamp
    phase = points * (2 * np.pi / MOTTLE_SIZE) + [0.3, 1.7, 2.9]
    mottle = np.sin(phase + 0.7 * np.sin(np.roll(phase, 1, axis=1))).mean(axis=1)
    return light * (1 + MOTTLE * mottle)
