"""Poses and points from matched photos, by COLMAP's incremental or global mapper."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recon.io.colmap.features import Progress
from recon.io.colmap.options import MIN_PAIR_INLIERS, SfmOptions, load_pycolmap

RELAXED_START_ANGLE_DEG = (
    4.0  # COLMAP wants 16, and 8 if there is none; photos taken close together have less
)


def map_photos(database: Path, work_dir: Path, options: SfmOptions, report: Progress) -> list[Any]:
    """Returns all models of matched photos, largest first; equal databases and options give equal bytes."""
    folder = work_dir / "mapping"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mapper = _map_globally if options.mapper == "global" else _map_incrementally
    models = list(mapper(database, folder, options, report).values())
    shutil.rmtree(folder)
    models = [model for model in models if model.num_reg_images() >= 2 and model.num_points3D()]
    return sorted(models, key=lambda model: (-model.num_reg_images(), -model.num_points3D()))


def _incremental_options(options: SfmOptions, relaxed: bool = False) -> Any:
    """Settings of the incremental mapper; the relaxed ones start from narrower pairs and keep distortion."""
    mapping = load_pycolmap().IncrementalPipelineOptions(
        random_seed=options.seed,
        num_threads=1,
        min_model_size=2,
        extract_colors=False,
        ba_refine_focal_length=not options.fix_lens,
        ba_refine_extra_params=not (options.fix_lens or relaxed),
    )
    mapping.mapper.abs_pose_refine_focal_length = not options.fix_lens
    mapping.mapper.abs_pose_refine_extra_params = not (options.fix_lens or relaxed)
    if relaxed:
        mapping.mapper.init_min_tri_angle = RELAXED_START_ANGLE_DEG
        mapping.triangulation.ignore_two_view_tracks = False  # two photos have no others
    return mapping


def _map_incrementally(database: Path, folder: Path, options: SfmOptions, report: Progress) -> dict[int, Any]:
    pycolmap = load_pycolmap()
    opened = pycolmap.Database.open(database)
    total = opened.num_images()
    opened.close()

    def run(relaxed: bool) -> dict[int, Any]:
        placed = iter(range(1, total))
        report("mapping", 0, total)
        return pycolmap.incremental_mapping(
            database,
            folder,
            folder,
            _incremental_options(options, relaxed),
            next_image_callback=lambda: report("mapping", next(placed, total - 1) + 1, total),
        )

    models = run(relaxed=False)
    relaxed = 2 * _largest_size(models) < total
    if relaxed:
        models = max(models, run(relaxed=True), key=_largest_size)
    if models and (relaxed or _largest_size(models) < total):
        largest = max(models, key=lambda number: (models[number].num_reg_images(), -number))
        models[largest] = _extended(models[largest], database, folder / "extended", options)
    report("mapping", total, total)
    return models


def _largest_size(models: Mapping[int, Any]) -> int:
    return max((model.num_reg_images() for model in models.values()), default=0)


def _extended(model: Any, database: Path, folder: Path, options: SfmOptions) -> Any:
    """The model with the photos that fewer matches place; they come last and so mislead no others."""
    pycolmap = load_pycolmap()
    start, end = folder / "start", folder / "end"
    start.mkdir(parents=True)
    end.mkdir()
    model.write_binary(start)
    mapping = _incremental_options(options)
    mapping.multiple_models = False
    mapping.mapper.abs_pose_min_num_inliers = MIN_PAIR_INLIERS
    larger = pycolmap.incremental_mapping(database, folder, end, mapping, start)
    return max([model, *larger.values()], key=lambda found: found.num_reg_images())


def _map_globally(database: Path, folder: Path, options: SfmOptions, report: Progress) -> dict[int, Any]:
    pycolmap = load_pycolmap()
    mapping = pycolmap.GlobalPipelineOptions(random_seed=options.seed, num_threads=1, min_model_size=2)
    mapping.mapper.random_seed, mapping.mapper.num_threads = options.seed, 1
    mapping.mapper.global_positioning.use_gpu = False
    mapping.mapper.bundle_adjustment.ceres.use_gpu = False
    mapping.mapper.bundle_adjustment.refine_focal_length = not options.fix_lens
    mapping.mapper.bundle_adjustment.refine_extra_params = not options.fix_lens
    report("mapping", 0, 1)
    models = pycolmap.global_mapping(database, folder, folder, mapping)
    report("mapping", 1, 1)
    return models
