"""Training data: where samples come from, in the order of use.

What a sample is (`samples`); the data sets as their publishers lay them out (`hypersim`, `vkitti`, whose
normals `planes` makes) and any folder of photos with depth (`folder`); what of them is there (`listing`); and
the order in which batches are drawn from several sources (`mixture`).
"""

from lotus.data.folder import Folder
from lotus.data.hypersim import Hypersim
from lotus.data.mixture import Draw, Mixture
from lotus.data.planes import fit_normals
from lotus.data.samples import Source, Told, TrainingSample, mirrored
from lotus.data.vkitti import VirtualKitti

__all__ = [
    "Draw",
    "Folder",
    "Hypersim",
    "Mixture",
    "Source",
    "Told",
    "TrainingSample",
    "VirtualKitti",
    "fit_normals",
    "mirrored",
]
