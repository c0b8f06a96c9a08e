"""COLMAP's dense workspace: depth and normal maps that its `stereo_fusion` and other programs read.

`stereo/depth_maps/NAME.geometric.bin` and `stereo/normal_maps/NAME.geometric.bin`: the text
"width&height&channels&", then little-endian float32, channel by channel, each row by row.
Depth 0 is none; normals are in the camera frame and face the camera, as ours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from recon.errors import InputError, ViewError
from recon.geometry import normals_from_depth, rays
from recon.io.files import replaced
from recon.scene import Camera, DepthMap

MAX_HEADER = 64  # bytes; three whole numbers need fewer


def write_dense(workspace: Path, name: str, depth_map: DepthMap) -> None:
    """Writes depth and normals of one view. COLMAP has no place for sigma.

    Args:
        workspace: COLMAP's dense folder, beside `images` and `sparse`.
        name: The view's name.
        depth_map: Of the size of the view's image in the workspace.

    Raises:
        InputError: A file cannot be written.
    """
    _write_map(_path(workspace, "depth_maps", name), depth_map.depth[..., None])
    _write_map(_path(workspace, "normal_maps", name), depth_map.normals)


def write_fusion_list(workspace: Path, names: Sequence[str]) -> None:
    """Writes `stereo/fusion.cfg`, the names of the views that `stereo_fusion` shall fuse.

    Raises:
        InputError: The file cannot be written.
    """
    with replaced(workspace / "stereo" / "fusion.cfg") as temporary:
        temporary.write_text("".join(f"{name}\n" for name in names))


def read_dense(workspace: Path, name: str, camera: Camera, *, relative_sigma: float) -> DepthMap:
    """Returns the depth map of one view of a dense workspace, by whichever program.

    Depth that is not finite and positive counts as none. Normals are made unit and turned to the camera;
    where there is no normal map, they are those of the depth.

    Args:
        workspace: COLMAP's dense folder.
        name: The view's name.
        camera: Of the map; its size is checked.
        relative_sigma: Standard deviation over depth, which the files do not tell.

    Raises:
        ViewError: No depth map of that name, or a damaged one.
        InputError: A map of another size than the camera.
    """
    depth = _read_map(_path(workspace, "depth_maps", name), camera, channels=1)[..., 0]
    known = np.isfinite(depth) & (depth > 0)
    depth = np.where(known, depth, 0).astype(np.float32)
    normals_path = _path(workspace, "normal_maps", name)
    if normals_path.exists():
        normals = _facing_unit(_read_map(normals_path, camera, channels=3), camera)
    else:
        normals = normals_from_depth(camera.K, depth)
    normals = np.where(known[..., None], normals, 0).astype(np.float32)
    return DepthMap(camera, depth, normals, np.float32(relative_sigma) * depth)


def _path(workspace: Path, kind: str, name: str) -> Path:
    return workspace / "stereo" / kind / f"{name}.geometric.bin"


def _write_map(path: Path, values: Float32[np.ndarray, "h w c"]) -> None:
    height, width, channels = values.shape
    planes = np.ascontiguousarray(np.moveaxis(values, -1, 0), "<f4")
    with replaced(path) as temporary:
        temporary.write_bytes(f"{width}&{height}&{channels}&".encode() + planes.tobytes())


def _read_map(path: Path, camera: Camera, *, channels: int) -> Float32[np.ndarray, "h w c"]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ViewError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    fields = content[:MAX_HEADER].split(b"&", 3)
    if len(fields) < 4 or not all(field.isdigit() for field in fields[:3]):
        raise ViewError(f"{path.name}: does not start with width&height&channels&")
    width, height, found = (int(field) for field in fields[:3])
    if (width, height, found) != (camera.width, camera.height, channels):
        raise InputError(
            f"{path.name}: {width}x{height} of {found} channels, "
            f"wanted {camera.width}x{camera.height} of {channels}"
        )
    start = sum(len(field) + 1 for field in fields[:3])
    if len(content) - start != 4 * width * height * channels:
        wanted = 4 * width * height * channels
        raise ViewError(f"{path.name}: {len(content) - start} bytes of values, {wanted} wanted")
    planes = np.frombuffer(content, "<f4", offset=start).reshape(channels, height, width)
    return np.moveaxis(planes, 0, -1).astype(np.float32)


def _facing_unit(normals: Float32[np.ndarray, "h w 3"], camera: Camera) -> Float32[np.ndarray, "h w 3"]:
    safe = np.where(np.isfinite(normals).all(axis=-1, keepdims=True), normals, 0).astype(np.float64)
    length = np.linalg.norm(safe, axis=-1, keepdims=True)
    unit = np.where(length > 0, safe / np.where(length > 0, length, 1), 0)
    away = np.einsum("hwc,hwc->hw", unit, rays(camera.K, camera.width, camera.height)) > 0
    return np.where(away[..., None], -unit, unit).astype(np.float32)
