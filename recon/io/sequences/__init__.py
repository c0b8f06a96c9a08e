"""Posed RGB and RGB-D folders: TUM, 7-Scenes, Open3D/Redwood, transforms.json, meta.json.

All become views of our conventions. Depth is z, registered to the photo as taken: where the photo's lens is
distorted, `Sequence.read_depth` undistorts depth like the photo. (Checked on TUM's freiburg1: edges of depth
lie on those of the raw colour, and toward the corners several pixels beside those of the undistorted one.)
Depth of 7-Scenes is not registered to colour: its views have the depth camera's K and pose, so fused depth is
exact and colour is off by some pixels.
"""

from recon.io.sequences.reading import read_sequence
from recon.io.sequences.sequence import Frame, Sequence

__all__ = ["Frame", "Sequence", "read_sequence"]
