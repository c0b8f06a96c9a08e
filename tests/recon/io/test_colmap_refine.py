"""The principal point is refined where the photos determine it, and left in the centre elsewhere."""

import numpy as np
import pycolmap

from recon.io.colmap.refine import refine_principal_points

TRUE_PARAMS = np.array([1280.0, 520.0, 377.0, 0.05])


def centred(frames: int, points: int) -> pycolmap.Reconstruction:
    """A model with 0.3 px noise whose principal point was put into the centre of the photos, 1024 x 768."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=frames, num_points3D=points)
    options.camera_params = TRUE_PARAMS
    model = pycolmap.synthesize_dataset(options)
    pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=0.3), model)
    model.camera(1).params = np.array([1280.0, 512.0, 384.0, 0.05])
    model.update_point_3d_errors()
    return model


def test_many_photos_find_the_principal_point():
    refined = refine_principal_points(centred(frames=15, points=400))
    np.testing.assert_allclose(refined.camera(1).params[:3], TRUE_PARAMS[:3], atol=0.5)
    assert refined.compute_mean_reprojection_error() < 0.45


def test_few_points_leave_the_principal_point_in_the_centre():
    model = centred(frames=3, points=12)
    assert refine_principal_points(model) is model
    np.testing.assert_array_equal(model.camera(1).params[1:3], [512, 384])
