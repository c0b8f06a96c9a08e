"""Where a surface ends: a patch beyond its last texture matches, but what it shows is the surface's.

Before a blank background a patch that reaches over an outline holds nothing but the texture inside it, and
every photo agrees: as if the surface went on for half a patch. So where what was measured ends, it is cut
back to pixels that have texture themselves. Where the surface does go on, blank, it is measured on the other
side of the blank part as well, or known otherwise.
"""

import numpy as np
from jaxtyping import Bool, Float32

from recon.photometric.cost import RADIUS

PATCH = 2 * RADIUS + 1  # px, side
OWN = 3  # px, side of the window around a pixel whose texture is its own
BLANK_SHARE = 0.01  # of the strongest texture in the patch: less is none


def beyond_texture(
    colors: Float32[np.ndarray, "h w c"], known: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Returns the measured pixels without own texture between the last that has some and the unmeasured ones.

    Args:
        colors: Of the photo, smoothed.
        known: Where depth was measured.
    """
    from scipy.ndimage import binary_dilation, maximum_filter, uniform_filter

    energy = np.square(np.gradient(colors, axis=(0, 1))).sum(axis=(0, -1))
    own = uniform_filter(energy, OWN, mode="nearest")
    blank = known & (own < BLANK_SHARE * maximum_filter(own, PATCH, mode="nearest"))
    around = np.ones((3, 3), np.bool_)
    reached: np.ndarray = binary_dilation(~known, around, iterations=RADIUS, mask=blank)
    return reached & known
