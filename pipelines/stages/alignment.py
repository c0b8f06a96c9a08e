"""Predictions put into scene units, made to agree, refined by their normals."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float32, Float64

from pipelines.executors import one_torch_thread
from pipelines.graph import ByView
from pipelines.runner import Progress
from pipelines.stages.maps import (
    FEWEST_POINTS,
    MAD_TO_SIGMA,
    check_count,
    enlarged,
    masked,
    points_inside,
    resized_mask,
)
from pipelines.stages.predictions import InterpolatePoints
from recon import (
    alignment,
    interpolation,
    refinement,
)
from recon.alignment import Alignment, Correction, Fit
from recon.errors import ViewError
from recon.geometry import sample_depth
from recon.refinement import Refinement
from recon.scene import Camera, DepthMap, Prediction, Scene, SparseDepth, View


@dataclass(frozen=True)
class Align:
    """Puts a prediction into scene units with the sparse points its view sees.

    Where depth interpolated between the points tells held-out ones better than the prediction does, it is
    used, and the prediction fills the gaps; not even these if it does not tell near from far. A view that
    sees too few points borrows those of other views that fall into it.
    """

    min_points: int = 20
    """Fewest points; a view with fewer, borrowed ones included, is dropped."""

    makes: ClassVar[str] = "aligned"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 34

    asked_error: ClassVar[float] = 0.005  # held-out, from which the points alone are asked
    suspect_error: ClassVar[float] = 0.02  # the same where few points answer
    asked_points: ClassVar[int] = 200  # fewer show nothing of what lies between them
    dense_points: ClassVar[int] = 500  # fewer may all lie on surfaces that a field through them gets right
    asked_size: ClassVar[int] = 160  # px, of the field that answers
    clearly_wrong: ClassVar[float] = 0.04  # held-out, from which the prediction may not be used at all
    telling: ClassVar[float] = 0.75  # share of the error of one depth for all, below which it tells something
    clearly_better: ClassVar[float] = 0.9  # share of an error that a less predicted depth has to leave
    about_equal: ClassVar[float] = (
        1.05  # ratio of errors by which the points alone may be worse than bent depth
    )
    asked_beside: ClassVar[int] = 4  # anchors
    asked_limit: ClassVar[float] = 0.1  # held-out errors beyond count as this
    clearly_worse: ClassVar[float] = 2.0  # times the error between near points: nor are its normals
    beyond: ClassVar[float] = 1.0  # relative error per log of depth beyond that of the points
    between: ClassVar[float] = 0.5  # confidence of a field, from which it is all that counts

    def __post_init__(self) -> None:
        check_count("align.min_points", self.min_points, FEWEST_POINTS)

    def __call__(
        self,
        *,
        view: View,
        scene: Scene,
        points: SparseDepth,
        prediction: Prediction,
        kept: Bool[np.ndarray, "h w"],
    ) -> Alignment:
        """Returns depth in scene units with its standard deviation, and the fit; only where it is kept."""
        points = points_inside(points, kept)
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        if len(points) < self.min_points:
            aligned = self._with_borrowed(prediction, view, scene)
            note = f"sees fewer than {self.min_points} points itself: aligned with those of other views"
            aligned = replace(aligned, note=note)
        else:
            try:
                fine = view.camera.fitted(max(width, height, InterpolatePoints.size))
                aligned = self._gated(prediction, points.resized(view.camera, camera), camera, fine)
            except ViewError as error:
                aligned = self._instead(prediction, view, scene, points, error)
        depth_map = masked(aligned.depth_map, resized_mask(kept, aligned.depth_map.camera))
        if aligned.is_predicted:
            depth_map = alignment.doubted(depth_map, points.resized(view.camera, depth_map.camera))
        return replace(
            aligned,
            depth_map=depth_map,
            predicted_normals=prediction.normals if aligned.is_predicted else None,
        )

    def _with_borrowed(self, prediction: Prediction, view: View, scene: Scene) -> Alignment:
        """Returns the prediction aligned with the points of other views that fall into this one."""
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        borrowed = scene.projected(view).resized(view.camera, camera)
        return alignment.align(prediction, borrowed, camera, min_points=self.min_points)

    def _instead(
        self, prediction: Prediction, view: View, scene: Scene, points: SparseDepth, error: ViewError
    ) -> Alignment:
        """Returns what there is where a view's points say that its prediction is wrong.

        If those of other views say that it is right, its own few are. Else it is depth between its points,
        and in the gaps they leave the prediction if it tells near from far at all.
        """
        if len(points) < self.asked_points:
            try:
                aligned = self._with_borrowed(prediction, view, scene)
            except ViewError:
                pass
            else:
                if aligned.fit.held_out_error <= self.clearly_wrong:
                    return replace(aligned, note=f"aligned with the points of other views: {error}")
        filled = self._gaps_filled(prediction, view, points, error)
        if filled is not None:
            return filled
        everywhere = np.ones((view.camera.height, view.camera.width), bool)
        field = InterpolatePoints(min_points=self.min_points)(view=view, points=points, kept=everywhere)
        return replace(field, note=f"prediction not used: {error}")

    def _gaps_filled(
        self, prediction: Prediction, view: View, points: SparseDepth, error: ViewError
    ) -> Alignment | None:
        """Returns depth between the points and a poor prediction in the gaps; None where it tells nothing.

        Outdoors depth spans a hundredfold: what is 15 % off still tells the ground at one's feet from a roof.
        """
        height, width = prediction.values.shape
        camera = view.camera.resized(width, height)
        anchors = points.resized(view.camera, camera)
        try:
            aligned = alignment.align(prediction, anchors, camera, min_points=self.min_points)
        except ViewError:
            return None
        errors = aligned.fit.held_out_errors
        asked, logs = np.isfinite(errors), np.log(anchors.depth)
        flat = np.abs(logs - np.median(logs))
        off, off_flat = (np.minimum(each[asked], 1).mean() if asked.any() else 1 for each in (errors, flat))
        if off > self.telling * off_flat:
            return None
        return self._between(
            aligned,
            anchors,
            view.camera.fitted(max(width, height, InterpolatePoints.size)),
            errors=self._errors_without(aligned.fit, anchors, camera),
            vague=self._vague(aligned.fit),
            note=f"the prediction only fills gaps: {error}",
        )

    def _gated(self, prediction: Prediction, anchors: SparseDepth, camera: Camera, fine: Camera) -> Alignment:
        """Returns the aligned prediction, or depth between the anchors where these tell more than it does.

        Args:
            prediction: Of the view.
            anchors: Pixels of `camera`.
            camera: Of the prediction's size.
            fine: As large as depth between anchors is wanted.

        Raises:
            ViewError: The prediction is of no use.
        """
        aligned = alignment.align(prediction, anchors, camera, min_points=self.min_points)
        fit = aligned.fit
        off = fit.held_out_error if np.isfinite(fit.held_out_error) else fit.median_error
        if off > self.clearly_wrong:
            alone = interpolation.held_out_error(anchors, camera)
            if off > self.clearly_worse * alone:
                raise ViewError(f"{off:.1%} off, the points alone {alone:.1%}")
        if off > self._asked_from(len(anchors)):
            errors = self._errors_without(fit, anchors, camera)
            alone = float(np.nanmedian(errors)) if np.isfinite(errors).any() else np.inf
            if off > alone:
                note = f"the prediction only fills gaps: {off:.2%} off, the points alone {alone:.2%}"
                return self._between(aligned, anchors, fine, errors=errors, vague=self._vague(fit), note=note)
        if len(anchors) < self.asked_points:
            return aligned
        return self._near_points(prediction, aligned, anchors, fine)

    def _asked_from(self, count: int) -> float:
        """Returns the held-out error from which `count` points are asked what they would tell alone."""
        if count < self.asked_points:
            return np.inf
        return self.suspect_error if count < self.dense_points else self.asked_error

    def _near_points(
        self, prediction: Prediction, aligned: Alignment, anchors: SparseDepth, fine: Camera
    ) -> Alignment:
        """Returns depth that does near the anchors what tells held-out ones best.

        That is the prediction as it is, or bent through them, or, where it is suspect or bends through many,
        what they alone tell.
        Bent: what the smooth correction leaves there is interpolated as depth is, as a factor, and fades with
        their distance, so that the prediction keeps its relief between them. Either way it stays far from
        them.
        """
        depth_map = aligned.depth_map
        camera, small = depth_map.camera, depth_map.camera.fitted(self.asked_size)
        found = sample_depth(depth_map.depth, anchors.uv)
        used = SparseDepth(anchors.uv[found > 0], anchors.depth[found > 0], anchors.sigma[found > 0])
        ratio = used.depth / found[found > 0]
        left = SparseDepth(used.uv, ratio, ratio * used.sigma / used.depth)
        is_suspect = aligned.fit.held_out_error > self._asked_from(len(anchors))
        if not is_suspect:
            plain = np.abs(np.log(ratio))
            if not self._tell_each_other(used.uv, np.log(ratio)):
                return aligned
            bent = _log_errors(interpolation.predict_held_out(left.resized(camera, small), small), ratio)
            if self._score(bent) >= self.clearly_better * self._score(plain):  # which saw all the anchors
                return aligned
            is_suspect = len(anchors) >= self.dense_points
        alone, of_alone = np.full(len(used), np.nan), np.inf
        if is_suspect:
            plain, bent = self._held_out(prediction, used, camera)
            alone = _log_errors(
                interpolation.predict_held_out(used.resized(camera, small), small), used.depth
            )
            of_alone = self._score(alone)
        of_plain, of_bent = self._score(plain), self._score(bent)
        told = f"{np.median(plain):.2%} off before, {{:.2%}} after"
        if of_alone < min(of_plain, self.about_equal * of_bent):
            errors = np.full(len(anchors), np.nan)
            errors[found > 0] = alone
            note = "the points alone near them: " + told.format(np.median(alone))
            return self._between(aligned, anchors, fine, errors=errors, vague=0.0, note=note)
        if of_bent >= of_plain:
            return aligned
        field, error = interpolation.interpolate_points(left, camera), float(np.median(bent))
        assert field.confidence is not None
        near = field.confidence
        depth = (depth_map.depth * np.exp(near * np.log(field.values))).astype(np.float32)
        known = np.where(depth > 0, depth_map.depth, 1)
        away = np.maximum(depth_map.sigma / known, self._vague(aligned.fit))
        relative = np.hypot(np.sqrt(1 - near) * away, np.sqrt(near) * MAD_TO_SIGMA * error)
        sigma = (depth * relative).astype(np.float32)
        note = "bent through the points: " + told.format(error)
        return replace(aligned, depth_map=replace(depth_map, depth=depth, sigma=sigma), note=note)

    def _vague(self, fit: Fit) -> float:
        """Returns the relative sigma of a suspect prediction between the points: as it is uncorrected."""
        errors = fit.held_out_error, fit.plain_held_out_error, fit.median_error  # NaN where none is held out
        return MAD_TO_SIGMA * float(np.nanmax(errors))

    def _score(self, errors: Float64[np.ndarray, "n"]) -> float:
        return float(np.minimum(errors, self.asked_limit).mean())

    def _held_out(
        self, prediction: Prediction, anchors: SparseDepth, camera: Camera
    ) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
        """Returns errors at each anchor of depth aligned by the half that it is not in, plain and bent."""
        fold, small = interpolation.every_second(anchors), camera.fitted(self.asked_size)
        plain, bent = (np.full(len(anchors), np.nan) for _ in range(2))
        for one in (0, 1):
            half = fold != one
            part = SparseDepth(anchors.uv[half], anchors.depth[half], anchors.sigma[half])
            try:
                aligned = alignment.align(prediction, part, camera, min_points=self.min_points)
                found = sample_depth(aligned.depth_map.depth, anchors.uv)
                known = found > 0
                ratio = anchors.depth[known] / found[known]
                left = SparseDepth(
                    anchors.uv[known], ratio, ratio * anchors.sigma[known] / anchors.depth[known]
                )
                factor = interpolation.predict_held_out(
                    left.resized(camera, small), small, np.where(half[known], -1, 0)
                )
            except ViewError:
                continue
            asked = known & ~half
            plain[asked] = found[asked]
            bent[asked] = found[asked] * np.nan_to_num(factor[~half[known]], nan=1.0)
        return _log_errors(plain, anchors.depth), _log_errors(bent, anchors.depth)

    def _tell_each_other(self, uv: Float64[np.ndarray, "n 2"], left: Float64[np.ndarray, "n"]) -> bool:
        """Returns whether what is left at an anchor is nearer to what is left beside it than to nothing.

        That takes no time, and where a prediction is right up to the noise of the anchors it ends the matter.
        """
        from scipy.spatial import cKDTree

        beside = cKDTree(uv).query(uv, self.asked_beside + 1)[1][:, 1:]
        off = np.abs(left - np.median(left[beside], axis=1))
        return bool(
            np.minimum(off, self.asked_limit).mean() < np.minimum(np.abs(left), self.asked_limit).mean()
        )

    def _errors_without(self, fit: Fit, anchors: SparseDepth, camera: Camera) -> Float64[np.ndarray, "n"]:
        """Returns what `fit.held_out_errors` would be without a prediction, at the same anchors."""
        small = camera.fitted(self.asked_size)
        fold = alignment.fold_of(anchors, camera)
        predicted = interpolation.predict_held_out(anchors.resized(camera, small), small, fold)
        errors = np.abs(np.log(predicted / anchors.depth))
        errors = np.where(np.isfinite(errors), np.minimum(errors, 1), 1)  # no depth is as bad as it gets
        return np.where(np.isfinite(fit.held_out_errors), errors, np.nan)

    def _between(
        self,
        aligned: Alignment,
        anchors: SparseDepth,
        fine: Camera,
        *,
        errors: Float64[np.ndarray, "n"],
        vague: float,
        note: str,
    ) -> Alignment:
        """Returns depth between the points, and the prediction in the gaps they leave.

        Normals that go with such a prediction are not refined by.

        Args:
            aligned: The prediction's.
            anchors: The points, pixels of its camera.
            fine: Camera of the wanted size.
            errors: Of held-out anchors, without the prediction.
            vague: Relative sigma that the prediction has at least.
            note: For the report.
        """
        made = enlarged(aligned.depth_map, fine)
        field = interpolation.interpolate_points(
            anchors.resized(aligned.depth_map.camera, made.camera), made.camera
        )
        assert field.confidence is not None
        small = made.camera.fitted(self.asked_size)
        alone = interpolation.held_out_error(anchors.resized(aligned.depth_map.camera, small), small)
        between = interpolation.to_depth_map(field, made.camera, MAD_TO_SIGMA * alone)
        near = np.where(made.depth > 0, np.minimum(field.confidence / self.between, 1), field.confidence > 0)
        logs = (np.log(np.where(depth > 0, depth, 1)) for depth in (between.depth, made.depth))
        depth = np.exp(sum(w * log for w, log in zip((near, 1 - near), logs, strict=True)))
        uncertain = np.maximum(vague, self.beyond * _beyond(made.depth, anchors)).astype(np.float32)
        sigma = near * between.sigma + (1 - near) * np.maximum(made.sigma, uncertain * made.depth)
        known = (between.depth > 0) | (made.depth > 0)
        depth_map = DepthMap(
            camera=made.camera,
            depth=np.where(known, depth, 0).astype(np.float32),
            normals=np.where((near > self.between)[..., None], between.normals, made.normals),
            sigma=np.where(known, sigma, 0).astype(np.float32),
        )
        fit = replace(aligned.fit, held_out_errors=errors, corrected=False)
        return Alignment(depth_map, fit, None, False, note, is_predicted=True)


@dataclass(frozen=True)
class Agree:
    """Lets the views' smooth corrections agree where they see the same surface."""

    makes: ClassVar[str] = "agreement"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 6

    def __call__(
        self, *, scene: Scene, aligned: ByView[Alignment], progress: Progress
    ) -> dict[str, Correction]:
        """Returns the corrections by view; views that cannot be compared with others have none."""
        views = [view for view in scene.views if view.name in aligned]
        return alignment.agree(
            views, aligned.__getitem__, progress=lambda done, total: progress(self.makes, done, total)
        )


@dataclass(frozen=True)
class Refine:
    """Makes depth agree with the predicted normals, and spreads it into what no sparse point told."""

    normals: bool = True
    """Refine by the normals; false leaves depth as it was aligned."""

    makes: ClassVar[str] = "refined"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 6

    def __call__(
        self,
        *,
        view: View,
        aligned: Alignment,
        agreement: dict[str, Correction],
        points: SparseDepth,
    ) -> Refinement:
        """Returns the view's depth, corrected to agree with others and refined."""
        if view.name in agreement:
            aligned = alignment.corrected(aligned, agreement[view.name])
        return self.alone(view, aligned, points)

    def alone(self, view: View, aligned: Alignment, points: SparseDepth) -> Refinement:
        """Returns the refined depth of a view without regard to others."""
        depth_map = aligned.depth_map
        anchors = points.resized(view.camera, depth_map.camera)
        refined = refinement.unrefined(depth_map)
        if self.normals and aligned.has_own_normals:
            with one_torch_thread():
                noise = aligned.field.noise.tau if aligned.field is not None else None
                refined = refinement.refine(depth_map, anchors, noise=noise)
        if aligned.is_predicted:
            refined = replace(refined, depth_map=alignment.doubted(refined.depth_map, anchors))
        return refined


def _beyond(depth: Float32[np.ndarray, "h w"], anchors: SparseDepth) -> Float32[np.ndarray, "h w"]:
    """Returns how far depth is nearer or farther than most points are, in its logarithm."""
    low, high = np.log(np.percentile(anchors.depth, [5, 95]))
    log = np.log(np.where(depth > 0, depth, np.exp(low)))
    return np.maximum(np.maximum(low - log, log - high), 0).astype(np.float32)


def _log_errors(
    predicted: Float64[np.ndarray, "n"], true: Float64[np.ndarray, "n"]
) -> Float64[np.ndarray, "n"]:
    """Returns |log predicted - log true|; what is not predicted is 1."""
    known = np.isfinite(predicted)
    return np.abs(np.log(np.where(known, predicted, 1) / true))
