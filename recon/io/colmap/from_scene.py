"""A scene as a COLMAP model: for scenes that other programs, or the synthetic worlds, made."""

import numpy as np

from recon.errors import InputError
from recon.io.colmap.model import ColmapModel, model_from_reconstruction
from recon.io.colmap.options import load_pycolmap
from recon.scene import Scene


def model_from_scene(scene: Scene) -> ColmapModel:
    """Returns the views as PINHOLE cameras with their poses, and the sparse points with their tracks.

    Raises:
        InputError: A view's K has skew, which COLMAP's pinhole camera has not.
    """
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction()
    observed = _observations(scene)
    for index, view in enumerate(scene.views):
        K = view.camera.K
        if abs(K[0, 1]) > 1e-9 * K[0, 0]:
            raise InputError(f"{view.name}: K has skew {K[0, 1]:.3g}, COLMAP's cameras have none")
        camera = pycolmap.Camera(
            camera_id=index + 1,
            model="PINHOLE",
            width=view.camera.width,
            height=view.camera.height,
            params=[K[0, 0], K[1, 1], K[0, 2], K[1, 2]],
        )
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(
            name=view.name, camera_id=index + 1, image_id=index + 1, keypoints=observed[index][1]
        )
        rotation = pycolmap.Rotation3d(np.ascontiguousarray(view.cam_from_world[:3, :3]))
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(rotation, view.cam_from_world[:3, 3]))
    if scene.cloud is not None:
        tracks: list[list[tuple[int, int]]] = [[] for _ in scene.cloud.points]
        for index, (points, _) in enumerate(observed):
            for keypoint, point in enumerate(points):
                tracks[point].append((index + 1, keypoint))
        for row, track in enumerate(tracks):
            elements = [pycolmap.TrackElement(image, keypoint) for image, keypoint in track]
            cloud = scene.cloud
            identity = model.add_point3D(cloud.points[row], pycolmap.Track(elements), cloud.colors[row])
            model.point3D(identity).error = cloud.errors[row]
    return model_from_reconstruction(model, scene.dropped)


def _observations(scene: Scene) -> list[tuple[np.ndarray, np.ndarray]]:
    """Points and pixels that each view observes."""
    if scene.cloud is None:
        return [(np.zeros(0, np.int64), np.zeros((0, 2))) for _ in scene.views]
    by_view = scene.cloud.seen[:, 1]
    rows = [np.flatnonzero(by_view == index) for index in range(len(scene.views))]
    return [(scene.cloud.seen[chosen, 0], scene.cloud.uv[chosen]) for chosen in rows]
