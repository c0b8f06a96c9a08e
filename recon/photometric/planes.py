"""Planes and pairs of views in the form the kernels use: inverse depth over the picture.

On a plane, w = 1 / z is linear over the picture: w(u, v) = w0 + wu (u - u0) + wv (v - v0). A pixel
x = (u, v, 1) of the reference at inverse depth w lies in another view at the pixel

    x' ~ A x + w b,   A = K' R K^-1,   b = K' t

with R, t the motion from the reference's frame to the other's. With w linear in x this is the homography of
the plane, K' (R + t n^T / delta) K^-1.
"""

import numpy as np
from jaxtyping import Float32, Float64

from recon.geometry import rays
from recon.scene import Camera

MIN_COSINE = 0.1  # steeper normals are tilted to this: patches on them would shrink to a line


def pair_geometry(
    K: Float64[np.ndarray, "3 3"],
    other_K: Float64[np.ndarray, "3 3"],
    other_from_reference: Float64[np.ndarray, "4 4"],
) -> Float64[np.ndarray, "12"]:
    """Returns A, row by row, and b of a reference and another view."""
    A = other_K @ other_from_reference[:3, :3] @ np.linalg.inv(K)
    return np.concatenate([A.ravel(), other_K @ other_from_reference[:3, 3]])


def planes_of(
    depth: Float32[np.ndarray, "h w"], normals: Float32[np.ndarray, "h w 3"], camera: Camera
) -> Float32[np.ndarray, "h w 3"]:
    """Returns (w, wu, wv) of the plane through each pixel's point with its normal; zeros without depth.

    A plane n . X = delta has w = n . r / delta over the rays r = K^-1 x, so (wu, wv) is the first two
    numbers of K^-T n / delta. Without a normal the plane faces the camera.
    """
    directions = rays(camera.K, camera.width, camera.height)
    lengths = np.linalg.norm(directions, axis=-1, keepdims=True)
    toward = -directions / lengths
    normals64 = normals.astype(np.float64)
    normals64 = np.where((normals64 == 0).all(axis=-1, keepdims=True), [0.0, 0.0, -1.0], normals64)
    cosine = np.einsum("hwc,hwc->hw", normals64, toward)[..., None]
    normals64 += np.maximum(MIN_COSINE - cosine, 0) * toward
    known = depth > 0
    w = np.where(known, 1 / np.where(known, depth, 1).astype(np.float64), 0)
    slant = np.einsum("hwc,hwc->hw", normals64, directions)
    scaled = normals64 @ np.linalg.inv(camera.K)[:, :2] * (w / slant)[..., None]
    return np.concatenate([w[..., None], scaled], axis=-1).astype(np.float32)


def normals_of(planes: Float32[np.ndarray, "h w 3"], camera: Camera) -> Float32[np.ndarray, "h w 3"]:
    """Returns the unit normals of planes, facing the camera; zeros where w is not positive."""
    w, wu, wv = np.moveaxis(planes.astype(np.float64), -1, 0)
    u, v = np.arange(camera.width) + 0.5, np.arange(camera.height)[:, None] + 0.5
    gradient = (wu, wv, w - wu * u - wv * v)  # w = gradient . x
    # K^T gradient, component by component; w > 0 means it points away from the camera
    away = [sum(g * k for g, k in zip(gradient, column, strict=True) if k) for column in camera.K.T]
    length = np.sqrt(sum(np.square(one) for one in away))
    scale = np.where((w > 0) & (length > 0), -1 / np.where(length > 0, length, 1), 0)
    return np.stack([(one * scale).astype(np.float32) for one in away], axis=-1)
