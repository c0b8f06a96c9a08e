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


def noise_of(smooth: Float32[np.ndarray, "h w"]) -> float:
    """Returns the noise of a smoothed picture, as its blankest blocks show it: rms, grey levels."""
    height, width = (size // NOISE_BLOCK * NOISE_BLOCK for size in smooth.shape)
    if height == 0 or width == 0:
        return MIN_NOISE
    blocks = smooth[:height, :width].reshape(height // NOISE_BLOCK, NOISE_BLOCK, -1, NOISE_BLOCK)
    spread = blocks.std(axis=(1, 3))
    return float(np.clip(np.percentile(spread, NOISE_PERCENTILE), MIN_NOISE, MAX_NOISE))
