"""Every stage, in the order of the data: from photos to a mesh.

Each is glue of a few lines around one function of `recon`; its fields are its options and their docstrings
the help of the command line. How stages are connected, reused and run is in `graph.py` and `runner.py`.
"""

from pipelines.stages.alignment import Agree, Align, Refine
from pipelines.stages.cameras import GivenModel, Sfm, Undistort
from pipelines.stages.learning import LearnScene, PredictLearnt, Tell
from pipelines.stages.photometry import Check, Draw, FindPlanes, Match, Settle
from pipelines.stages.predictions import InterpolatePoints, Predict, Rectify, embedded
from pipelines.stages.selection import Select, SelectAlone
from pipelines.stages.single import Calibrate, MeshDepth, OneCamera, SensorDepth
from pipelines.stages.surface import ExtractMesh, Fuse, Texture

__all__ = [
    "Agree",
    "Align",
    "Calibrate",
    "Check",
    "Draw",
    "ExtractMesh",
    "FindPlanes",
    "Fuse",
    "GivenModel",
    "InterpolatePoints",
    "LearnScene",
    "Match",
    "MeshDepth",
    "OneCamera",
    "Predict",
    "PredictLearnt",
    "Rectify",
    "Refine",
    "Select",
    "SelectAlone",
    "SensorDepth",
    "Settle",
    "Sfm",
    "Tell",
    "Texture",
    "Undistort",
    "embedded",
]
