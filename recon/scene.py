"""The values that travel through a reconstruction: frozen dataclasses of arrays, checked once when made."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from recon.errors import InputError, ViewError
from recon.geometry import invert, project, projection_jacobian, transform

PREDICTION_KINDS = ("metric", "scale", "affine", "affine_disparity")
KEYPOINT_SIGMA_PX = 0.7  # of a SIFT keypoint along u or v (0.5 to 1 in the literature), if nothing tells
KEYPOINT_RANGE_PX = (0.2, 2.0)  # of that which the reprojection errors of a scene tell
MIN_KEYPOINT_POINTS = 30  # whose errors tell
KEYPOINT_FREEDOM = 10.0  # degrees of freedom that the typical keypoint has against a point's own
MIN_TRACK_LENGTH = 3  # points seen twice only are wrong too often to anchor a depth map
MAX_REPROJECTION_ERROR_PX = 2.0
HIDING_NEIGHBOURS, HIDING_POINTS = 12, 2  # of its nearest in the picture, so many nearer ones hide a point
HIDING_SHARE = 0.85  # of its depth, below which they are nearer
LEAST_INFORMATION = 1e-12  # of a point's information: what one view alone sees is nowhere, not at NaN
NO_INFORMATION = 1e-200  # of points that no view of the scene sees
MIN_TRIANGULATION_ANGLE_DEG = 1.5  # below this triangulated depth is noise


def _check(array: Any, shape: tuple[int | None, ...], dtype: type, where: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise InputError(
            f"{where}: {getattr(array, 'dtype', type(array).__name__)}, wanted {np.dtype(dtype)}"
        )
    if array.ndim != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        wanted = tuple("n" if size is None else size for size in shape)
        raise InputError(f"{where}: shape {array.shape}, wanted {wanted}")


def _check_finite(array: np.ndarray, where: str) -> None:
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise InputError(f"{where}: {bad} of {array.size} values are NaN or infinite")


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera without distortion."""

    K: Float64[np.ndarray, "3 3"]
    """Intrinsics, px; the centre of the first pixel is (0.5, 0.5)."""

    width: int
    height: int

    def __post_init__(self) -> None:
        _check(self.K, (3, 3), np.float64, "Camera.K")
        _check_finite(self.K, "Camera.K")
        if self.width < 1 or self.height < 1:
            raise InputError(f"Camera: size {self.width}x{self.height}, wanted at least 1x1")
        if self.K[0, 0] <= 0 or self.K[1, 1] <= 0 or not np.array_equal(self.K[2], [0, 0, 1]):
            raise InputError(
                f"Camera.K: {self.K.tolist()}, wanted positive focal lengths and a last row of 0 0 1"
            )

    @classmethod
    def from_fov(cls, width: int, height: int, fov_deg: float) -> "Camera":
        """Makes a camera with square pixels and centred axis from its horizontal field of view, degrees."""
        if not 0 < fov_deg < 180:
            raise InputError(f"field of view {fov_deg} degrees, wanted between 0 and 180")
        focal = width / (2 * np.tan(np.radians(fov_deg) / 2))
        return cls(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), width, height)

    @property
    def fov_deg(self) -> float:
        """Horizontal field of view, degrees, of a camera with a centred axis."""
        return float(np.degrees(2 * np.arctan(self.width / (2 * self.K[0, 0]))))

    def resized(self, width: int, height: int) -> "Camera":
        """Returns the camera of the same picture resampled to another size."""
        scale = np.diag([width / self.width, height / self.height, 1])
        return Camera(scale @ self.K, width, height)

    def fitted(self, max_size: int) -> "Camera":
        """Returns the camera of the picture shrunk so that its longer side is at most `max_size` pixels."""
        factor = min(1.0, max_size / max(self.width, self.height))
        return self.resized(max(1, round(self.width * factor)), max(1, round(self.height * factor)))


@dataclass(frozen=True, eq=False)
class Lens:
    """The camera of a photo as taken, before undistortion: one of COLMAP's models."""

    model: str
    """COLMAP's name: SIMPLE_RADIAL, OPENCV, OPENCV_FISHEYE, ..."""

    params: Float64[np.ndarray, "n"]
    """In COLMAP's order, px."""

    width: int
    height: int

    def __post_init__(self) -> None:
        _check(self.params, (None,), np.float64, "Lens.params")
        _check_finite(self.params, "Lens.params")


@dataclass(frozen=True, eq=False)
class View:
    """One posed photo. Its pixels stay on disk until a stage reads them."""

    name: str
    """The photo's path below the photo folder, with its ending."""

    camera: Camera
    """Of the undistorted photo."""

    cam_from_world: Float64[np.ndarray, "4 4"]

    image: Path | None = None
    """The photo as taken; None where there is none."""

    lens: Lens | None = None
    """How the photo as taken is distorted; None for a photo that already is a pinhole picture."""

    def __post_init__(self) -> None:
        where = f"View {self.name}: cam_from_world"
        _check(self.cam_from_world, (4, 4), np.float64, where)
        _check_finite(self.cam_from_world, where)
        rotation = self.cam_from_world[:3, :3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-5) or np.linalg.det(rotation) < 0:
            raise InputError(f"{where}: its left 3x3 block is no rotation")

    @property
    def center(self) -> Float64[np.ndarray, "3"]:
        """Camera centre, world frame."""
        return invert(self.cam_from_world)[:3, 3]


@dataclass(frozen=True, eq=False)
class SparseDepth:
    """Points of known depth that one view sees: from SfM, a tracker or a lidar."""

    uv: Float64[np.ndarray, "n 2"]
    """Pixels of the view's camera."""

    depth: Float64[np.ndarray, "n"]
    sigma: Float64[np.ndarray, "n"]
    """Standard deviation of depth, scene units."""

    def __post_init__(self) -> None:
        _check(self.uv, (None, 2), np.float64, "SparseDepth.uv")
        _check(self.depth, (len(self.uv),), np.float64, "SparseDepth.depth")
        _check(self.sigma, (len(self.uv),), np.float64, "SparseDepth.sigma")
        _check_finite(self.uv, "SparseDepth.uv")
        if not (self.depth > 0).all() or not (self.sigma > 0).all():
            raise InputError("SparseDepth: depth and sigma must be positive")

    def __len__(self) -> int:
        return len(self.depth)

    def values_of(self, picture: np.ndarray) -> np.ndarray:
        """Returns the values of a map, its pixels those of the points; a point beside it has its nearest."""
        column, row = np.floor(self.uv).astype(np.int64).T
        height, width = picture.shape[:2]
        return np.asarray(picture[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)])

    def resized(self, source: Camera, target: Camera) -> "SparseDepth":
        """Returns the same points with pixels of the resampled picture."""
        return replace(self, uv=self.uv * [target.width / source.width, target.height / source.height])


@dataclass(frozen=True, eq=False)
class SparseCloud:
    """Triangulated points and the views that see them."""

    points: Float64[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]
    errors: Float64[np.ndarray, "n"]
    """Mean reprojection error, px of the photos as taken."""

    seen: Int64[np.ndarray, "m 2"]
    """One row per observation: (index of the point, index of the view)."""

    uv: Float64[np.ndarray, "m 2"]
    """Where the observation is, undistorted pixels of that view's camera."""

    def __post_init__(self) -> None:
        _check(self.points, (None, 3), np.float64, "SparseCloud.points")
        _check(self.colors, (len(self.points), 3), np.uint8, "SparseCloud.colors")
        _check(self.errors, (len(self.points),), np.float64, "SparseCloud.errors")
        _check(self.seen, (None, 2), np.int64, "SparseCloud.seen")
        _check(self.uv, (len(self.seen), 2), np.float64, "SparseCloud.uv")
        _check_finite(self.points, "SparseCloud.points")


@dataclass(frozen=True, eq=False)
class Scene:
    """Posed views of one world and the sparse points between them."""

    views: tuple[View, ...]
    cloud: SparseCloud | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Photos that have no pose, with the reason."""

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if len(set(names)) != len(names):
            raise InputError("Scene: two views have the same name")

    def view(self, name: str) -> View:
        """Returns the view of that name.

        Raises:
            InputError: There is none.
        """
        for view in self.views:
            if view.name == name:
                return view
        raise InputError(f"no view {name!r} among the scene's {len(self.views)}")

    def anchors(self, view: View) -> SparseDepth:
        """Returns the trustworthy points that a view sees, with the standard deviation of their depth.

        Only observed points count, so each is visible for sure. Gates: track length, reprojection error,
        largest triangulation angle. sigma is from the covariance of the point in a bundle adjustment of fixed
        cameras: what is wrong with these is common to many points.

        Raises:
            ViewError: The scene has no sparse points.
        """
        if self.cloud is None:
            raise ViewError(f"{view.name}: the scene has no sparse points")
        cloud, index = self.cloud, [other.name for other in self.views].index(view.name)
        order, starts = self._rows_by_view
        rows = order[starts[index] : starts[index + 1]]
        points = cloud.seen[rows, 0]
        depth = transform(view.cam_from_world, cloud.points[points])[:, 2]
        uv = project(view.camera.K, transform(view.cam_from_world, cloud.points[points]))
        angle = self._widest_angles[points]
        sigma = self._sigma_in(view, points)
        tracks = self._track_lengths[points]
        residual = np.linalg.norm(uv - cloud.uv[rows], axis=1)
        good = (
            (depth > 0)
            & (tracks >= min(MIN_TRACK_LENGTH, len(self.views)))
            & (residual <= MAX_REPROJECTION_ERROR_PX)
            & (angle >= np.radians(MIN_TRIANGULATION_ANGLE_DEG))
        )
        inside = (uv > 0).all(axis=1) & (uv < [view.camera.width, view.camera.height]).all(axis=1)
        good &= inside
        return SparseDepth(uv=uv[good], depth=depth[good], sigma=sigma[good])

    def projected(self, view: View) -> SparseDepth:
        """Returns the points of other views' tracks that fall into a view and seem visible there.

        For views that see too few points themselves. Hidden points lie behind visible ones: a point is left
        out where two of its nearest in the picture are clearly nearer. Some hidden ones remain, and sigma
        does not cover them; only a robust fit may use the result.

        Raises:
            ViewError: The scene has no sparse points.
        """
        from scipy.spatial import cKDTree

        if self.cloud is None:
            raise ViewError(f"{view.name}: the scene has no sparse points")
        points_cam = transform(view.cam_from_world, self.cloud.points)
        uv, depth = project(view.camera.K, points_cam), points_cam[:, 2]
        good = (self._track_lengths >= MIN_TRACK_LENGTH) & (depth > 0)
        good &= self._widest_angles >= np.radians(MIN_TRIANGULATION_ANGLE_DEG)
        good &= (uv > 0).all(axis=1) & (uv < [view.camera.width, view.camera.height]).all(axis=1)
        uv, depth = uv[good], depth[good]
        if not len(uv):
            return SparseDepth(uv, depth, depth)
        near = cKDTree(uv).query(uv, min(HIDING_NEIGHBOURS, len(uv)))[1].reshape(len(uv), -1)
        hidden = (depth[near] < HIDING_SHARE * depth[:, None]).sum(axis=1) >= HIDING_POINTS
        sigma = self._sigma_in(view, np.flatnonzero(good))
        return SparseDepth(uv[~hidden], depth[~hidden], sigma[~hidden])

    def neighbours(self, view: View, count: int) -> tuple[View, ...]:
        """Returns the views that see most of the sparse points that a view sees, at most `count`, best first.

        Without sparse points, or where they connect too few, the views whose centres are nearest follow.
        """
        index = [other.name for other in self.views].index(view.name)
        shared = np.zeros(len(self.views), np.int64)
        if self.cloud is not None:
            order, starts = self._rows_by_view
            own = self.cloud.seen[order[starts[index] : starts[index + 1]], 0]
            rows = np.isin(self.cloud.seen[:, 0], own)
            shared = np.bincount(self.cloud.seen[rows, 1], minlength=len(self.views))
        distance = np.linalg.norm([other.center - view.center for other in self.views], axis=1)
        best = [int(i) for i in np.lexsort((distance, -shared)) if i != index]
        return tuple(self.views[i] for i in best[:count])

    @cached_property
    def _rows_by_view(self) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "k"]]:
        """Rows of `cloud.seen` ordered by view, and where each view's rows start and end."""
        assert self.cloud is not None
        by_view = self.cloud.seen[:, 1]
        order = np.argsort(by_view, kind="stable")
        return order, np.searchsorted(by_view[order], np.arange(len(self.views) + 1))

    @cached_property
    def _track_lengths(self) -> Int64[np.ndarray, "n"]:
        assert self.cloud is not None
        return np.bincount(self.cloud.seen[:, 0], minlength=len(self.cloud.points))

    def _sigma_in(self, view: View, points: Int64[np.ndarray, "k"]) -> Float64[np.ndarray, "k"]:
        """Returns the standard deviation between points and the surface's depth at their pixels.

        How far off they are along the view's axis, and across it as that matters at a surface of 45 degrees.
        """
        rotation = view.cam_from_world[:3, :3]
        variances = np.einsum("ai,nij,aj->na", rotation, self._covariances[points], rotation)
        return np.sqrt(variances @ [0.5, 0.5, 1.0])

    @cached_property
    def _covariances(self) -> Float64[np.ndarray, "n 3 3"]:
        """Covariance of each point under fixed cameras: sigma_px^2 (sum J^T J)^-1 over what sees it.

        sigma_px is that of the scene's keypoints, and a point's own as far as its observations tell.
        """
        assert self.cloud is not None
        cloud, (order, starts) = self.cloud, self._rows_by_view
        information = np.zeros((len(cloud.points), 3, 3))
        for view, start, stop in zip(self.views, starts, starts[1:], strict=False):
            seen = cloud.seen[order[start:stop], 0]
            jacobian = projection_jacobian(view.camera.K, transform(view.cam_from_world, cloud.points[seen]))
            jacobian = np.nan_to_num(jacobian) @ view.cam_from_world[:3, :3]
            np.add.at(information, seen, np.einsum("nai,naj->nij", jacobian, jacobian))
        least = LEAST_INFORMATION * np.trace(information, axis1=1, axis2=2)
        information += np.maximum(least, NO_INFORMATION)[:, None, None] * np.eye(3)
        return self._keypoint_variances[:, None, None] * np.linalg.inv(information)

    @cached_property
    def _keypoint_variances(self) -> Float64[np.ndarray, "n"]:
        """Variance of a keypoint along u or v by point, px^2: mostly the typical one of the scene.

        A mean reprojection error has the mean of a Rayleigh distribution, less what the point's three
        coordinates take away.
        """
        assert self.cloud is not None
        freedom = np.maximum(2 * self._track_lengths - 3, 1)
        taken = np.sqrt(np.pi / 2 * freedom / (freedom + 3))
        own = np.square(self.cloud.errors / taken)
        told = self.cloud.errors > 0
        typical = KEYPOINT_SIGMA_PX**2
        if told.sum() >= MIN_KEYPOINT_POINTS:
            medians = (1 - 2 / (9 * freedom[told])) ** 3  # of chi squared over its freedom
            typical = np.clip(np.median(own[told] / medians), *np.square(KEYPOINT_RANGE_PX))
        own = np.where(told, own, typical)
        return (KEYPOINT_FREEDOM * typical + freedom * own) / (KEYPOINT_FREEDOM + freedom)

    @cached_property
    def _widest_angles(self) -> Float64[np.ndarray, "n"]:
        """Widest angle between two views of each point, radians: twice the widest from the mean direction."""
        assert self.cloud is not None
        cloud = self.cloud
        centers = np.stack([view.center for view in self.views])
        toward = centers[cloud.seen[:, 1]] - cloud.points[cloud.seen[:, 0]]
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        mean = np.zeros_like(cloud.points)
        np.add.at(mean, cloud.seen[:, 0], toward)
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        off_axis = np.arccos(np.clip(np.einsum("mc,mc->m", toward, mean[cloud.seen[:, 0]]), -1, 1))
        widest = np.zeros(len(cloud.points))
        np.maximum.at(widest, cloud.seen[:, 0], off_axis)
        return 2 * widest


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says about one photo. Its scale is unknown, so it cannot be fused."""

    values: Float32[np.ndarray, "h w"]
    """Depth or disparity up to what `kind` says; NaN where the network says nothing."""

    kind: str
    """metric: depth in metres. scale: depth up to a scale. affine: depth up to scale and shift.
    affine_disparity: 1 / depth up to scale and shift."""

    normals: Float32[np.ndarray, "h w 3"] | None = None
    confidence: Float32[np.ndarray, "h w"] | None = None

    def __post_init__(self) -> None:
        if self.kind not in PREDICTION_KINDS:
            raise InputError(f"Prediction.kind: {self.kind!r}, wanted one of {', '.join(PREDICTION_KINDS)}")
        _check(self.values, (None, None), np.float32, "Prediction.values")
        height, width = self.values.shape
        if self.normals is not None:
            _check(self.normals, (height, width, 3), np.float32, "Prediction.normals")
        if self.confidence is not None:
            _check(self.confidence, (height, width), np.float32, "Prediction.confidence")


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth of one view in scene units, ready to be fused. It has no pose: a pose update leaves it as is."""

    camera: Camera
    """Of this map; its size is the map's size."""

    depth: Float32[np.ndarray, "h w"]
    normals: Float32[np.ndarray, "h w 3"]
    sigma: Float32[np.ndarray, "h w"]
    """Standard deviation of depth, scene units; 0 where there is no depth."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        _check(self.depth, size, np.float32, "DepthMap.depth")
        _check(self.normals, (*size, 3), np.float32, "DepthMap.normals")
        _check(self.sigma, size, np.float32, "DepthMap.sigma")
        for name in ("depth", "normals", "sigma"):
            _check_finite(getattr(self, name), f"DepthMap.{name}")
        if (self.depth < 0).any() or (self.sigma[self.depth > 0] <= 0).any():
            raise InputError("DepthMap: depth must be at least 0, and sigma positive where there is depth")


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh, world frame, faces counter-clockwise seen from outside."""

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    normals: Float64[np.ndarray, "n 3"] | None = None
    colors: UInt8[np.ndarray, "n 3"] | None = None
    uv: Float64[np.ndarray, "n 2"] | None = None
    """Texture coordinates in [0, 1], origin at the texture's lower left."""

    texture: UInt8[np.ndarray, "h w 3"] | None = None

    def __post_init__(self) -> None:
        _check(self.vertices, (None, 3), np.float64, "Mesh.vertices")
        _check(self.faces, (None, 3), np.int64, "Mesh.faces")
        _check_finite(self.vertices, "Mesh.vertices")
        if self.faces.size and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise InputError(f"Mesh.faces: an index is outside 0..{len(self.vertices) - 1}")
        for name, columns, dtype in (
            ("normals", 3, np.float64),
            ("colors", 3, np.uint8),
            ("uv", 2, np.float64),
        ):
            if getattr(self, name) is not None:
                _check(getattr(self, name), (len(self.vertices), columns), dtype, f"Mesh.{name}")
