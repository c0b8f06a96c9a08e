"""Triangle meshes and point clouds in files."""

from recon.io.meshes.gltf import GLTF_FROM_OPENCV
from recon.io.meshes.reading import READABLE, read_mesh
from recon.io.meshes.writing import write_mesh

__all__ = ["GLTF_FROM_OPENCV", "READABLE", "read_mesh", "write_mesh"]
