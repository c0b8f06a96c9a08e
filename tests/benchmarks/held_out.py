"""How much of what a reconstruction did not see its mesh explains, for scenes without true surface.

One photo (the middle one by name) and 30 % of the sparse points are kept from the programs. Then
`points_in_mesh`: of the rays from all photos to the points kept back, the share that meets the mesh within
0.5 % and 1 % of the point's depth, or at all, and the median error of those that do. And `explained_photo`:
of the pixels with texture of the photo kept back, the share where one of the three photos nearest by points,
carried over by the mesh, looks the same (7 x 7 pixels correlate by 0.8 or more). An exact surface does not
reach 1 either: some pixels are hidden in all three, or look different from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from recon.geometry import invert, points_from_depth, project, sample, sample_depth, transform
from recon.raycasting import RayCaster
from recon.scene import Mesh, Scene, SparseCloud, View

SHARE = 0.3
NEAREST = 3
PATCH = 7  # px
MIN_CONTRAST = 4.0  # standard deviation of a patch, of 255, below which noise decides
LIKENESS = 0.8
HIDDEN = 0.01  # a surface this share of its depth before a point hides it


@dataclass(frozen=True)
class Given:
    """What the programs get, and what they do not."""

    scene: Scene
    photo: View
    """The view that is kept back."""

    points: np.ndarray
    """(n,) bool, True for the points of the whole scene that are kept back."""


def hold_out(scene: Scene, seed: int = 0) -> Given:
    cloud = scene.cloud
    assert cloud is not None
    index = len(scene.views) // 2
    held = np.random.default_rng(seed).random(len(cloud.points)) < SHARE
    rows = ~held[cloud.seen[:, 0]] & (cloud.seen[:, 1] != index)
    tracks = np.bincount(cloud.seen[rows, 0], minlength=len(held))
    rows &= tracks[cloud.seen[:, 0]] >= 2
    kept, points = np.unique(cloud.seen[rows, 0], return_inverse=True)
    views = cloud.seen[rows, 1] - (cloud.seen[rows, 1] > index)
    smaller = SparseCloud(
        points=cloud.points[kept],
        colors=cloud.colors[kept],
        errors=cloud.errors[kept],
        seen=np.stack([points.reshape(-1), views], axis=1),
        uv=cloud.uv[rows],
    )
    rest = scene.views[:index] + scene.views[index + 1 :]
    return Given(Scene(rest, smaller), scene.views[index], held)


def held_out_only(scene: Scene, given: Given) -> Scene:
    """The scene with the points that are kept back, and no others."""
    cloud = scene.cloud
    assert cloud is not None
    held = given.points[cloud.seen[:, 0]]
    return replace(scene, cloud=replace(cloud, seen=cloud.seen[held], uv=cloud.uv[held]))


def points_in_mesh(mesh: Mesh, scene: Scene, given: Given) -> dict[str, float]:
    judges, caster, errors = held_out_only(scene, given), RayCaster(mesh), []
    for view in scene.views:
        anchors = judges.anchors(view)
        depth = sample_depth(caster.cast(view.camera, view.cam_from_world).depth, anchors.uv)
        errors.append(np.where(depth > 0, np.abs(depth / anchors.depth - 1), np.inf))
    every = np.concatenate(errors)
    return {
        "count": len(every),
        "within_half_percent": round(float((every <= 0.005).mean()), 4),
        "within_1_percent": round(float((every <= 0.01).mean()), 4),
        "met": round(float(np.isfinite(every).mean()), 4),
        "median_percent": round(100 * float(np.median(every[np.isfinite(every)])), 4),
    }


def explained_photo(
    mesh: Mesh, scene: Scene, given: Given, pictures: Mapping[str, np.ndarray]
) -> dict[str, float]:
    caster, view = RayCaster(mesh), given.photo
    depth = caster.cast(view.camera, view.cam_from_world).depth
    points = transform(invert(view.cam_from_world), points_from_depth(view.camera.K, depth))
    own = grey(pictures[view.name])
    alike = np.full(own.shape, -1.0)
    for other in scene.neighbours(view, NEAREST):
        carried, seen = carried_over(caster, other, grey(pictures[other.name]), points, depth > 0)
        whole = uniform_filter(seen.astype(np.float64), PATCH) > 1 - 0.5 / PATCH**2
        alike = np.maximum(alike, np.where(whole, correlation(own, carried), -1))
    judged = deviation(own) >= MIN_CONTRAST
    return {
        "textured": round(float(judged.mean()), 4),
        "met": round(float((depth > 0)[judged].mean()), 4),
        "explained": round(float((alike >= LIKENESS)[judged].mean()), 4),
    }


def carried_over(
    caster: RayCaster, other: View, picture: np.ndarray, points: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Another photo's grey values at points of the surface (h, w, 3), and where it sees them."""
    points_cam = transform(other.cam_from_world, points)
    known = known & (points_cam[..., 2] > 0)
    uv = project(other.camera.K, np.where(known[..., None], points_cam, [0, 0, 1]))
    inside = ((uv > 0) & (uv < [other.camera.width, other.camera.height])).all(axis=-1)
    first = caster.cast(other.camera, other.cam_from_world).depth
    flat = uv.reshape(-1, 2)
    front = sample(first, flat).reshape(known.shape)
    seen = known & inside & (points_cam[..., 2] <= (1 + HIDDEN) * front)
    return sample(picture, flat).reshape(known.shape), seen


def grey(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.float64).mean(axis=2)


def deviation(values: np.ndarray) -> np.ndarray:
    mean = uniform_filter(values, PATCH)
    return np.sqrt(np.maximum(uniform_filter(values * values, PATCH) - mean**2, 0))


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    joint = uniform_filter(first * second, PATCH) - uniform_filter(first, PATCH) * uniform_filter(
        second, PATCH
    )
    return joint / np.maximum(deviation(first) * deviation(second), 1e-9)
