"""Meshes and point clouds from files. The only file of the packages that knows trimesh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from recon.errors import InputError
from recon.io.meshes.gltf import read_own_glb
from recon.scene import Mesh

READABLE = (".ply", ".obj", ".glb", ".gltf", ".stl", ".off")
UNCOLORED = 200  # light grey of parts without colour beside parts with one


def read_mesh(path: Path) -> Mesh:
    """Returns the mesh or point cloud (no faces) of a file; a scene's parts are put together.

    Texture and uv are kept where there is one part; of several, texture becomes vertex colours. A .glb that
    `write_mesh` wrote comes back in its world frame; other programs' glTF stays in glTF's axes. Normals are
    taken from PLY and from our own .glb.

    Raises:
        InputError: Missing, an unknown ending, damaged, or without vertices.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {found}, wanted one of {', '.join(READABLE)}")
    if path.suffix.lower() not in READABLE:
        raise InputError(f"{path}: ending {path.suffix!r}, wanted one of {', '.join(READABLE)}")
    mesh = _parsed(path, read_own_glb)
    if mesh is None:
        parts = _parsed(path, _read_parts)
        if not parts:
            raise InputError(f"{path.name}: no vertices")
        mesh = parts[0] if len(parts) == 1 else _merged(parts)
    if not len(mesh.vertices):
        raise InputError(f"{path.name}: no vertices")
    return mesh


def _parsed(path: Path, parse: Callable[[Path], Any]) -> Any:
    try:
        return parse(path)
    except Exception as error:  # parsers of damaged files raise whatever comes up, not only ValueError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path.name}: no mesh that can be read ({reason})") from error


def _read_parts(path: Path) -> list[Mesh]:
    import trimesh

    loaded = trimesh.load(path, process=False, maintain_order=True)
    if not isinstance(loaded, trimesh.Scene):
        return [_part(path, loaded)]
    parts = []
    for node in sorted(loaded.graph.nodes_geometry):
        world_from_part, name = loaded.graph[node]
        geometry = loaded.geometry[name].copy()
        geometry.apply_transform(world_from_part)  # turns faces round where it mirrors
        parts.append(_part(path, geometry))
    return [part for part in parts if len(part.vertices)]


def _part(path: Path, geometry: Any) -> Mesh:
    """One trimesh geometry as ours."""
    import trimesh

    if not isinstance(geometry, trimesh.Trimesh | trimesh.PointCloud):
        raise InputError(f"a {type(geometry).__name__}, wanted triangles or points")
    if path.suffix.lower() == ".stl":
        geometry.merge_vertices()  # the format repeats every vertex for each face
    vertices = np.array(geometry.vertices, np.float64).reshape(-1, 3)
    if isinstance(geometry, trimesh.PointCloud):
        rgba = np.array(geometry.colors, np.uint8)
        return Mesh(
            vertices=vertices,
            faces=np.zeros((0, 3), np.int64),
            normals=_ply_normals(geometry),
            colors=rgba[:, :3].copy() if len(rgba) == len(vertices) else None,
        )
    faces = np.array(geometry.faces, np.int64).reshape(-1, 3)
    uv, texture = _uv_and_texture(geometry)
    colors = None if texture is not None else _vertex_colors(geometry)
    return Mesh(vertices, faces, _ply_normals(geometry), colors, uv, texture)


def _ply_normals(geometry: Any) -> Float64[np.ndarray, "n 3"] | None:
    """The normals of a PLY file; trimesh itself would make some up where there are none."""
    columns = geometry.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = columns.dtype.names if isinstance(columns, np.ndarray) else columns
    if not {"nx", "ny", "nz"} <= set(names):
        return None
    normals = np.column_stack(
        [np.asarray(columns[name], np.float64).reshape(-1) for name in ("nx", "ny", "nz")]
    )
    return normals if len(normals) == len(geometry.vertices) else None


def _uv_and_texture(
    geometry: Any,
) -> tuple[Float64[np.ndarray, "n 2"] | None, UInt8[np.ndarray, "h w 3"] | None]:
    material = getattr(geometry.visual, "material", None)
    uv = getattr(geometry.visual, "uv", None)
    pictures = [getattr(material, name, None) for name in ("baseColorTexture", "image")]
    picture = next((picture for picture in pictures if picture is not None), None)
    if uv is None or picture is None or len(uv) != len(geometry.vertices):
        return None, None
    return np.array(uv[:, :2], np.float64), np.array(picture.convert("RGB"))


def _vertex_colors(geometry: Any) -> UInt8[np.ndarray, "n 3"] | None:
    kind = geometry.visual.kind
    if kind is None:
        return None
    if kind == "texture":  # a material of one colour
        color = np.array(geometry.visual.material.main_color, np.uint8)[:3]
        return np.repeat(color[None], len(geometry.vertices), axis=0)
    colors: UInt8[np.ndarray, "n 4"] = np.array(geometry.visual.vertex_colors, np.uint8)
    return colors[:, :3].copy()


def _merged(parts: list[Mesh]) -> Mesh:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    colors = [_sampled_colors(part) for part in parts]
    filled = [
        np.full((len(part.vertices), 3), UNCOLORED, np.uint8) if own is None else own
        for part, own in zip(parts, colors, strict=True)
    ]
    return Mesh(
        vertices=np.concatenate([part.vertices for part in parts]),
        faces=np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        colors=None if all(own is None for own in colors) else np.concatenate(filled),
    )


def _sampled_colors(part: Mesh) -> UInt8[np.ndarray, "n 3"] | None:
    """Vertex colours; of a textured part those of its texture, which repeats beyond [0, 1]."""
    if part.texture is None or part.uv is None:
        return part.colors
    height, width = part.texture.shape[:2]
    u, v = np.mod(part.uv, 1).T
    column = np.minimum((u * width).astype(np.int64), width - 1)
    row = np.minimum(((1 - v) * height).astype(np.int64), height - 1)
    return part.texture[row, column]
