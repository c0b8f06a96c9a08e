"""Fast kernels that bring one view into the voxels; `recon/fusion/reference.py` says the same plainly."""

from typing import Any, no_type_check

import numpy as np

from recon.fusion.blocks import BLOCK_VOXELS, SIDE
from recon.fusion.jit import compiled
from recon.fusion.observations import NX, NY, NZ, OFFSET, SUPPORT, TAPER_LENGTH, WEIGHT

COLOR_STEPS = np.float32(256)  # colours are stored in 1/256 of a grey level, so that a mean can creep
CELL = 2  # voxels along the side of the cells that count votes for free space
CELLS = SIDE // CELL
BLOCK_CELLS = CELLS**3
FREE_SHARE = np.float32(0.2)  # weight of having seen through a voxel against having seen a surface in it
FREE_MARGIN_VOXELS = np.float32(1)  # half the diagonal of a cell of votes, rounded up
VOXEL_SHARE = FREE_SHARE / np.float32(CELL**3)  # of one voxel's vote in its cell's


def _lattice(step: int) -> np.ndarray:
    """Returns the centres of the cells of a block with `step` voxels a side, voxels from the first centre."""
    along = np.arange(0, SIDE, step, dtype=np.float32) + np.float32((step - 1) / 2)
    z, y, x = np.meshgrid(along, along, along, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()])


VOXELS = _lattice(1)
VOTES = _lattice(CELL)
CELL_OF_VOXEL = (np.array([1, CELLS, CELLS**2]) @ (VOXELS.astype(np.int64) // CELL)).astype(np.int32)


@compiled
@no_type_check
def _project(lattice: Any, corner: Any, view: Any, points: Any, pixels: Any) -> None:
    """Writes camera-frame points of a block's lattice and the numbers of their pixels, -1 outside."""
    ranges, _, K, _, steps = view
    height, width = np.float32(ranges.shape[0]), np.float32(ranges.shape[1])
    row_pixels, zero = np.int32(ranges.shape[1]), np.float32(0)
    # All of it in scalars and flat arrays and without branches: only so is the loop vectorised.
    xs, ys, zs, X, Y, Z = lattice[0], lattice[1], lattice[2], points[0], points[1], points[2]
    first_x, first_y, first_z = corner[0], corner[1], corner[2]
    xx, xy, xz, yx, yy, yz = steps[0, 0], steps[0, 1], steps[0, 2], steps[1, 0], steps[1, 1], steps[1, 2]
    zx, zy, zz = steps[2, 0], steps[2, 1], steps[2, 2]
    uu, uv, u0, vu, vv, v0 = K[0, 0], K[0, 1], K[0, 2], K[1, 0], K[1, 1], K[1, 2]
    for i in range(len(xs)):
        x = first_x + xs[i] * xx + ys[i] * yx + zs[i] * zx
        y = first_y + xs[i] * xy + ys[i] * yy + zs[i] * zy
        z = first_z + xs[i] * xz + ys[i] * yz + zs[i] * zz
        inverse = np.float32(1) / z
        u = (uu * x + uv * y) * inverse + u0
        v = (vu * x + vv * y) * inverse + v0
        inside = (z > zero) & (u >= zero) & (u < width) & (v >= zero) & (v < height)
        pixels[i] = np.int32(v) * row_pixels + np.int32(u) if inside else np.int32(-1)
        X[i], Y[i], Z[i] = x, y, z


@compiled
@no_type_check
def fuse_blocks(start: int, stop: int, rows: Any, view: Any, photo: Any, channels: Any) -> None:
    """Updates the voxels of some blocks with the planes of one view.

    Args:
        start: First block of `rows` to do.
        stop: One past the last.
        rows: Blocks that the view touches, rows of the volume's arrays.
        view: Ranges and planes of `observations.Observations`; intrinsics, px; centre of the first voxel of
            each block of the volume, camera frame; steps to the next voxel along x, y, z as rows, camera
            frame; all float32.
        photo: Colours of the pixels; no rows where there are none.
        channels: tsdf (mean signed distance / truncation), weights, votes for free space and colours (in
            1/256); changed in place.
    """
    ranges, planes, photo = view[0].reshape(-1, 2), view[1].reshape(-1, 6), photo.reshape(-1, 3)
    tsdf, weights, free, colors = channels
    one, half, per_taper = np.float32(1), np.float32(0.5), np.float32(1) / TAPER_LENGTH
    points, pixels = np.empty((3, BLOCK_VOXELS), np.float32), np.empty(BLOCK_VOXELS, np.int32)
    near = np.empty(BLOCK_VOXELS, np.int32)
    for i in range(start, stop):
        row, count = rows[i], 0
        _project(VOXELS, view[3][row], view, points, pixels)
        for voxel in range(BLOCK_VOXELS):  # picks without branches, which would often be predicted wrong
            pixel, z = np.uint32(max(pixels[voxel], np.int32(0))), points[2, voxel]
            near[count] = voxel
            count += (pixels[voxel] >= 0) & (ranges[pixel, 0] <= z) & (z <= ranges[pixel, 1])
        for k in range(count):
            voxel = np.uint32(near[k])
            pixel = np.uint32(pixels[voxel])
            distance = planes[pixel, NX] * points[0, voxel] + planes[pixel, NY] * points[1, voxel]
            distance += planes[pixel, NZ] * points[2, voxel] - planes[pixel, OFFSET]
            left = planes[pixel, SUPPORT] - abs(distance)
            if left <= 0:
                if distance > 0:
                    free[row, CELL_OF_VOXEL[voxel]] += VOXEL_SHARE * planes[pixel, WEIGHT]
                continue
            weight = planes[pixel, WEIGHT] * min(left * per_taper, one)
            total = weights[row, voxel] + weight
            share = weight / total
            weights[row, voxel] = total
            tsdf[row, voxel] += share * (min(max(distance, -one), one) - tsdf[row, voxel])
            if len(photo):
                for channel in range(3):
                    new = np.float32(photo[pixel, channel]) * COLOR_STEPS
                    old = np.float32(colors[row, voxel, channel])
                    colors[row, voxel, channel] = np.uint16(np.int32(old + share * (new - old) + half))


@compiled
@no_type_check
def carve_blocks(start: int, stop: int, view: Any, margin: Any, free: Any) -> None:
    """Adds the votes for free space of one view: cells that its rays cross well before they meet a surface.

    Args:
        start: First block to do, a row of `free`.
        stop: One past the last.
        view: As for `fuse_blocks`.
        margin: How far before the range of the pixel's plane a cell must be, scene units, float32.
        free: Sum of votes per cell; changed in place.
    """
    ranges, planes = view[0].reshape(-1, 2), view[1].reshape(-1, 6)
    points, pixels = np.empty((3, BLOCK_CELLS), np.float32), np.empty(BLOCK_CELLS, np.int32)
    for row in range(start, stop):
        _project(VOTES, view[3][row], view, points, pixels)
        for cell in range(BLOCK_CELLS):
            pixel = np.uint32(max(pixels[cell], np.int32(0)))
            if pixels[cell] >= 0 and points[2, cell] < ranges[pixel, 0] - margin:
                free[row, cell] += FREE_SHARE * planes[pixel, WEIGHT]
