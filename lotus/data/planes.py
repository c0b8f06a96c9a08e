"""Normals of a depth map by fitting a plane around every pixel.

In a window of 5 x 5 pixels the neighbours whose depth is within 5 % of the middle one's are taken as points,
and the normal is the direction in which they spread least: the eigenvector of the smallest eigenvalue of

    C = mean_i (p_i - m) (p_i - m)^T,    m = mean_i p_i

(total least squares; "plane SVD" of DSINE, Bae and Davison 2024, which made the normals of Virtual KITTI that
Lotus was trained on). Two differences: DSINE's eigenvector is that of the points with a fourth coordinate 1,
which ties the fit to the distance from the origin; and it gives a normal also where the taken pixels lie on
one line of the picture, which leaves the plane free (road within 20 rows of the horizon). Here there is none.
"""

import math
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64

from recon.jit import compiled

RADIUS_PX = 2
MIN_PIXELS = 4  # the middle one counts
RELATIVE_DEPTH_JUMP = 0.05


def fit_normals(
    K: Float64[np.ndarray, "3 3"], depth: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    """Returns unit normals toward the camera, camera frame; (0, 0, 0) where too few pixels say.

    Args:
        K: Of the map.
        depth: z in any unit; 0 = none.
    """
    normals = np.zeros((*depth.shape, 3), np.float32)
    _fit(np.ascontiguousarray(depth), np.linalg.inv(K), normals)
    return normals


@compiled
@no_type_check
def _fit(depth: Any, inverse_K: Any, normals: Any) -> None:
    """Writes the normals of a map."""
    height, width = depth.shape
    focal_x, left = inverse_K[0, 0], inverse_K[0, 2]
    focal_y, top = inverse_K[1, 1], inverse_K[1, 2]
    for v in range(height):
        for u in range(width):
            z = float(depth[v, u])
            if not z > 0:
                continue
            ray_x, ray_y = (u + 0.5) * focal_x + left, (v + 0.5) * focal_y + top
            count = 0
            u1 = v1 = uu = uv = vv = 0  # sums over the pixels taken, in whole pixels
            x1 = y1 = z1 = xx = xy = xz = yy = yz = zz = 0.0  # sums over their points, from the middle one
            for row in range(max(v - RADIUS_PX, 0), min(v + RADIUS_PX + 1, height)):
                for column in range(max(u - RADIUS_PX, 0), min(u + RADIUS_PX + 1, width)):
                    other = float(depth[row, column])
                    if not other > 0 or abs(other - z) >= RELATIVE_DEPTH_JUMP * z:
                        continue
                    count += 1
                    du, dv = column - u, row - v
                    u1, v1, uu, uv, vv = u1 + du, v1 + dv, uu + du * du, uv + du * dv, vv + dv * dv
                    dz = other - z
                    dx = ray_x * dz + du * focal_x * other
                    dy = ray_y * dz + dv * focal_y * other
                    x1, y1, z1 = x1 + dx, y1 + dy, z1 + dz
                    xx, xy, xz = xx + dx * dx, xy + dx * dy, xz + dx * dz
                    yy, yz, zz = yy + dy * dy, yz + dy * dz, zz + dz * dz
            on_one_line = (count * uu - u1 * u1) * (count * vv - v1 * v1) == (count * uv - u1 * v1) ** 2
            if count < MIN_PIXELS or on_one_line:
                continue
            x, y, n = _least_spread(
                xx - x1 * x1 / count,
                xy - x1 * y1 / count,
                xz - x1 * z1 / count,
                yy - y1 * y1 / count,
                yz - y1 * z1 / count,
                zz - z1 * z1 / count,
            )
            toward = -1.0 if x * ray_x + y * ray_y + n > 0 else 1.0
            normals[v, u, 0], normals[v, u, 1], normals[v, u, 2] = toward * x, toward * y, toward * n


@compiled
@no_type_check
def _least_spread(xx: Any, xy: Any, xz: Any, yy: Any, yz: Any, zz: Any) -> Any:
    """Returns the unit eigenvector of the smallest eigenvalue of a symmetric matrix, in closed form.

    The eigenvalue by the cosine of a third of an angle (Smith 1961), the vector as the longest cross product
    of two rows of A - lambda I.
    """
    mean = (xx + yy + zz) / 3
    a, b, c = xx - mean, yy - mean, zz - mean
    radius = math.sqrt((a * a + b * b + c * c + 2 * (xy * xy + xz * xz + yz * yz)) / 6)
    if radius == 0:
        return 0.0, 0.0, 0.0
    determinant = a * (b * c - yz * yz) - xy * (xy * c - yz * xz) + xz * (xy * yz - b * xz)
    cosine = min(max(determinant / (2 * radius**3), -1.0), 1.0)
    smallest = 2 * radius * math.cos(math.acos(cosine) / 3 + 2 * math.pi / 3)
    a, b, c = a - smallest, b - smallest, c - smallest
    first = (xy * yz - xz * b, xz * xy - a * yz, a * b - xy * xy)  # rows 1 x 2
    second = (xy * c - xz * yz, xz * xz - a * c, a * yz - xy * xz)  # rows 1 x 3
    third = (b * c - yz * yz, yz * xz - xy * c, xy * yz - b * xz)  # rows 2 x 3
    best, length = first, 0.0
    for vector in (first, second, third):
        square = vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2
        if square > length:
            best, length = vector, square
    if length == 0:
        return 0.0, 0.0, 0.0
    length = math.sqrt(length)
    return best[0] / length, best[1] / length, best[2] / length
