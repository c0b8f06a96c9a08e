"""Given poses refined where the photos contradict them.

Poses of trackers, of depth cameras beside the colour camera and of capture apps are often centimetres off, by
which points lie several pixels beside their keypoints: fewer are triangulated, at wrong depths, and photos
cannot be compared. Poses are then those of greatest posterior probability under the reprojection errors
and the given camera centres (Triggs et al. 2000, section 9: gauge freedom and priors), in COLMAP's adjuster.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from recon.io.colmap.model import ColmapModel, load_reconstruction
from recon.io.colmap.options import MIN_PAIR_INLIERS, load_pycolmap

MAX_ERROR_PX = 0.5  # median reprojection error of poses that stay; keypoints are 0.2 to 0.4 px off
MAX_SHARE_LEFT = 0.7  # of it, or the poses were not to blame
DOUBTFUL_PX = 0.9  # of the points of a model that is taken as it is
MIN_KEPT = 0.9  # of the observations
LOOSENED = (16.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0)  # round by round, thresholds over COLMAP's
MIN_ROUNDS, MIN_GROWTH = 5, 1.02  # then as long as there are so many times as many observations
KEYPOINT_PX = 0.5  # where reprojection errors begin to count linearly
MOVES = 1.0  # standard deviation of a centre, by what the errors in the photos amount to at the points


def refine_poses(
    model: Any, triangulate: Callable[[Any, float], Any], on_round: Callable[[int, int], None]
) -> tuple[Any, str]:
    """Returns the model with poses that fit the photos, and what users should know of it.

    Poses stay, and nothing is said, where points are within `MAX_ERROR_PX` of their keypoints (median). They
    stay, too, where others are not much closer, or where fewer points then have views from far enough apart:
    their poses tell little. Frame and scale are those of the given poses: as a whole the refined ones are not
    moved, turned or scaled against them. Photos with too few points keep their pose.

    Args:
        model: A pycolmap.Reconstruction of the given poses with points triangulated; it stays as it is.
        triangulate: Returns a model of the same poses with points triangulated anew, thresholds of errors
            and angles multiplied by a factor.
        on_round: Called with the rounds that are done, and the most there can be.
    """
    loosened = triangulate(model, LOOSENED[0])  # or points are left out for the very errors looked for
    before = _median_error(loosened)
    on_round(1, len(LOOSENED))
    if before <= MAX_ERROR_PX:
        return model, ""
    said = f"the photos contradict the given poses by {before:.1f} px"
    given = {image_id: model.image(image_id).cam_from_world() for image_id in sorted(model.reg_image_ids())}
    focal = float(np.median([camera.mean_focal_length() for camera in model.cameras.values()]))
    refined = _refined(loosened, given, MOVES * before / focal, triangulate, on_round)
    if refined is None or refined.compute_num_observations() < MIN_KEPT * model.compute_num_observations():
        return model, f"{said}, but do not tell better ones"
    after = _median_error(refined)
    if after > MAX_SHARE_LEFT * before:
        return model, f"{said}, and refined ones by {after:.1f}: they stay as they are"
    return refined, f"{said}, and refined ones by {after:.1f}: {_told(given, refined)}"


def doubts_about(model: ColmapModel) -> str:
    """Returns what users should know of a model whose points lie far beside their keypoints, "" else.

    Of models that were adjusted to their photos the median is 0.2 to 0.65 px, in photos of 640 to 4000 px.
    """
    reconstruction = load_reconstruction(model)
    reconstruction.update_point_3d_errors()
    errors = [point.error for point in reconstruction.points3D.values()]
    if not errors or np.median(errors) <= DOUBTFUL_PX:
        return ""
    return (
        f"the model's points lie {np.median(errors):.1f} px beside their keypoints (median): were its poses "
        "not found from these photos, retriangulate finds points anew and refines them"
    )


def _refined(
    model: Any,
    given: Mapping[int, Any],
    sigma: float,
    triangulate: Callable[[Any, float], Any],
    on_round: Callable[[int, int], None],
) -> Any:
    """The model adjusted and triangulated in turn, None where COLMAP finds no solution.

    sigma: standard deviation of a given centre, by the depth of the points; that of rotations, radians.
    """
    count = 0
    for done, factor in enumerate(LOOSENED[1:], 1):
        if done > MIN_ROUNDS and model.compute_num_observations() < MIN_GROWTH * count:
            break
        count = model.compute_num_observations()
        if not _adjust(model, given, sigma):
            return None
        model = triangulate(model, factor)
        on_round(done + 1, len(LOOSENED))
    return model


def _adjust(model: Any, given: Mapping[int, Any], sigma: float) -> bool:
    """Moves poses and points of a model, in place; False where COLMAP finds no solution."""
    pycolmap = load_pycolmap()
    told = [image_id for image_id in given if model.image(image_id).num_points3D >= MIN_PAIR_INLIERS]
    if len(told) < 2:
        return False
    centre_sigma = sigma * _median_depth(model)
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=False, refine_extra_params=False, print_summary=False
    )
    options.ceres.use_gpu = False
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.function_tolerance = 1e-6
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.loss_function_scale = KEYPOINT_PX
    config = pycolmap.BundleAdjustmentConfig()
    priors = []
    for image_id in told:
        config.add_image(image_id)
        prior = pycolmap.PosePrior(
            position=_center(given[image_id]),
            position_covariance=np.eye(3) * (centre_sigma / KEYPOINT_PX) ** 2,
            coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN,
        )
        prior.pose_prior_id, prior.corr_data_id = image_id, model.image(image_id).data_id
        priors.append(prior)
    prior_options = pycolmap.PosePriorBundleAdjustmentOptions()
    prior_options.alignment_ransac.random_seed = 0
    adjuster = pycolmap.create_pose_prior_ceres_bundle_adjuster(options, prior_options, config, priors, model)
    if not adjuster.solve().is_solution_usable():
        return False
    _put_back(model, {image_id: given[image_id] for image_id in told}, sigma, centre_sigma)
    for image_id in given.keys() - set(told):
        model.image(image_id).frame.rig_from_world = given[image_id]
    return True


def _put_back(model: Any, given: Mapping[int, Any], sigma: float, centre_sigma: float) -> None:
    """Moves, turns and scales a model as a whole so that its poses are, together, the given ones.

    Centres tell little of how cameras that hardly moved are turned; their rotations do.
    """
    pycolmap = load_pycolmap()
    poses = [model.image(image_id).cam_from_world() for image_id in given]
    centers, wanted = _centers(poses), _centers(list(given.values()))
    turned, right = _rotations(poses), _rotations(list(given.values()))
    start = (right.inv() * turned).mean()
    shift = wanted.mean(axis=0) - start.apply(centers).mean(axis=0)

    def moved(x: np.ndarray) -> tuple[Rotation, float, np.ndarray]:
        return start * Rotation.from_rotvec(x[:3] * sigma), float(np.exp(x[3])), shift + x[4:] * centre_sigma

    def errors(x: np.ndarray) -> np.ndarray:
        rotation, scale, offset = moved(x)
        far = (scale * rotation.apply(centers) + offset - wanted) / centre_sigma
        angles = (turned * rotation.inv() * right.inv()).as_rotvec() / sigma
        return np.concatenate([far.ravel(), angles.ravel()])

    rotation, scale, offset = moved(least_squares(errors, np.zeros(7), loss="soft_l1").x)
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation.as_matrix()), offset))


def _told(given: Mapping[int, Any], model: Any) -> str:
    poses = [model.image(image_id).cam_from_world() for image_id in given]
    moved = np.linalg.norm(_centers(poses) - _centers(list(given.values())), axis=1)
    turned = (_rotations(poses) * _rotations(list(given.values())).inv()).magnitude()
    return (
        f"cameras were moved by {np.median(moved):.2g} and turned by {np.degrees(np.median(turned)):.2g} "
        "degrees (median; keep-poses leaves them as given)"
    )


def _observed(model: Any) -> tuple[Float64[np.ndarray, "m"], Float64[np.ndarray, "m"]]:
    """Depth of each observed point, and how far it lies beside its keypoint, px."""
    depths, errors = [np.zeros(0)], [np.zeros(0)]
    for image_id in sorted(model.reg_image_ids()):
        image = model.image(image_id)
        seen = image.get_observation_points2D()
        if not seen:
            continue
        world = np.stack([model.point3D(keypoint.point3D_id).xyz for keypoint in seen])
        in_camera = world @ image.cam_from_world().rotation.matrix().T + image.cam_from_world().translation
        in_picture = model.camera(image.camera_id).img_from_cam(in_camera)
        depths.append(in_camera[:, 2])
        errors.append(np.linalg.norm(in_picture - np.stack([keypoint.xy for keypoint in seen]), axis=1))
    return np.concatenate(depths), np.nan_to_num(np.concatenate(errors), nan=np.inf)


def _median_error(model: Any) -> float:
    errors = _observed(model)[1]
    return float(np.median(errors)) if len(errors) else np.inf


def _median_depth(model: Any) -> float:
    return float(np.median(_observed(model)[0]))


def _center(cam_from_world: Any) -> Float64[np.ndarray, "3"]:
    return cam_from_world.inverse().translation


def _centers(poses: list[Any]) -> Float64[np.ndarray, "k 3"]:
    return np.stack([_center(pose) for pose in poses])


def _rotations(poses: list[Any]) -> Rotation:
    return Rotation.from_matrix(np.stack([pose.rotation.matrix() for pose in poses]))
