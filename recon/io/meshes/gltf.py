"""Meshes as glTF 2.0 binaries, written, and read again as they were.

The vertices stay in the world frame; a node turns them into glTF's axes (x right, y up, z toward the viewer).
"""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from recon.errors import InputError
from recon.scene import Mesh

GENERATOR = "Lotus Recon"
GLTF_FROM_OPENCV = np.diag(
    [1.0, -1.0, -1.0, 1.0]
)  # half a turn about x: y down, z forward to y up, z backward
MAX_GLB_BYTES = 2**32 - 1  # glTF 2.0, 4.4.2: lengths are 32 bits
MAX_PNG_PIXELS = 2**20  # of a texture; a larger one is a quarter as large as JPEG
JPEG_QUALITY = 93
GLTF_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
GLTF_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def glb_bytes(mesh: Mesh, gltf_from_world: Float64[np.ndarray, "4 4"]) -> bytes:
    """Returns a mesh as a .glb: one node, one mesh, one primitive, one buffer.

    Raises:
        InputError: It is larger than the format allows.
    """
    buffer = _Buffer()
    attributes = _attributes(mesh, buffer)
    primitive: dict[str, Any] = {"attributes": attributes, "material": 0, "mode": 4 if len(mesh.faces) else 0}
    if len(mesh.faces):
        primitive["indices"] = buffer.accessor(mesh.faces.astype("<u4").reshape(-1), "SCALAR", 34963)
    document = {
        "asset": {"version": "2.0", "generator": GENERATOR},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": gltf_from_world.T.reshape(-1).tolist()}],  # column by column
        "meshes": [{"primitives": [primitive]}],
        **_material(mesh, buffer),
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.content)}],
    }
    return _container(document, bytes(buffer.content))


def _attributes(mesh: Mesh, buffer: "_Buffer") -> dict[str, int]:
    positions = mesh.vertices.astype("<f4")
    attributes = {"POSITION": buffer.accessor(positions, "VEC3")}
    buffer.accessors[-1] |= {"min": positions.min(axis=0).tolist(), "max": positions.max(axis=0).tolist()}
    if mesh.normals is not None:
        attributes["NORMAL"] = buffer.accessor(mesh.normals.astype("<f4"), "VEC3")
    if mesh.uv is not None and mesh.texture is not None:
        flipped = mesh.uv * [1, -1] + [0, 1]  # glTF's origin is the texture's upper left
        attributes["TEXCOORD_0"] = buffer.accessor(flipped.astype("<f4"), "VEC2")
    elif mesh.colors is not None:
        opaque = np.full((len(mesh.colors), 1), 65535, "<u2")
        linear = np.column_stack([_linear_from_srgb(mesh.colors), opaque]).astype("<u2")
        attributes["COLOR_0"] = buffer.accessor(linear, "VEC4")
    return attributes


def _material(mesh: Mesh, buffer: "_Buffer") -> dict[str, Any]:
    """The parts of the document that say how the surface looks: matt, and unlit where it has colours."""
    surface: dict[str, Any] = {"metallicFactor": 0, "roughnessFactor": 1}
    material: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": True}
    parts: dict[str, Any] = {"materials": [material]}
    textured = mesh.uv is not None and mesh.texture is not None
    if mesh.texture is not None and textured:
        surface["baseColorTexture"] = {"index": 0}
        kind, content = _encoded(mesh.texture)
        parts["images"] = [{"bufferView": buffer.view(content), "mimeType": f"image/{kind.lower()}"}]
        parts["samplers"] = [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
        parts["textures"] = [{"source": 0, "sampler": 0}]
    if textured or mesh.colors is not None:
        material["extensions"] = {"KHR_materials_unlit": {}}
        parts["extensionsUsed"] = ["KHR_materials_unlit"]
    return parts


class _Buffer:
    """The binary part of a glTF file while it is put together."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, content: bytes) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content)})
        self.content += content + bytes(-len(content) % 4)
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int = 34962) -> int:
        number = next(number for number, dtype in GLTF_TYPES.items() if values.dtype == dtype)
        view = self.view(values.tobytes())
        self.views[view]["target"] = target
        self.accessors.append(
            {"bufferView": view, "componentType": number, "count": len(values), "type": kind}
            | ({"normalized": True} if number == 5123 else {})
        )
        return len(self.accessors) - 1


def _container(document: dict[str, Any], content: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(content)
    if length > MAX_GLB_BYTES:
        raise InputError(
            f"the mesh takes {length / 2**30:.1f} GiB, a .glb holds at most 4; wanted fewer faces"
        )
    header = struct.pack("<4sIIII", b"glTF", 2, length, len(text), 0x4E4F534A)
    return header + text + struct.pack("<II", len(content), 0x004E4942) + content


def _encoded(image: UInt8[np.ndarray, "h w 3"]) -> tuple[str, bytes]:
    """Returns a format and a picture in it: as it is where it is small, JPEG else."""
    from PIL import Image

    kind = "PNG" if image.shape[0] * image.shape[1] <= MAX_PNG_PIXELS else "JPEG"
    with io.BytesIO() as file:
        options = {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {}
        Image.fromarray(image).save(file, format=kind, **options)
        return kind, file.getvalue()


def _linear_from_srgb(colors: UInt8[np.ndarray, "n 3"]) -> Shaped[np.ndarray, "n 3"]:
    """The linear 16-bit colours that glTF wants of vertices; in 8 bits dark ones would fall together."""
    srgb = np.arange(256) / 255  # IEC 61966-2-1
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.rint(linear * 65535).astype("<u2")[colors]


def _srgb_from_linear(values: Shaped[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    linear = values / 65535
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(srgb * 255).astype(np.uint8)


def read_own_glb(path: Path) -> Mesh | None:
    """Returns the mesh of a .glb by `glb_bytes`, in the frame it had there; None for any other file."""
    if path.suffix.lower() != ".glb":
        return None
    content = path.read_bytes()
    text_length = struct.unpack("<4sIIII", content[:20])[3]
    document = json.loads(content[20 : 20 + text_length])
    if document["asset"].get("generator") != GENERATOR:
        return None
    binary = content[28 + text_length :]
    views, primitive = document["bufferViews"], document["meshes"][0]["primitives"][0]

    def values(index: int) -> np.ndarray:
        accessor, size = document["accessors"][index], GLTF_SIZES[document["accessors"][index]["type"]]
        start, dtype = views[accessor["bufferView"]]["byteOffset"], GLTF_TYPES[accessor["componentType"]]
        return np.frombuffer(binary, dtype, accessor["count"] * size, start).reshape(-1, size)

    found = {name: values(index) for name, index in primitive["attributes"].items()}
    faces = values(primitive["indices"]) if "indices" in primitive else np.zeros((0, 3))
    texture = None
    if "images" in document:
        picture = views[document["images"][0]["bufferView"]]
        texture = _decoded(binary[picture["byteOffset"] :][: picture["byteLength"]])
    return Mesh(
        vertices=found["POSITION"].astype(np.float64),
        faces=faces.reshape(-1, 3).astype(np.int64),
        normals=found["NORMAL"].astype(np.float64) if "NORMAL" in found else None,
        colors=_srgb_from_linear(found["COLOR_0"][:, :3]) if "COLOR_0" in found else None,
        uv=found["TEXCOORD_0"].astype(np.float64) * [1, -1] + [0, 1] if "TEXCOORD_0" in found else None,
        texture=texture,
    )


def _decoded(content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as picture:
        return np.array(picture.convert("RGB"))
