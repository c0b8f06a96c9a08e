"""Photos as the matching wants them: grey, slightly smooth, halved as often as the scale asks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from recon.errors import InputError
from recon.scene import Camera

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
SMOOTHING_PX = 0.7  # bilinear samples between pixels are smoother than pixels; a little blur evens that out
NOISE_BLOCK = 9  # side of the blocks whose spread shows the noise, px
NOISE_PERCENTILE = 5  # of the blocks' spread: the blankest parts show noise alone
SECOND_DIFFERENCE = np.array([1, -2, 1], np.float32) / np.float32(6**0.5)  # along both axes: noise as it is
WHITE_PERCENTILE = 20  # of the blocks' second differences: some have texture so fine
SMOOTHED_WHITE = 0.45  # of white noise smoothing leaves 0.41, and that percentile is 0.92 of it
MIN_NOISE, MAX_NOISE = 0.25, 2.0  # grey levels after smoothing; rounding alone gives the first


@dataclass(frozen=True, eq=False)
class Photo:
    """A posed photo without distortion."""

    camera: Camera
    """Of the photo; its size is the photo's size."""

    cam_from_world: Float64[np.ndarray, "4 4"]
    image: UInt8[np.ndarray, "h w 3"]

    def __post_init__(self) -> None:
        wanted = (self.camera.height, self.camera.width, 3)
        if self.image.shape != wanted or self.image.dtype != np.uint8:
            raise InputError(
                f"Photo: image {self.image.shape} of {self.image.dtype}, its camera wants {wanted} of uint8"
            )


def to_grey(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Returns grey levels, 0 to 255."""
    return image.astype(np.float32) @ GREY


def halved(grey: Float32[np.ndarray, "h w *c"]) -> Float32[np.ndarray, "h2 w2 *c"]:
    """Returns the picture of means of 2x2 pixels; an odd last row or column is left out."""
    height, width = grey.shape[0] // 2 * 2, grey.shape[1] // 2 * 2
    even = grey[:height, :width]
    return ((even[::2, ::2] + even[1::2, ::2]) + (even[::2, 1::2] + even[1::2, 1::2])) * np.float32(0.25)


def halved_camera(camera: Camera) -> Camera:
    """Returns the camera of `halved` pictures."""
    return Camera(np.diag([0.5, 0.5, 1.0]) @ camera.K, camera.width // 2, camera.height // 2)


def smoothed(grey: Float32[np.ndarray, "h w *c"]) -> Float32[np.ndarray, "h w *c"]:
    """Returns the picture with a Gaussian of SMOOTHING_PX over it."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(grey, SMOOTHING_PX, axes=(0, 1), mode="nearest", truncate=3.0)


def noise_of(grey: Float32[np.ndarray, "h w"], smooth: Float32[np.ndarray, "h w"]) -> float:
    """Returns the noise of a smoothed picture: rms, grey levels.

    As its blankest blocks show it, about their planes of grey levels; or, where all are textured, as second
    differences along both axes do before smoothing (Immerkaer 1996), which see less of texture. The smaller
    of both.

    Args:
        grey: The picture.
        smooth: As `smoothed` makes it of that.
    """
    from scipy.ndimage import correlate1d

    if min(grey.shape) < NOISE_BLOCK:
        return MIN_NOISE
    fine = correlate1d(correlate1d(grey, SECOND_DIFFERENCE, axis=0), SECOND_DIFFERENCE, axis=1)
    rms = np.sqrt(np.square(_blocks(fine)).mean(axis=(1, 3)))
    white = SMOOTHED_WHITE * np.percentile(rms, WHITE_PERCENTILE)
    return float(
        np.clip(min(white, np.percentile(_roughness(smooth), NOISE_PERCENTILE)), MIN_NOISE, MAX_NOISE)
    )


def _roughness(grey: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "a b"]:
    """Returns the spread of blocks about their planes of grey levels: shading is no noise."""
    values = _blocks(grey)
    values = values - values.mean(axis=(1, 3), keepdims=True)
    along = np.arange(NOISE_BLOCK, dtype=np.float32) - np.float32((NOISE_BLOCK - 1) / 2)
    ramps = np.square(np.einsum("aibj,j->ab", values, along))
    ramps += np.square(np.einsum("aibj,i->ab", values, along))
    ramps /= NOISE_BLOCK**3 * np.square(along).sum()
    return np.sqrt(np.maximum(np.square(values).mean(axis=(1, 3)) - ramps, 0))


def _blocks(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "a i b j"]:
    height, width = (size // NOISE_BLOCK * NOISE_BLOCK for size in values.shape)
    return values[:height, :width].reshape(height // NOISE_BLOCK, NOISE_BLOCK, -1, NOISE_BLOCK)
