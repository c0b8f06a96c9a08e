"""Photos of one scene to a mesh: the main pipeline."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lotus.checkpoints import is_embedded
from lotus.predictor import LotusPredictor
from pipelines.graph import Stage, renamed, stages_among
from pipelines.predictors import FromFiles
from pipelines.stages import (
    Agree,
    Align,
    Check,
    Draw,
    ExtractMesh,
    FindPlanes,
    Fuse,
    GivenModel,
    InterpolatePoints,
    LearnScene,
    Match,
    Predict,
    PredictLearnt,
    Rectify,
    Refine,
    Select,
    Settle,
    Sfm,
    Tell,
    Texture,
    Undistort,
    embedded,
)

REPEATED = ("measured", "planes", "settled", "checked", "volume", "mesh")
"""Artifacts of both passes; the first one's are called first_measured and so on."""

LEARNT_FROM = ("prediction", "aligned", "agreement", "refined", "measured")
"""What is made twice where a network learns the scene; the first ones are called early_aligned and so on."""


@dataclass(frozen=True)
class MultiView:
    """Photos of one scene to a mesh.

    Cameras and sparse points by SfM, depth and normals per photo by a predictor, each prediction aligned
    with the points its view sees and with the other views, refined by its normals and by the other photos,
    checked against its neighbours, all of them fused in one volume, whose surface gets a texture of
    the photos.
    """

    cameras: Sfm | GivenModel = field(default_factory=Sfm)
    undistort: Undistort = field(default_factory=Undistort)
    predict: InterpolatePoints | FromFiles | Predict = field(default_factory=embedded)
    rectify: Rectify = field(default_factory=Rectify)
    select: Select = field(default_factory=Select)
    align: Align = field(default_factory=Align)
    agree: Agree = field(default_factory=Agree)
    refine: Refine = field(default_factory=Refine)
    match: Match = field(default_factory=Match)
    planes: FindPlanes = field(default_factory=FindPlanes)
    settle: Settle = field(default_factory=Settle)
    check: Check = field(default_factory=Check)
    fuse: Fuse = field(default_factory=Fuse)
    extract: ExtractMesh = field(default_factory=ExtractMesh)
    texture: Texture = field(default_factory=Texture)

    textured: bool = True
    """Whether `mesh.glb` gets a texture of the photos; else it has the colours of its vertices, as `mesh.ply`
    always has."""

    second_pass: bool = False
    """Whether the photos are compared a second time, around the surface that the first pass makes: more
    detail, and fewer holes where no network predicts the scene well, in about twice the time."""

    draw: Draw = field(default_factory=Draw)
    """Of the second pass."""

    learn_scene: bool = True
    """Whether a small network of disparity and normals, such as `lotus-tiny`, is trained for some minutes on
    what the photos told, and predicts them anew: fewer holes, but most of the work is done twice. Any other
    predictor is left as it is."""

    learn_steps: int = LearnScene.steps
    """Steps of that training."""

    max_dropped: float = 0.5
    """Largest share of the views that may fail; if more do, the run stops."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run: interpolated points are aligned already, and a second pass repeats some."""
        stages = stages_among(self)
        if self.predict.makes == self.align.makes:
            stages = tuple(s for s in stages if s not in (self.rectify, self.align))
        drawing = tuple(s for s in stages if s.makes == Draw.makes)
        once = tuple(s for s in stages if s.makes != Draw.makes)
        if not self.textured:
            once = tuple(s for s in once if s.makes != Texture.makes)
        learner = self.learner
        if learner is not None:
            once = self._learning(once, learner)
        if not self.second_pass:
            return once
        before = tuple(s for s in once if s.makes not in REPEATED)
        repeated = tuple(s for s in once if s.makes in REPEATED)
        first = {name: f"first_{name}" for name in REPEATED}
        again = {Refine.makes: Draw.makes}
        return before + renamed((*repeated, *drawing), first) + renamed(repeated, again)

    @property
    def learner(self) -> LotusPredictor | None:
        """The predictor that learns the scene, if one does."""
        predictor = self.predict.predictor if isinstance(self.predict, Predict) else None
        if self.learn_scene and isinstance(predictor, LotusPredictor) and predictor.learns_scenes():
            return predictor
        return None

    def _learning(self, stages: tuple[Stage, ...], predictor: LotusPredictor) -> tuple[Stage, ...]:
        """Returns the stages with those before `planes` twice, the second time by what learnt the scene.

        Planes are found in what was measured before: on a blank wall that is noise around the prediction, and
        where the prediction has learnt, it is alike in all views, so that noise crowds beside the wall.
        """
        added: tuple[Any, ...] = (
            Tell(predictor),
            LearnScene(predictor, self.learn_steps),
            PredictLearnt(predictor),
        )
        early = tuple(s for s in stages if s.makes in LEARNT_FROM)
        later = tuple(s for s in early if s.makes != Rectify.makes)
        planes = tuple(s for s in stages if s.makes == FindPlanes.makes)
        rest = tuple(s for s in stages if s not in (*early, *planes))
        names = {name: f"early_{name}" for name in LEARNT_FROM}
        return rest + renamed((*early, *planes, *added[:1]), names) + added[1:] + later


def describe_predictor(predict: InterpolatePoints | FromFiles | Predict) -> str:
    """Returns what depth and normals come from, honest about what it is worth."""
    if isinstance(predict, InterpolatePoints):
        return (
            "no network: depth interpolated between the sparse points, smooth, and blank where none are. "
            "For better results leave out --predictor points, or give --checkpoint DIR (Lotus)."
        )
    if isinstance(predict, FromFiles):
        return f"prediction files of {Path(predict.folder).name or predict.folder}"
    predictor = predict.predictor
    if isinstance(predictor, LotusPredictor) and is_embedded(predictor.depth or ""):
        return (
            f"{predictor.depth}, embedded demo-quality model. For best results give --checkpoint "
            "jingheya/lotus-depth-d-v2-0-disparity --normals-checkpoint jingheya/lotus-normal-d-v1-1."
        )
    return f"{type(predictor).__name__}: {_describe_options(predictor)}"


def _describe_options(predictor: object) -> str:
    for name in ("target", "depth", "checkpoint"):
        if hasattr(predictor, name):
            return str(getattr(predictor, name))
    return str(predictor)
