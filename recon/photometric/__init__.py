"""Depth measured in the photos themselves."""

from recon.photometric.pictures import Photo
from recon.photometric.refinement import Measurement, refine
from recon.photometric.views import choose_neighbours

__all__ = ["Measurement", "Photo", "choose_neighbours", "refine"]
