"""What the makers of rooms, streets and free forms hand over."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from lotus.scenes.solids import Thing


class Layout(NamedTuple):
    """A scene before anyone has looked at it; fields as in `SceneDescription`."""

    kind: str
    thing: Thing
    lights: Float64[np.ndarray, "l 8"]
    air: Float64[np.ndarray, "14"]
    eye: Float64[np.ndarray, "3"]
    target: Float64[np.ndarray, "3"]
