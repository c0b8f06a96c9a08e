"""Blank planes: walls on which the photos tell no depth, as the planes of what was measured around them.

A predicted normal is good enough to say which way a blank wall faces, but a wall integrated from it leans,
and its predicted depth is off by ten percent and more where no sparse point lies on it. What was measured of
the same plane, a skirting board, a door's frame, what another view saw of it, tells both to a percent. In the
order of the method (after Furukawa et al., "Manhattan-world stereo", CVPR 2009, where all angles are right):

1. `finding.py`: directions that many measured patches share, those at right angles to two of them, and along
   each the offsets where measured points crowd: planes, of the whole scene, so that all views know the same.
2. `filling.py`: gaps are parted by the direction their predicted normals are nearest to; each part takes the
   plane of that direction that most points in and around it lie on, less those behind it: a wall has nothing
   behind it. Two planes that meet in a gap meet in their line of intersection. They end around sparse points
   that are not on them, and where the photos show something else.
"""

from recon.planar.filling import fill_planes, without_contradicted
from recon.planar.finding import Planes, find_planes

__all__ = ["Planes", "fill_planes", "find_planes", "without_contradicted"]
