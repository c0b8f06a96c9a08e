"""Structure from motion: photos to poses, lenses and sparse points (COLMAP, Schoenberger and Frahm 2016).

Same photos and options give the same bytes: photos are numbered by name before anything runs in parallel,
every random choice has a seed, and mapping and each process that matches use one thread: sums over threads
depend on their order, and `pair_matching` says what else.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError, PipelineError
from recon.io.colmap.features import PhotoFeatures, Progress, extract_features
from recon.io.colmap.mapping import map_photos
from recon.io.colmap.matching import (
    PairMatches,
    build_database,
    count_matches,
    initial_cameras,
    scale_camera,
)
from recon.io.colmap.model import ColmapModel, model_from_reconstruction
from recon.io.colmap.options import MIN_PAIR_INLIERS, SfmOptions, load_pycolmap
from recon.io.colmap.pair_matching import match_pairs
from recon.io.colmap.pairs import choose_pairs, posed_pairs
from recon.io.colmap.poses import refine_poses
from recon.io.colmap.refine import refine_principal_points
from recon.scene import Lens, View

SPACE_BYTES, PHOTO_BYTES = 16e6, 3e6  # free disk: at least, and per photo (features twice, matches)
ADVICE = "take photos that overlap by two thirds, sharp, of a scene that stands still"


def reconstruct(
    photos: Mapping[str, Path],
    work_dir: Path,
    options: SfmOptions,
    *,
    masks: Path | None = None,
    ordered: bool = False,
    on_progress: Progress | None = None,
) -> ColmapModel:
    """Returns cameras, poses and sparse points of the largest set of photos that belong together.

    All others are in `dropped` with their reason. A run that was killed goes on where it stopped.

    Args:
        photos: The photo's name (path below the photo folder) -> its file.
        work_dir: Keeps features and matches; the same folder again saves that work.
        options: How.
        masks: Folder of masks named as in `recon.io.images.read_mask`; False pixels get no features.
        ordered: The photos are frames of a video in the order of `photos`.
        on_progress: Called with (step, done, total); steps are features, matching, mapping.

    Raises:
        PipelineError: Fewer than two photos, or no two of them could be placed.
        InputError: An option or a mask does not fit the photos.
    """
    report = on_progress or _no_progress
    chosen = dict(photos) if ordered else dict(sorted(photos.items()))
    _check_space(work_dir, len(chosen))
    features, dropped = _features(chosen, work_dir, options, masks, report)
    cameras = initial_cameras(features, options)
    pairs = choose_pairs(features, options, ordered)
    database = build_database(work_dir, features, cameras, pairs)
    match_pairs(database, features, cameras, pairs, options.seed, report)
    matches = count_matches(database)
    models = map_photos(database, work_dir, options, report)
    if not models:
        raise PipelineError(_nothing_placed(features, matches))
    dropped |= _reasons(features, models, matches)
    best = models[0] if options.fix_lens else refine_principal_points(models[0])
    _to_photo_pixels(best, features)
    return _finished(best, features, dropped)


def triangulate(
    photos: Mapping[str, Path],
    views: Sequence[View],
    work_dir: Path,
    options: SfmOptions,
    *,
    keep_poses: bool = False,
    on_progress: Progress | None = None,
) -> ColmapModel:
    """Returns sparse points of views whose poses and lenses are known.

    Poses that the photos contradict are refined (`poses`), in the frame and scale of the given ones, and the
    model's note says so; others and all lenses stay exactly as given.

    Args:
        photos: The photo's name -> its file. Photos without a view are dropped.
        views: A view without a lens is a pinhole picture with `view.camera`, at the size of the photo.
        work_dir: As in `reconstruct`.
        options: Size and number of features, neighbors, seed.
        keep_poses: All poses stay as given.
        on_progress: As in `reconstruct`; steps are features, matching, triangulation, poses.

    Raises:
        PipelineError: Fewer than two views have a photo, or no point could be triangulated.
    """
    report = on_progress or _no_progress
    posed = {view.name: view for view in sorted(views, key=lambda view: view.name) if view.name in photos}
    _check_space(work_dir, len(posed))
    features, dropped = _features({name: photos[name] for name in posed}, work_dir, options, None, report)
    dropped |= {name: "no pose was given" for name in photos if name not in posed}
    known = [posed[item.name] for item in features]
    exact = [
        _known_camera(view, item, index)
        for index, (view, item) in enumerate(zip(known, features, strict=True))
    ]
    cameras = [_shrunk(camera, item) for camera, item in zip(exact, features, strict=True)]
    pairs = posed_pairs(known, options.neighbors)
    database = build_database(work_dir, features, cameras, pairs)
    match_pairs(database, features, cameras, pairs, options.seed, report)

    def triangulated(model: Any, loosened: float = 1.0) -> Any:
        return _triangulated(database, work_dir, options, model, loosened)

    reconstruction, note = triangulated(_posed_model(known, cameras)), ""
    report("triangulation", 1, 1)
    if not reconstruction.num_points3D():
        raise PipelineError(
            f"triangulation: no point of {len(features)} photos agrees with the given poses; "
            "wanted poses of these photos, in OpenCV's camera frame"
        )
    if not keep_poses:
        reconstruction, note = refine_poses(reconstruction, triangulated, partial(report, "poses"))
        report("poses", 1, 1)
    _to_photo_pixels(reconstruction, features)
    for camera in exact:
        reconstruction.camera(camera.camera_id).params = camera.params
    reconstruction.update_point_3d_errors()
    return replace(_finished(reconstruction, features, dropped), note=note)


def _check_space(work_dir: Path, photos: int) -> None:
    """Refuses a disk that is too full: COLMAP ends the process where it cannot write its database."""
    work_dir.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(work_dir).free, SPACE_BYTES + photos * PHOTO_BYTES
    if free < needed:
        raise InputError(
            f"{work_dir}: {free / 1e6:.0f} MB free on the disk, about {needed / 1e6:.0f} MB wanted for "
            f"features and matches of {photos} photos"
        )


def _no_progress(step: str, done: int, total: int) -> None:
    pass


def _features(
    photos: Mapping[str, Path], work_dir: Path, options: SfmOptions, masks: Path | None, report: Progress
) -> tuple[list[PhotoFeatures], dict[str, str]]:
    """Features of at least two photos, and the unreadable photos."""
    if len(photos) < 2:
        raise PipelineError(f"structure from motion: {len(photos)} of at least 2 photos found; {ADVICE}")
    features, dropped = extract_features(
        photos, work_dir / "features", options, masks=masks, on_progress=report
    )
    if len(features) < 2:
        raise PipelineError(
            f"structure from motion: {len(features)} of {len(photos)} photos can be read, at least 2 wanted "
            f"({next(iter(dropped.values()))})"
        )
    return features, dropped


def _nothing_placed(features: Sequence[PhotoFeatures], matches: PairMatches) -> str:
    table = matches.verified if any(matches.verified.values()) else matches.raw
    found = "no two of them have a match"
    if any(table.values()):
        (i, j), count = max(table.items(), key=lambda item: item[1])
        found = f"best pair: {count} matches between {features[i].name} and {features[j].name}"
    return (
        f"structure from motion: none of {len(features)} photos could be placed ({found}, wanted about 100 "
        f"and a change of viewpoint); {ADVICE}"
    )


def _reasons(
    features: Sequence[PhotoFeatures], models: Sequence[Any], matches: PairMatches
) -> dict[str, str]:
    """Why each photo is not in the largest model."""
    placed = [{image_id - 1 for image_id in model.reg_image_ids()} for model in models]
    missing = [index for index in range(len(features)) if index not in placed[0]]
    return {features[index].name: _reason(index, features, placed, matches) for index in missing}


def _reason(
    index: int, features: Sequence[PhotoFeatures], placed: Sequence[set[int]], matches: PairMatches
) -> str:
    if not features[index].count:
        return "no features: blurred, blank, or masked out"
    for members in placed[1:]:
        if index in members:
            return f"in a separate model of {len(members)} photos, not connected to the largest"
    other, count, verified = matches.best(index)
    if other < 0:
        return "no matches with any other photo"
    best = f"{count} with {features[other].name}"
    if not verified:
        return f"too few matches with any other photo (best: {best}; {MIN_PAIR_INLIERS} must agree)"
    if other in placed[0]:
        return f"registered by no model: too few of its matches are triangulated points (best: {best})"
    other, count, _ = matches.best(index, placed[0])
    found = f"{count} matches at most ({features[other].name})" if other >= 0 else "no matches"
    return (
        f"{found} with the photos that were placed; its best, {best}, is left out as well: "
        "photos from between them would connect both"
    )


def _to_photo_pixels(reconstruction: Any, features: Sequence[PhotoFeatures]) -> None:
    """Puts a model in working pixels into pixels of the photos as taken."""
    scaled: set[int] = set()
    for image_id in reconstruction.images:
        image, item = reconstruction.image(image_id), features[image_id - 1]
        if image.camera_id not in scaled:
            scaled.add(image.camera_id)
            camera = reconstruction.camera(image.camera_id)
            larger = scale_camera(camera, item.unit, item.width, item.height)
            camera.width, camera.height, camera.params = larger.width, larger.height, larger.params
        for keypoint in image.points2D:
            keypoint.xy = keypoint.xy * item.unit
    reconstruction.update_point_3d_errors()


def _finished(
    reconstruction: Any, features: Sequence[PhotoFeatures], dropped: Mapping[str, str]
) -> ColmapModel:
    """Gives the images their names and the points the mean colour of their keypoints."""
    colors = {image_id: features[image_id - 1].colors() for image_id in reconstruction.reg_image_ids()}
    for point in reconstruction.points3D.values():
        seen = [colors[element.image_id][element.point2D_idx] for element in point.track.elements]
        point.color = np.round(np.mean(seen, axis=0)).astype(np.uint8)
    for image_id in reconstruction.images:
        reconstruction.image(image_id).name = features[image_id - 1].name
    return model_from_reconstruction(reconstruction, dict(sorted(dropped.items())))


def _known_camera(view: View, item: PhotoFeatures, index: int) -> Any:
    """The view's lens as a pycolmap.Camera of the photo as taken."""
    lens = view.lens
    if lens is None:
        K = view.camera.resized(item.width, item.height).K
        if abs(K[0, 1]) > 1e-9 * K[0, 0]:
            raise InputError(f"{view.name}: K has skew {K[0, 1]:.3g}, COLMAP's cameras have none")
        lens = Lens("PINHOLE", np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]), item.width, item.height)
    camera = load_pycolmap().Camera(
        camera_id=index + 1, model=lens.model, width=lens.width, height=lens.height, params=lens.params
    )
    camera.has_prior_focal_length = True
    if (lens.width, lens.height) == (item.width, item.height):
        return camera
    return scale_camera(
        camera, max(item.width, item.height) / max(lens.width, lens.height), item.width, item.height
    )


def _shrunk(camera: Any, item: PhotoFeatures) -> Any:
    width, height = (max(1, round(side / item.unit)) for side in (item.width, item.height))
    return scale_camera(camera, 1 / item.unit, width, height)


def _posed_model(views: Sequence[View], cameras: Sequence[Any]) -> Any:
    pycolmap = load_pycolmap()
    model = pycolmap.Reconstruction()
    for index, (view, camera) in enumerate(zip(views, cameras, strict=True)):
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=f"{index:06d}", camera_id=camera.camera_id, image_id=index + 1)
        pose = pycolmap.Rigid3d(
            pycolmap.Rotation3d(np.ascontiguousarray(view.cam_from_world[:3, :3])), view.cam_from_world[:3, 3]
        )
        model.add_image_with_trivial_frame(image, pose)
    return model


def _triangulated(database: Path, work_dir: Path, options: SfmOptions, model: Any, loosened: float) -> Any:
    """A model of the same poses with points triangulated anew, thresholds `loosened` times COLMAP's."""
    pycolmap = load_pycolmap()
    folder = work_dir / "triangulation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = pycolmap.IncrementalPipelineOptions(
        random_seed=options.seed, num_threads=1, extract_colors=False
    )
    rules = settings.triangulation
    rules.ignore_two_view_tracks = model.num_images() > 2  # two photos have no others
    rules.create_max_angle_error *= loosened
    rules.continue_max_angle_error *= loosened
    rules.merge_max_reproj_error *= loosened
    rules.complete_max_reproj_error *= loosened
    settings.mapper.filter_max_reproj_error *= loosened
    copy = pycolmap.Reconstruction(model)  # COLMAP changes what it is given
    result = pycolmap.triangulate_points(copy, database, folder, folder, True, settings, False)
    shutil.rmtree(folder)
    return result
