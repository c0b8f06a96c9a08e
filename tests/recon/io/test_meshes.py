import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from PIL import Image

from recon.errors import InputError
from recon.io.meshes import read_mesh, write_mesh
from recon.scene import Mesh

RNG = np.random.default_rng(0)


def sphere(**fields) -> Mesh:
    """Bumpy ball away from the origin; its vertices are float32 numbers, so that files can keep them."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = (ball.vertices * [1.0, 2.0, 0.5] + [4.0, -2.0, 7.0]).astype(np.float32).astype(np.float64)
    return Mesh(vertices, ball.faces.astype(np.int64), **fields)


def count() -> int:
    return len(sphere().vertices)


def normals() -> np.ndarray:
    return trimesh.creation.icosphere(subdivisions=2).vertices.astype(np.float32).astype(np.float64)


def colors() -> np.ndarray:
    return RNG.integers(0, 256, (count(), 3), dtype=np.uint8)


def textured() -> Mesh:
    uv = RNG.uniform(0.05, 0.95, (count(), 2)).astype(np.float32).astype(np.float64)
    return sphere(uv=uv, texture=RNG.integers(0, 256, (16, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_a_coloured_mesh_survives_the_file(tmp_path, ending):
    written = sphere(colors=colors())
    write_mesh(tmp_path / f"a.{ending}", written)
    read = read_mesh(tmp_path / f"a.{ending}")
    assert np.allclose(read.vertices, written.vertices, rtol=1e-8)
    assert np.array_equal(read.faces, written.faces)
    assert np.array_equal(read.colors, written.colors)
    assert read.normals is None
    assert read.texture is None


@pytest.mark.parametrize("ending", ["ply", "glb"])
def test_normals_survive_the_file(tmp_path, ending):
    write_mesh(tmp_path / f"a.{ending}", sphere(normals=normals()))
    assert np.array_equal(read_mesh(tmp_path / f"a.{ending}").normals, normals())


@pytest.mark.parametrize("ending", ["obj", "glb"])
def test_a_textured_mesh_survives_the_file(tmp_path, ending):
    written = textured()
    write_mesh(tmp_path / f"my mesh.{ending}", replace(written, colors=colors(), normals=normals()))
    read = read_mesh(tmp_path / f"my mesh.{ending}")
    assert np.allclose(read.vertices, written.vertices, rtol=1e-8)
    assert np.array_equal(read.faces, written.faces)
    assert np.allclose(read.uv, written.uv, atol=1e-6)
    assert np.array_equal(read.texture, written.texture)


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_the_same_mesh_gives_the_same_bytes(tmp_path, ending):
    mesh = replace(textured(), colors=colors())
    write_mesh(tmp_path / f"a.{ending}", mesh)
    first = (tmp_path / f"a.{ending}").read_bytes()
    write_mesh(tmp_path / f"a.{ending}", mesh)
    assert (tmp_path / f"a.{ending}").read_bytes() == first


@pytest.mark.parametrize("ending", ["ply", "glb"])
def test_a_point_cloud_survives_with_no_faces(tmp_path, ending):
    cloud = Mesh(sphere().vertices, np.zeros((0, 3), np.int64), colors=colors())
    write_mesh(tmp_path / f"a.{ending}", cloud)
    read = read_mesh(tmp_path / f"a.{ending}")
    assert read.faces.shape == (0, 3)
    assert np.array_equal(read.vertices, cloud.vertices)
    assert np.array_equal(read.colors, cloud.colors)


def test_coordinates_far_from_the_origin_keep_their_precision_in_ply(tmp_path):
    far = sphere()
    far = replace(far, vertices=far.vertices / 100 + [5e5, 5e6, 0])
    write_mesh(tmp_path / "a.ply", far)
    assert np.array_equal(read_mesh(tmp_path / "a.ply").vertices, far.vertices)


def test_another_reader_sees_our_glb_with_y_up_and_the_texture_right_way_round(tmp_path):
    written = textured()
    write_mesh(tmp_path / "a.glb", written)
    scene = trimesh.load(tmp_path / "a.glb", process=False)
    assert np.allclose(scene.bounds, [[3, 0, -7.5], [5, 4, -6.5]], atol=0.02)  # y and z negated
    (geometry,) = scene.geometry.values()
    assert np.allclose(geometry.visual.uv, written.uv, atol=1e-6)
    assert np.array_equal(np.array(geometry.visual.material.baseColorTexture), written.texture)


def test_the_node_of_a_glb_takes_a_given_transform(tmp_path):
    turn = np.array([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    write_mesh(tmp_path / "a.glb", sphere(), gltf_from_world=turn)
    scene = trimesh.load(tmp_path / "a.glb", process=False)
    expected = trimesh.Trimesh(sphere().vertices, sphere().faces, process=False).apply_transform(turn)
    assert np.allclose(scene.bounds, expected.bounds, atol=1e-5)
    assert np.array_equal(read_mesh(tmp_path / "a.glb").vertices, sphere().vertices)


def test_our_glb_keeps_to_the_format(tmp_path):
    write_mesh(tmp_path / "a.glb", textured())
    content = (tmp_path / "a.glb").read_bytes()
    magic, version, length, text_length = np.frombuffer(content[:16], "<u4")
    assert (magic, version, length) == (0x46546C67, 2, len(content))
    assert text_length % 4 == 0
    document = json.loads(content[20 : 20 + text_length])
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    assert document["materials"][0]["pbrMetallicRoughness"]["metallicFactor"] == 0
    positions = document["accessors"][0]
    assert np.allclose(positions["min"], sphere().vertices.min(axis=0))
    assert document["buffers"][0]["byteLength"] == length - 28 - text_length


def test_another_reader_agrees_with_our_ply(tmp_path):
    written = sphere(colors=colors(), normals=normals())
    write_mesh(tmp_path / "a.ply", written)
    read = trimesh.load(tmp_path / "a.ply", process=False)
    assert np.array_equal(read.vertices, written.vertices)
    assert np.array_equal(read.faces, written.faces)
    assert np.array_equal(read.visual.vertex_colors[:, :3], written.colors)
    assert np.allclose(read.vertex_normals, written.normals)


def test_parts_of_a_scene_are_put_together_where_their_nodes_place_them(tmp_path):
    scene = trimesh.Scene()
    box = trimesh.creation.box()
    scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.add_geometry(box, transform=np.diag([-1.0, 1, 1, 1]))  # a mirrored one stays outside out
    scene.export(tmp_path / "a.glb")
    read = read_mesh(tmp_path / "a.glb")
    assert np.allclose([read.vertices.min(axis=0), read.vertices.max(axis=0)], [[-0.5] * 3, [5.5, 0.5, 0.5]])
    assert trimesh.Trimesh(read.vertices, read.faces).volume == pytest.approx(2)


def test_textures_of_several_parts_become_vertex_colours(tmp_path):
    scene = trimesh.Scene()
    for place, color in [(0, (250, 0, 0)), (5, (0, 0, 250))]:
        box = trimesh.creation.box().apply_translation([place, 0, 0])
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 8), color))
        box.visual = trimesh.visual.TextureVisuals(uv=np.full((8, 2), 0.5), material=material)
        scene.add_geometry(box)
    scene.export(tmp_path / "a.glb")
    read = read_mesh(tmp_path / "a.glb")
    left = read.vertices[:, 0] < 2
    assert read.texture is None
    assert (read.colors[left] == [250, 0, 0]).all()
    assert (read.colors[~left] == [0, 0, 250]).all()


@pytest.mark.parametrize("ending", ["stl", "off"])
def test_stl_and_off_are_read_as_closed_surfaces(tmp_path, ending):
    trimesh.creation.icosphere(subdivisions=1).export(tmp_path / f"a.{ending}")
    read = read_mesh(tmp_path / f"a.{ending}")
    assert trimesh.Trimesh(read.vertices, read.faces, process=False).is_watertight
    assert len(read.vertices) == 42


def test_an_ascii_ply_with_normals_and_a_quad_is_read(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
        "property float nx\nproperty float ny\nproperty float nz\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
        "0 0 0 0 0 1\n1 0 0 0 0 1\n1 1 0 0 0 1\n0 1 0 0 0 1\n4 0 1 2 3\n"
    )
    read = read_mesh(tmp_path / "a.ply")
    assert len(read.faces) == 2
    assert np.array_equal(read.normals, np.tile([0.0, 0, 1], (4, 1)))


@pytest.mark.parametrize("ending", ["ply", "glb"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_off_file_is_one_clear_line(tmp_path, ending, kept):
    path = tmp_path / f"cut.{ending}"
    write_mesh(path, textured())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(InputError, match=f"cut.{ending}: no mesh that can be read") as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["ply", "obj", "glb", "gltf", "stl", "off"])
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256)) * 8])
def test_what_is_no_mesh_is_an_input_error(tmp_path, ending, content):
    (tmp_path / f"a.{ending}").write_bytes(content)
    with pytest.raises(InputError, match=f"a.{ending}"):
        read_mesh(tmp_path / f"a.{ending}")


def test_unknown_endings_missing_files_and_empty_meshes_are_named(tmp_path):
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    with pytest.raises(InputError, match="wanted one of"):
        read_mesh(tmp_path / "a.xyz")
    with pytest.raises(InputError, match="no such file"):
        read_mesh(tmp_path / "a.ply")
    with pytest.raises(InputError, match=r"ending '\.stl', wanted"):
        write_mesh(tmp_path / "a.stl", sphere())
    with pytest.raises(InputError, match="has no vertices"):
        write_mesh(tmp_path / "a.ply", empty)
    assert not list(tmp_path.iterdir())


def test_nan_vertices_of_a_file_are_an_input_error(tmp_path):
    (tmp_path / "a.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(InputError, match=r"a\.obj"):
        read_mesh(tmp_path / "a.obj")


@pytest.mark.parametrize(
    ("name", "faces", "size"),
    [
        ("mesh_ycb/003_cracker_box_textured.gltf", 16384, 4096),
        ("mesh_ycb/006_mustard_bottle_textured.gltf", 16384, 4096),
        ("mesh_cat_statue/cat.glb", 4622, 1024),
    ],
)
def test_textured_models_of_others_read_with_their_texture(shared_data, name, faces, size):
    mesh = read_mesh(shared_data / name)
    assert len(mesh.faces) == pytest.approx(faces, rel=0.05)
    assert mesh.texture.shape == (size, size, 3)
    assert (mesh.uv >= 0).all()
    assert (mesh.uv <= 1).all()


def test_a_scene_of_several_materials_reads_as_one_coloured_mesh(shared_data):
    mesh = read_mesh(shared_data / "mesh_drake_living_room" / "sofa_03_1k.gltf")
    assert len(mesh.faces) == 6994 + 1010
    assert mesh.colors.std() > 10
