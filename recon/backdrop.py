"""Black backdrops: where a photo of an object before black cloth, or of a street at night, shows nothing."""

import numpy as np
from jaxtyping import Bool, UInt8

BLACK = 16.0  # of 255: the black of video; the noise of black velvet stays below
SMOOTHING_PX = 1.0  # so that single pixels of noise neither join areas nor part them
BORDER_SHARE = 0.25  # of the photo; a dark floor or a screen is less
LEAST_SHARE = 0.001  # of the photo; smaller areas may be shadows


def black_backdrop(photo: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Returns True where a photo shows nothing but a black backdrop; nowhere if it has none.

    It has one if a quarter of its pixels are black and joined to its border. Then all black areas of a
    thousandth of the photo or more are backdrop: between columns it is seen, too.
    """
    from scipy.ndimage import gaussian_filter, label

    smooth = gaussian_filter(photo.max(axis=2).astype(np.float32), SMOOTHING_PX)
    areas, count = label(smooth < BLACK)
    sizes = np.bincount(areas.ravel(), minlength=count + 1) / areas.size
    sizes[0] = 0  # of what is not black
    border = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    if sizes[border].sum() < BORDER_SHARE:
        return np.zeros(areas.shape, bool)
    return (sizes >= LEAST_SHARE)[areas]
