"""A prior where there is none: one depth for all pixels, with a sigma as wide as the scene."""

import numpy as np

from recon.errors import ViewError
from recon.geometry import transform
from recon.photometric.sweep import BAND_SIGMAS
from recon.scene import Camera, DepthMap, Scene, View

PERCENTILES = (1, 99)  # of the points' depth; a few are wrong
MARGIN = 1.5  # surfaces may be nearer and farther than the points by this factor
MIN_POINTS = 10


def depth_range(scene: Scene, view: View) -> tuple[float, float]:
    """Returns nearest and farthest depth that a view may show, from the sparse points that it sees.

    Raises:
        ViewError: It sees too few.
    """
    if scene.cloud is None:
        raise ViewError(f"{view.name}: the scene has no sparse points")
    index = [other.name for other in scene.views].index(view.name)
    points = scene.cloud.points[scene.cloud.seen[scene.cloud.seen[:, 1] == index, 0]]
    depth = transform(view.cam_from_world, points)[:, 2]
    depth = depth[depth > 0]
    if len(depth) < MIN_POINTS:
        raise ViewError(f"{view.name}: sees {len(depth)} sparse points, at least {MIN_POINTS} wanted")
    low, high = np.percentile(depth, PERCENTILES)
    return float(low / MARGIN), float(high * MARGIN)


def flat_prior(camera: Camera, low: float, high: float) -> DepthMap:
    """Returns a prior that knows nothing but a range of depth: its band is just that, in inverse depth.

    Args:
        camera: Of the photo.
        low: Nearest depth.
        high: Farthest depth, more than `low`.
    """
    shape = (camera.height, camera.width)
    middle, half = (1 / low + 1 / high) / 2, (1 / low - 1 / high) / 2
    return DepthMap(
        camera=camera,
        depth=np.full(shape, 1 / middle, np.float32),
        normals=np.broadcast_to(np.array([0, 0, -1], np.float32), (*shape, 3)).copy(),
        sigma=np.full(shape, half / BAND_SIGMAS / middle**2, np.float32),
    )
