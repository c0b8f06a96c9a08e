"""COLMAP's database: cameras, features, and the matches of photo pairs that fit one geometry.

Photos have their index as name there: COLMAP's pair lists know no spaces.
"""

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from recon.io.colmap.features import PhotoFeatures
from recon.io.colmap.options import SfmOptions, load_pycolmap
from recon.io.files import replaced

FOCAL_PER_SIZE = 1.2  # COLMAP's guess for an unknown lens: 45 degrees across the longer side


@dataclass(frozen=True, eq=False)
class PairMatches:
    """How well photos match: (i, j) -> number of matches."""

    raw: dict[tuple[int, int], int]
    """By descriptor alone."""

    verified: dict[tuple[int, int], int]
    """That fit one two-view geometry."""

    def best(self, index: int, among: Container[int] | None = None) -> tuple[int, int, bool]:
        """Returns (other photo, matches, whether verified) of the photo's best pair; other = -1 if none.

        Args:
            index: Of the photo.
            among: The others that count; all if not given.
        """
        for table, is_verified in ((self.verified, True), (self.raw, False)):
            mine = [
                (count, -(i + j - index))
                for (i, j), count in table.items()
                if index in (i, j) and count and (among is None or i + j - index in among)
            ]
            if mine:
                count, other = max(mine)
                return -other, count, is_verified
        return -1, 0, False


def initial_cameras(features: Sequence[PhotoFeatures], options: SfmOptions) -> list[Any]:
    """Returns a pycolmap.Camera in working pixels per photo; photos that share a lens share `camera_id`."""
    groups: dict[tuple[object, ...], int] = {}
    cameras: list[Any] = []
    for index, item in enumerate(features):
        key: tuple[object, ...] = (item.width, item.height)
        if options.single_camera != "one":
            key += (item.camera_label, item.focal_px)
        if options.single_camera == "each":
            key += (index,)
        cameras.append(_camera(item, options, groups.setdefault(key, len(groups) + 1)))
    return cameras


def scale_camera(camera: Any, factor: float, width: int, height: int) -> Any:
    """Returns a pycolmap.Camera for a picture `factor` times as large, exactly alike in both directions."""
    params = np.array(camera.params, float)
    scaled = [*camera.focal_length_idxs(), *camera.principal_point_idxs()]
    params[scaled] *= factor
    result = load_pycolmap().Camera(
        camera_id=camera.camera_id, model=camera.model, width=width, height=height, params=params
    )
    result.has_prior_focal_length = camera.has_prior_focal_length
    return result


def _camera(item: PhotoFeatures, options: SfmOptions, camera_id: int) -> Any:
    pycolmap = load_pycolmap()
    focal = options.focal_px or item.focal_px
    camera = pycolmap.Camera.create_from_model_name(
        camera_id,
        options.camera_model,
        focal or FOCAL_PER_SIZE * max(item.width, item.height),
        item.width,
        item.height,
    )
    if options.camera_params:
        camera.params = np.array(options.camera_params, float)
    camera.has_prior_focal_length = focal is not None or bool(options.camera_params)
    width, height = (max(1, round(side / item.unit)) for side in (item.width, item.height))
    return scale_camera(camera, 1 / item.unit, width, height)


def build_database(
    folder: Path, features: Sequence[PhotoFeatures], cameras: Sequence[Any], pairs: Int64[np.ndarray, "p 2"]
) -> Path:
    """Returns the database of these photos, cameras and pairs, with what is already matched in it."""
    digest = hashlib.blake2b(pairs.tobytes(), digest_size=16)
    for item, camera in zip(features, cameras, strict=True):
        lens = (camera.camera_id, camera.model_name, camera.params.tolist(), camera.has_prior_focal_length)
        digest.update(repr((item.name, item.file.name, lens)).encode())
    path = folder / f"matches-{digest.hexdigest()}.db"
    if not path.is_file():
        with replaced(path) as temporary:
            fill_database(temporary, features, cameras, range(len(features)))
    return path


def fill_database(
    path: Path, features: Sequence[PhotoFeatures], cameras: Sequence[Any], chosen: Iterable[int]
) -> None:
    """Makes a database of some of the photos; each has the id index + 1 there, as in that of all photos."""
    pycolmap = load_pycolmap()
    database = pycolmap.Database.open(path)
    for camera in {camera.camera_id: camera for camera in cameras}.values():
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=camera.camera_id)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
    for index in chosen:
        item, camera = features[index], cameras[index]
        image = pycolmap.Image(name=working_name(index), camera_id=camera.camera_id, image_id=index + 1)
        frame = pycolmap.Frame(frame_id=index + 1, rig_id=camera.camera_id)
        frame.add_data_id(image.data_id)
        database.write_image(image, use_image_id=True)
        database.write_frame(frame, use_frame_id=True)
        database.write_keypoints(image.image_id, item.keypoints())
        sift = pycolmap.FeatureExtractorType.SIFT
        database.write_descriptors(
            image.image_id, pycolmap.FeatureDescriptors(type=sift, data=item.descriptors())
        )
    database.close()


def working_name(index: int) -> str:
    """Returns the name of a photo in the database."""
    return f"{index:06d}"


def count_matches(database: Path) -> PairMatches:
    """Returns the numbers of matches in a database."""
    pycolmap = load_pycolmap()
    opened = pycolmap.Database.open(database)
    raw, verified = opened.read_num_matches(), opened.read_two_view_geometry_num_inliers()
    opened.close()
    return PairMatches(raw=_by_pair(*raw), verified=_by_pair(*verified))


def _by_pair(pair_ids: Sequence[int], counts: Sequence[int]) -> dict[tuple[int, int], int]:
    split = load_pycolmap().pair_id_to_image_pair
    table: dict[tuple[int, int], int] = defaultdict(int)
    for pair_id, count in zip(pair_ids, counts, strict=True):
        first, second = split(pair_id)
        table[first - 1, second - 1] = count
    return dict(table)
