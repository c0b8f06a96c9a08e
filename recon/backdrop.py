"""Black backdrops: where a photo of an object before black cloth, or of a street at night, shows nothing.

Near the object the light falls on the cloth, too. Sparse points tell it from the object: faint folds are no
features that photos share.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

BLACK = 16.0  # of 255: the black of video; the noise of black velvet stays below
SMOOTHING_PX = 1.0  # so that single pixels of noise neither join areas nor part them
BORDER_SHARE = 0.25  # of the photo; a dark floor or a screen is less
LEAST_SHARE = 0.001  # of the photo; smaller areas may be shadows
DIM = 64.0  # of 255: lit cloth stays below, and so may an object's dark side
THIN = 0.005  # of the longer side: what is thinner and dim is a crevice
FEW_POINTS = 0.1  # share of the points that would lie there if it were object


def black_backdrop(
    photo: UInt8[np.ndarray, "h w 3"], points: Float64[np.ndarray, "n 2"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Returns True where a photo shows nothing but a black backdrop; nowhere if it has none.

    It has one if a quarter of its pixels are black and joined to its border. Then all black areas of a
    thousandth of the photo or more are backdrop: between columns it is seen, too. And so are dim areas next
    to it in which hardly any points lie.

    Args:
        photo: Any size.
        points: Where sparse points lie in it, px. Dim areas are left as they are if not given.
    """
    from scipy.ndimage import gaussian_filter, label

    smooth = gaussian_filter(photo.max(axis=2).astype(np.float32), SMOOTHING_PX)
    areas, count = label(smooth < BLACK)
    sizes = np.bincount(areas.ravel(), minlength=count + 1) / areas.size
    sizes[0] = 0  # of what is not black
    border = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    if sizes[border].sum() < BORDER_SHARE:
        return np.zeros(areas.shape, bool)
    black = (sizes >= LEAST_SHARE)[areas]
    return black if points is None else black | _without_points(_dim_beside(smooth, black), black, points)


def _dim_beside(
    levels: Float32[np.ndarray, "h w"], black: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Returns what is dim and joined to what is black, without crevices."""
    from scipy.ndimage import binary_dilation, binary_erosion, binary_propagation

    radius = max(1, round(THIN * max(levels.shape)))
    within = binary_erosion((levels < DIM) | black, iterations=radius, border_value=1)
    wide = binary_dilation(within, iterations=radius)
    return binary_propagation(black & wide, mask=wide) & ~black


def _without_points(
    dim: Bool[np.ndarray, "h w"], black: Bool[np.ndarray, "h w"], points: Float64[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "h w"]:
    """Returns the dim areas with far fewer points than the object, where so few are no chance."""
    from scipy.ndimage import label

    areas, count = label(dim)
    areas[black] = count + 1
    height, width = dim.shape
    column, row = np.floor(points[((points >= 0) & (points < (width, height))).all(axis=1)]).astype(int).T
    pixels = np.bincount(areas.ravel(), minlength=count + 2)
    found = np.bincount(areas[row, column], minlength=count + 2)
    expected = pixels * found[0] / max(pixels[0], 1)
    is_backdrop = found + 1 <= FEW_POINTS * expected  # one more might have been found
    is_backdrop[[0, count + 1]] = False
    return np.asarray(is_backdrop[areas])
