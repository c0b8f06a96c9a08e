"""Meshes to files: the same mesh always gives the same bytes."""

from pathlib import Path

import numpy as np
from jaxtyping import Float64, Shaped

from recon.errors import InputError
from recon.io.files import replaced
from recon.io.images import write_image
from recon.io.meshes.gltf import GENERATOR, GLTF_FROM_OPENCV, glb_bytes
from recon.scene import Mesh

FLOAT32_LOSS = 1e-5  # of the extent; where float32 rounds more (maps far from the origin), PLY gets doubles
OBJ_ROWS = 200_000  # formatted at once


def write_mesh(
    path: Path, mesh: Mesh, *, gltf_from_world: Float64[np.ndarray, "4 4"] = GLTF_FROM_OPENCV
) -> None:
    """Writes a mesh, whole or not at all, in the format of the path's ending.

    .ply: binary, float32, normals and vertex colours; no texture. .obj: textured, with NAME.mtl and NAME.png
    beside it, else vertex colours. .glb: textured, else vertex colours; unlit, for photos hold the light.

    Args:
        path: Ending .ply, .obj or .glb.
        mesh: World frame.
        gltf_from_world: Transform of the .glb's node; the default makes a world whose y points down stand
            upright. The vertices themselves stay in the world frame.

    Raises:
        InputError: Another ending, a mesh without vertices, or the file cannot be written.
    """
    if not len(mesh.vertices):
        raise InputError(f"{path}: the mesh to write has no vertices")
    ending = path.suffix.lower()
    if ending == ".ply":
        _write_bytes(path, _ply_bytes(mesh))
    elif ending == ".obj":
        _write_obj(path, mesh)
    elif ending == ".glb":
        _write_bytes(path, glb_bytes(mesh, gltf_from_world))
    else:
        raise InputError(f"{path}: ending {path.suffix!r}, wanted .ply, .obj or .glb")


def _write_bytes(path: Path, content: bytes) -> None:
    with replaced(path) as temporary:
        temporary.write_bytes(content)


def _ply_bytes(mesh: Mesh) -> bytes:
    extent = np.ptp(mesh.vertices, axis=0).max()
    loss = np.abs(mesh.vertices).max() * np.finfo(np.float32).eps
    number, name = ("<f8", "double") if loss > FLOAT32_LOSS * extent > 0 else ("<f4", "float")
    columns: list[tuple[str, str, str, np.ndarray]] = [
        (axis, number, name, mesh.vertices[:, i]) for i, axis in enumerate("xyz")
    ]
    if mesh.normals is not None:
        columns += [(f"n{axis}", "<f4", "float", mesh.normals[:, i]) for i, axis in enumerate("xyz")]
    if mesh.colors is not None:
        columns += [
            (channel, "u1", "uchar", mesh.colors[:, i]) for i, channel in enumerate(("red", "green", "blue"))
        ]
    header = ["ply", "format binary_little_endian 1.0", f"comment {GENERATOR}"]
    header += [
        f"element vertex {len(mesh.vertices)}",
        *(f"property {kind} {key}" for key, _, kind, _ in columns),
    ]
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header", ""]
    vertices = np.empty(len(mesh.vertices), [(key, dtype) for key, dtype, _, _ in columns])
    for key, _, _, values in columns:
        vertices[key] = values
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def _write_obj(path: Path, mesh: Mesh) -> None:
    textured = mesh.uv is not None and mesh.texture is not None
    lines = [f"# {GENERATOR}"]
    if mesh.texture is not None and textured:
        side_name = path.stem.replace(" ", "_")  # the format ends names at spaces
        write_image(path.with_name(f"{side_name}.png"), mesh.texture)
        material = f"newmtl photo\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {side_name}.png\n"
        _write_bytes(path.with_name(f"{side_name}.mtl"), material.encode())
        lines += [f"mtllib {side_name}.mtl"]
    if mesh.colors is not None and not textured:
        rows = np.column_stack([mesh.vertices, mesh.colors / 255])
        lines += _formatted("v %.9g %.9g %.9g %.4f %.4f %.4f", rows)
    else:
        lines += _formatted("v %.9g %.9g %.9g", mesh.vertices)
    corner = ["%d"]
    if textured:
        lines += _formatted("vt %.7f %.7f", mesh.uv)
        corner = ["%d/%d"]
    if mesh.normals is not None:
        lines += _formatted("vn %.6f %.6f %.6f", mesh.normals)
        corner = ["%d/%d/%d" if textured else "%d//%d"]
    if textured:
        lines += ["usemtl photo"]
    repeats = corner[0].count("%d")
    lines += _formatted("f " + " ".join(corner * 3), np.repeat(mesh.faces + 1, repeats, axis=1))
    _write_bytes(path, "\n".join([*lines, ""]).encode())


def _formatted(row_format: str, rows: Shaped[np.ndarray, "n c"] | None) -> list[str]:
    assert rows is not None
    blocks = (rows[start : start + OBJ_ROWS] for start in range(0, len(rows), OBJ_ROWS))
    return ["\n".join([row_format] * len(block)) % tuple(block.ravel().tolist()) for block in blocks]
