"""The pictures and plots of the report: arrays in, data URIs, SVG or RGB pictures out. No text but labels."""

import base64
import io
from collections.abc import Container, Iterator, Sequence
from html import escape

import numpy as np
from jaxtyping import Float64, UInt8

from pipelines.frame import Frame
from recon.alignment import Fit
from recon.geometry import invert, look_at, transform, unproject
from recon.io.images import resize_image
from recon.raycasting import RayCaster, orbit_view
from recon.scene import Camera, Scene, View

JPEG_QUALITY = 82
MESH_PICTURE = Camera.from_fov(480, 400, 32.0)  # long lens: sizes in the front and in the back compare
MAX_LOOKED_AROUND = 8  # cameras
SURROUNDED = 0.45  # share of rays to all sides that meet the mesh: rooms 0.5 to 1, facades 0.25, objects less
MAX_PLOTTED_ANCHORS = 400  # per plot; more only make the page heavy
MAX_MAPPED_POINTS = 60_000
MAP_SIZE = np.array([640, 440])  # px, width and height
MAP_FILLED = 0.86  # share of the map between the outermost cameras; the rest is margin
FRUSTUM_PX = 17
PLOT_WIDTH, PLOT_HEIGHT, PLOT_LEFT, PLOT_BOTTOM = 256, 192, 48, 34  # px
AXIS_NAMES = {
    "disparity": ("predicted disparity", "1 / depth of anchor"),
    "depth": ("predicted depth", "depth of anchor"),
    "log": ("log of predicted depth", "log depth of anchor"),
}


def shrink(picture: UInt8[np.ndarray, "h w 3"], max_size: int) -> UInt8[np.ndarray, "a b 3"]:
    """Returns the picture resampled so that its longer side is at most `max_size` pixels."""
    height, width = picture.shape[:2]
    factor = min(1.0, max_size / max(height, width))
    return resize_image(picture, max(1, round(width * factor)), max(1, round(height * factor)))


def data_uri(picture: UInt8[np.ndarray, "h w c"]) -> str:
    """Returns a picture as a data URI: JPEG for RGB, PNG where there is an alpha channel."""
    from PIL import Image

    buffer = io.BytesIO()
    if picture.shape[2] == 4:
        Image.fromarray(picture).quantize(192).save(buffer, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def is_room(caster: RayCaster, views: Sequence[View], frame: Frame) -> bool:
    """Returns True where the mesh surrounds the cameras, so that its outside shows little.

    Looks around from some of the cameras, a quarter turn at a time.
    """
    lens = Camera.from_fov(12, 12, 90.0)
    shares = [
        (caster.cast(lens, look_at(view.center, view.center + toward, frame.axes[1])).faces >= 0).mean()
        for view in views[:: -(-len(views) // MAX_LOOKED_AROUND) or 1]
        for toward in (frame.axes[2], -frame.axes[2], frame.axes[0], -frame.axes[0])
    ]
    return bool(shares) and float(np.mean(shares)) > SURROUNDED


def mesh_sides(
    caster: RayCaster, frame: Frame, focus: Float64[np.ndarray, "n 3"], cut_open: bool
) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Yields captions and pictures of a mesh from four sides, coloured and then as bare shape.

    Args:
        caster: Of the mesh, which is not empty.
        frame: Upright axes.
        focus: Points that have to be in the picture, world frame.
        cut_open: Leaves out what turns its back to the camera, so that one looks into a room.
    """
    right, down, forward = frame.axes
    azimuths = (0, 90, 180, 270) if frame.from_all_sides else (-40, -12, 12, 40)
    elevation = np.radians(40 if cut_open else 20 if frame.from_all_sides else 8)
    for colored in (True, False) if caster.mesh.colors is not None else (False,):
        for azimuth in azimuths:
            level = np.cos(np.radians(azimuth)) * forward + np.sin(np.radians(azimuth)) * right
            toward = np.cos(elevation) * level + np.sin(elevation) * down
            cam_from_world = orbit_view(focus, MESH_PICTURE, toward, down)
            caption = f"{azimuth % 360 if frame.from_all_sides else azimuth}°"
            yield (
                caption + ("" if colored else ", shape"),
                caster.draw(MESH_PICTURE, cam_from_world, colored=colored, through_backs=cut_open),
            )


def camera_map(scene: Scene, frame: Frame, rows: tuple[int, int], dropped: Container[str]) -> str:
    """Returns an SVG of points and cameras, seen along an axis; each camera carries its photo's name.

    Args:
        scene: At least one view.
        frame: Upright axes.
        rows: Which of right, down, forward run to the right and up in the map; negative numbers run the other
            way: (0, 2) is the view from above, (0, ~1) that from behind.
        dropped: Names of views that are drawn as unused.
    """
    signs, indices = np.where(np.array(rows) < 0, -1, 1), [row if row >= 0 else ~row for row in rows]
    plane_from_world = frame.axes[indices] * signs[:, None]  # (2, 3)
    centers = np.stack([view.center for view in scene.views]) @ plane_from_world.T
    points = np.zeros((0, 2)) if scene.cloud is None else scene.cloud.points @ plane_from_world.T
    low, high = _extent(centers, points)
    pixels_per_unit = (MAP_SIZE * MAP_FILLED / np.maximum(high - low, 1e-12)).min()
    map_from_world = plane_from_world * [[pixels_per_unit], [-pixels_per_unit]]
    offset = MAP_SIZE / 2 - (low + high) / 2 * pixels_per_unit * [1, -1]
    marks = []
    for view in scene.views:
        used = ' class="unused"' if view.name in dropped else ""
        outline = _frustum(view, map_from_world, offset)
        marks.append(f'<path d="{outline}"{used}><title>{escape(view.name)}</title></path>')
    cloud = ""
    if scene.cloud is not None and len(points):
        uri = data_uri(_splat(scene.cloud.points @ map_from_world.T + offset, scene.cloud.colors))
        cloud = f'<image href="{uri}" width="{MAP_SIZE[0]}" height="{MAP_SIZE[1]}"/>'
    return (
        f'<svg class="map" viewBox="0 0 {MAP_SIZE[0]} {MAP_SIZE[1]}" role="img" '
        f'aria-label="cameras and points">{cloud}{"".join(marks)}</svg>'
    )


def _extent(
    centers: Float64[np.ndarray, "n 2"], points: Float64[np.ndarray, "m 2"]
) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]:
    """Returns the box of all cameras and of the points without their far outliers."""
    low, high = centers.min(axis=0), centers.max(axis=0)
    if len(points):
        near_low, near_high = np.percentile(points, [3, 97], axis=0)
        low, high = np.minimum(low, near_low), np.maximum(high, near_high)
    return low, high


def _frustum(view: View, map_from_world: Float64[np.ndarray, "2 3"], offset: Float64[np.ndarray, "2"]) -> str:
    """Returns the SVG path of a small frustum in the map: its picture plane and four edges to its tip."""
    K, width, height = view.camera.K, view.camera.width, view.camera.height
    corners = unproject(K, np.array([[0.0, 0], [width, 0], [width, height], [0, height]]), np.ones(4))
    length = FRUSTUM_PX / np.linalg.norm(map_from_world, axis=1).mean()
    world = transform(invert(view.cam_from_world), np.concatenate([np.zeros((1, 3)), corners * length]))
    tip, *plane = [f"{u:.1f} {v:.1f}" for u, v in world @ map_from_world.T + offset]
    return f"M{'L'.join(plane)}z" + "".join(f"M{tip}L{corner}" for corner in plane)


def _splat(uv: Float64[np.ndarray, "n 2"], colors: UInt8[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "h w 4"]:
    """Returns points as dots of 2 x 2 pixels on a transparent ground."""
    picture = np.zeros((MAP_SIZE[1], MAP_SIZE[0], 4), np.uint8)
    stride = -(-len(uv) // MAX_MAPPED_POINTS)
    corner = np.floor(uv[::stride] - 0.5).astype(np.int64)
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixels = corner + step
        inside = ((pixels >= 0) & (pixels < MAP_SIZE)).all(axis=1)
        picture[pixels[inside, 1], pixels[inside, 0], :3] = colors[::stride][inside]
        picture[pixels[inside, 1], pixels[inside, 0], 3] = 255
    return picture


def fit_plot(fit: Fit) -> str:
    """Returns an SVG of anchors, predicted against wanted, with the fitted line; outliers are hollow."""
    known = np.isfinite(fit.predicted) & np.isfinite(fit.target)
    if not known.any():
        return ""
    x, y, inliers = fit.predicted[known], fit.target[known], fit.inliers[known]
    x_range, y_range = _plot_range(x, inliers), _plot_range(y, inliers)
    u = PLOT_LEFT + np.clip((x - x_range[0]) / np.ptp(x_range), 0, 1) * (PLOT_WIDTH - PLOT_LEFT - 8)
    v = (1 - np.clip((y - y_range[0]) / np.ptp(y_range), 0, 1)) * (PLOT_HEIGHT - PLOT_BOTTOM - 8) + 8
    dots = "".join(
        f'<path class="{name}" d="{_dots(u[rows], v[rows])}"/>'
        for name, rows in (("outlier", ~inliers), ("inlier", inliers))
    )
    x_name, y_name = AXIS_NAMES[fit.space]
    return (
        f'<svg class="fit" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="fit">'
        f"{_plot_axes(x_range, y_range, x_name, y_name)}{dots}{_fitted_line(fit, x_range, y_range)}</svg>"
    )


def _plot_range(values: Float64[np.ndarray, "n"], inliers: np.ndarray) -> Float64[np.ndarray, "2"]:
    """Returns where the inliers lie, with a margin; outliers beyond it are drawn at the border."""
    low, high = np.percentile(values[inliers] if inliers.any() else values, [0.5, 99.5])
    margin = max(0.12 * (high - low), 1e-6 * abs(high), 1e-12)
    return np.array([low - margin, high + margin])


def _dots(u: Float64[np.ndarray, "n"], v: Float64[np.ndarray, "n"]) -> str:
    stride = -(-len(u) // MAX_PLOTTED_ANCHORS) or 1
    return "".join(f"M{left:.1f} {top:.1f}h0" for left, top in zip(u[::stride], v[::stride], strict=True))


def _fitted_line(fit: Fit, x_range: Float64[np.ndarray, "2"], y_range: Float64[np.ndarray, "2"]) -> str:
    """Returns the line cut to the plot."""
    x = x_range
    if fit.scale:
        crossings = np.sort((y_range - fit.shift) / fit.scale)
        x = np.array([max(x_range[0], crossings[0]), min(x_range[1], crossings[1])])
    u = PLOT_LEFT + (x - x_range[0]) / np.ptp(x_range) * (PLOT_WIDTH - PLOT_LEFT - 8)
    y = fit.scale * x + fit.shift
    v = (1 - (y - y_range[0]) / np.ptp(y_range)) * (PLOT_HEIGHT - PLOT_BOTTOM - 8) + 8
    if not np.isfinite([*u, *v]).all() or x[0] >= x[1]:
        return ""
    return f'<path class="line" d="M{u[0]:.1f} {v[0]:.1f}L{u[1]:.1f} {v[1]:.1f}"/>'


def _plot_axes(
    x_range: Float64[np.ndarray, "2"], y_range: Float64[np.ndarray, "2"], x_name: str, y_name: str
) -> str:
    bottom, right = PLOT_HEIGHT - PLOT_BOTTOM, PLOT_WIDTH - 8
    middle_u, middle_v = (PLOT_LEFT + right) / 2, (8 + bottom) / 2
    labels = [
        (PLOT_LEFT, bottom + 14, "start", f"{x_range[0]:.3g}"),
        (right, bottom + 14, "end", f"{x_range[1]:.3g}"),
        (PLOT_LEFT - 4, bottom, "end", f"{y_range[0]:.3g}"),
        (PLOT_LEFT - 4, 16, "end", f"{y_range[1]:.3g}"),
        (middle_u, bottom + 28, "middle", x_name),
    ]
    texts = "".join(
        f'<text x="{x:g}" y="{y:g}" text-anchor="{at}">{text}</text>' for x, y, at, text in labels
    )
    return (
        f'<path class="axes" d="M{PLOT_LEFT} 8V{bottom}H{right}"/>{texts}'
        f'<text transform="translate(14 {middle_v:g})rotate(-90)" text-anchor="middle">{y_name}</text>'
    )
