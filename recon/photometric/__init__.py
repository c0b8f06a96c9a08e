"""Depth measured in the photos themselves, near a prior: dense geometry without CUDA.

Slanted patches of one photo are compared with others on planes that a prior proposes: its depth, searched
through three of its standard deviations, with its normals. Where the prior is vague, the search is coarse to
fine, and planes spread from pixel to pixel; so a depth range alone can be the prior.

In the order of the method: `views` chooses the neighbours; `pictures` and `planes` bring photos and prior
into the kernels' form, `levels` at several sizes; at each size `sweep` tries inverse depths (on `cost`),
`propagation` lets neighbouring pixels try each other's planes, `fitting` finds the vertex, its standard
deviation, and what to reject; `outlines` cuts what went on past a surface; `refinement` holds them together,
`tiles` cuts large photos. `matcher` runs the kernels, `on_device` does the same on a device of torch.
`consistency` compares views afterwards, `normals` brings predicted ones together with those of what they
confirm.
"""

from recon.photometric.consistency import count_witnesses, cross_check
from recon.photometric.flat import depth_range, flat_prior
from recon.photometric.merging import merge
from recon.photometric.normals import fit_normals, merge_normals
from recon.photometric.pictures import Photo
from recon.photometric.refinement import Measurement
from recon.photometric.tiles import refine
from recon.photometric.views import choose_neighbours

__all__ = [
    "Measurement",
    "Photo",
    "choose_neighbours",
    "count_witnesses",
    "cross_check",
    "depth_range",
    "fit_normals",
    "flat_prior",
    "merge",
    "merge_normals",
    "refine",
]
