"""Scenes with exact photos, depth, normals, cameras and points: for tests, the demo, training and benchmarks.

In the order of use: a world (`worlds`), cameras around it and what they see (`capturing`, with `photos` and
`points`), what a network would make of it (`distortion`), and the folders a user would have (`files`).
Everything is drawn from seeds: the same arguments give the same bytes.
"""

from recon.synthetic.capturing import (
    Capture,
    capture,
    exact_depth,
    look_around,
    orbit,
    room_cameras,
    tabletop_cameras,
)
from recon.synthetic.distortion import EXACT, LOTUS_LIKE, FineErrors, distort
from recon.synthetic.files import write_photos, write_predictions
from recon.synthetic.photos import through_lens
from recon.synthetic.points import SFM_LIKE, PointSampling
from recon.synthetic.worlds import Lamp, Material, World, box_room, build_world, plane, room, sphere, tabletop

__all__ = [
    "EXACT",
    "LOTUS_LIKE",
    "SFM_LIKE",
    "Capture",
    "FineErrors",
    "Lamp",
    "Material",
    "PointSampling",
    "World",
    "box_room",
    "build_world",
    "capture",
    "distort",
    "exact_depth",
    "look_around",
    "orbit",
    "plane",
    "room",
    "room_cameras",
    "sphere",
    "tabletop",
    "tabletop_cameras",
    "through_lens",
    "write_photos",
    "write_predictions",
]
