import sys

import numpy as np
import pytest

from pipelines.viewer import export_html, view
from recon.errors import InputError
from recon.io.meshes import write_mesh
from recon.scene import Mesh

TRIANGLE = Mesh(np.eye(3), np.array([[0, 1, 2]]), colors=np.full((3, 3), 90, np.uint8))
CAMERAS = "1 SIMPLE_RADIAL 64 48 60 32 24 0.01\n"
IMAGES = "1 1 0 0 0 0 0 4 1 first_photo.jpg\n\n"
POINTS = "1 0.5 0.5 0.5 200 100 50 0.3\n"


def write_sparse(folder):
    folder.mkdir(parents=True)
    for name, text in (("cameras", CAMERAS), ("images", IMAGES), ("points3D", POINTS)):
        (folder / f"{name}.txt").write_text(text)


def test_a_folder_without_results_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"neither mesh\.glb, mesh\.ply nor sparse/"):
        view(tmp_path)


def test_without_viser_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    write_mesh(tmp_path / "mesh.ply", TRIANGLE)
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(InputError, match=r"pip install 'lotus-recon\[view\]'"):
        view(tmp_path)


def test_mesh_and_cameras_are_exported_as_one_page(tmp_path):
    pytest.importorskip("viser")
    write_mesh(tmp_path / "mesh.glb", TRIANGLE)
    write_sparse(tmp_path / "sparse")
    export_html(tmp_path, tmp_path / "scene.html")
    page = (tmp_path / "scene.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "__VISER_EMBED_DATA__" in page
