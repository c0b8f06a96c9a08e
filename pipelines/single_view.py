"""One photo to a mesh: depth as predicted, meshed pixel by pixel, cut at depth edges."""

from dataclasses import dataclass, field

from pipelines.graph import Stage, stages_among
from pipelines.predictors import FromFiles
from pipelines.stages import Calibrate, MeshDepth, OneCamera, Predict, Rectify, SelectAlone, embedded


@dataclass(frozen=True)
class SingleView:
    """One photo to a mesh in the camera's frame.

    Nothing tells the scale of a single photo: a metric prediction gives metres, others a shape up to scale.
    """

    predict: FromFiles | Predict = field(default_factory=embedded)
    camera: OneCamera = field(default_factory=OneCamera)
    rectify: Rectify = field(default_factory=Rectify)
    select: SelectAlone = field(default_factory=SelectAlone)
    depth: Calibrate = field(default_factory=Calibrate)
    mesh: MeshDepth = field(default_factory=MeshDepth)

    max_dropped: float = 0.0
    """Largest share of the views that may fail; with a single one, none."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that run."""
        return stages_among(self)
