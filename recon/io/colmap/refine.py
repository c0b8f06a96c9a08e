"""Principal points refined where the photos determine them.

COLMAP keeps the principal point in the centre of the photo, for with few photos it trades against rotation
and distortion. Where there are enough it is worth freeing: on fountain-P11 (true offset 0.7 % of the size) it
halves the error of the camera centres. So one last bundle adjustment frees it, and its covariance decides.
"""

from typing import Any

import numpy as np

from recon.io.colmap.options import load_pycolmap

MAX_DEVIATION = 1e-3  # standard deviation per longer side; lenses are centred to some 1e-2
MAX_PHOTOS = 300  # the covariance is dense over all poses


def refine_principal_points(reconstruction: Any) -> Any:
    """Returns a bundle-adjusted model with free principal points, or the given one if they are uncertain.

    Minimises the summed squared reprojection error over poses, lenses and points. Uncertain: a camera's
    principal point has a standard deviation above `MAX_DEVIATION` of its longer side, by the inverse of the
    normal matrix scaled by the residuals' variance.

    Args:
        reconstruction: A pycolmap.Reconstruction; it stays as it is.
    """
    if reconstruction.num_reg_images() > MAX_PHOTOS:
        return reconstruction
    pycolmap = load_pycolmap()
    refined = pycolmap.Reconstruction(reconstruction)
    options = pycolmap.BundleAdjustmentOptions(refine_principal_point=True, print_summary=False)
    options.ceres.use_gpu = False
    options.ceres.solver_options.num_threads = 1
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in refined.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, refined)
    if not adjuster.solve().is_solution_usable():
        return reconstruction
    refined.update_point_3d_errors()
    return refined if _are_certain(refined, adjuster) else reconstruction


def _are_certain(reconstruction: Any, adjuster: Any) -> bool:
    pycolmap = load_pycolmap()
    options = pycolmap.BACovarianceOptions(params=pycolmap.BACovarianceOptionsParams.ALL)
    covariance = pycolmap.estimate_ba_covariance(options, reconstruction, adjuster)
    if covariance is None:
        return False
    used = {reconstruction.image(image_id).camera_id for image_id in reconstruction.reg_image_ids()}
    residual_px = reconstruction.compute_mean_reprojection_error()
    for camera_id in used:
        camera = reconstruction.camera(camera_id)
        of_lens = covariance.get_other_params_cov(camera.params)
        if of_lens is None:
            return False
        variances = np.diag(of_lens)[camera.principal_point_idxs()]
        if not np.sqrt(variances.max()) * residual_px < MAX_DEVIATION * max(camera.width, camera.height):
            return False
    return True
