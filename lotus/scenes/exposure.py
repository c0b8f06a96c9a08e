"""From light to the photo that a camera would store: exposure, white balance, lens, noise, tone, JPEG."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from lotus.scenes.description import MAX_BLUR, MAX_MOTION, Photo
from recon.errors import InputError

UPPER_TONES = 0.9  # quantile of brightness that the exposure is set by
CONTRAST_KEPT = 5.0  # between those and the median; what glows brighter is let go white
TONE_LIMIT = 2.0  # brighter light is white


def _tone_curve(count: int) -> Float32[np.ndarray, "n"]:
    """Returns stored brightness for the squares of evenly spaced numbers: a soft shoulder, then gamma."""
    light = TONE_LIMIT * np.linspace(0, 1, count) ** 2
    light = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light)
    return (light ** (1 / 2.2)).astype(np.float32)


TONES = _tone_curve(4096)


def develop(
    light: Float32[np.ndarray, "h w 3"], photo: Photo, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the photo of a picture of light (linear RGB)."""
    import cv2

    height, width = light.shape[:2]
    luminance = light @ np.array([0.3, 0.6, 0.1], np.float32)
    bright, middle = np.quantile(luminance[::3, ::3], (UPPER_TONES, 0.5)).tolist()
    gain = photo.exposure / max(min(bright, CONTRAST_KEPT * middle), 1e-4)
    picture = light * (gain * np.array(photo.white_balance, np.float32))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    picture = picture * (1 - photo.vignette * (0.5 * (x * x + y * y)))[..., None]
    if photo.motion[0] * width > 1.0:
        picture = cv2.filter2D(picture, -1, _streak(photo.motion[0] * width, photo.motion[1]))
    if photo.blur > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), photo.blur * width)
    noise = rng.standard_normal(picture.shape, np.float32)
    noise = 0.6 * noise + cv2.GaussianBlur(noise, (0, 0), 0.8)  # sensors' colours are interpolated
    picture = np.maximum(picture, 0)
    picture += noise * np.sqrt(photo.shot_noise**2 * picture + photo.read_noise**2)
    steps = np.sqrt(np.clip(picture / TONE_LIMIT, 0, 1)) * (len(TONES) - 1) + 0.5
    picture = TONES[steps.astype(np.int32)]
    grey = picture.mean(axis=-1, keepdims=True)
    picture = grey + photo.saturation * (picture - grey)
    picture = 0.5 + photo.contrast * (picture - 0.5)
    stored = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
    if photo.jpeg_quality >= 100:
        return stored
    _, code = cv2.imencode(".jpg", stored[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, photo.jpeg_quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def _streak(length: float, angle: float) -> Float32[np.ndarray, "k k"]:
    """Returns the kernel of blur along a line."""
    half = int(np.ceil(length / 2)) + 1
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.clip(1 - np.abs(across), 0, 1) * np.clip(length / 2 + 0.5 - np.abs(along), 0, 1)
    return (kernel / kernel.sum()).astype(np.float32)


def photo_table(photos: Sequence[Photo]) -> Float32[np.ndarray, "n 13"]:
    """Returns photos as rows for `development.develop_batch`: the numbers of `Photo` in order.

    Raises:
        InputError: A blur or streak is longer than `MAX_BLUR` or `MAX_MOTION`.
    """
    rows = [
        (
            photo.exposure,
            *photo.white_balance,
            photo.contrast,
            photo.saturation,
            photo.vignette,
            photo.blur,
            *photo.motion,
            photo.shot_noise,
            photo.read_noise,
            photo.jpeg_quality,
        )
        for photo in photos
    ]
    for photo in photos:
        if photo.blur > MAX_BLUR or photo.motion[0] > MAX_MOTION:
            raise InputError(
                f"photo: blur {photo.blur} and motion {photo.motion[0]} of the width, "
                f"wanted at most {MAX_BLUR} and {MAX_MOTION}"
            )
    return np.array(rows, np.float32).reshape(len(rows), 13)
