"""A look around a reconstruction in the browser: mesh, sparse points, cameras. Live, or as one HTML file."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.frame import capture_frame
from recon.errors import InputError
from recon.io.files import replaced
from recon.io.meshes import read_mesh
from recon.scene import Mesh, Scene, SparseCloud, View

MESH_FILES = ("mesh.glb", "mesh.ply")  # the first that is there is shown; both are in the cameras' frame
FRUSTUM_SHARE, POINT_SHARE = 0.04, 0.002  # sizes of a frustum and a sparse point, share of the scene's extent


def view(folder: Path, port: int = 8080) -> None:
    """Serves OUT/ of a reconstruction to this machine's browser until it is interrupted.

    Raises:
        InputError: There is neither a mesh nor sparse/, one is damaged, or viser is not installed.
    """
    server = _serve(folder, port)
    with suppress(KeyboardInterrupt):
        server.sleep_forever()


def export_html(folder: Path, path: Path) -> None:
    """Writes what `view` shows as one HTML file that needs no server and no network.

    Raises:
        InputError: As of `view`, or the file cannot be written.
    """
    server = _serve(folder, port=8080)
    try:
        html = server.get_scene_serializer().as_html()
    finally:
        server.stop()
    with replaced(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _serve(folder: Path, port: int) -> Any:
    """Returns a running viser server (the next free port where `port` is in use) that shows the folder."""
    meshes = [folder / name for name in MESH_FILES if (folder / name).is_file()]
    sparse = folder / "sparse"
    if not meshes and not sparse.is_dir():
        raise InputError(f"{folder}: neither {', '.join(MESH_FILES)} nor sparse/ in it, wanted OUT of a run")
    try:
        import viser
    except ImportError:
        raise InputError(
            "viser is not installed, the viewer needs it: pip install 'lotus-recon[view]'"
        ) from None
    mesh = read_mesh(meshes[0]) if meshes else None
    scene = _read_scene(sparse) if sparse.is_dir() else Scene(())
    server = viser.ViserServer(host="127.0.0.1", port=port, label=folder.resolve().name, verbose=False)
    _show(server, mesh, scene)
    return server


def _read_scene(folder: Path) -> Scene:
    """Returns cameras and points of a COLMAP model; its photos need not be there."""
    from recon.io.colmap import read_model
    from recon.io.colmap.model import load_reconstruction
    from recon.io.colmap.undistort import lens_of, pinhole_camera

    model = load_reconstruction(read_model(folder))
    views = []
    for image in sorted(map(model.image, model.reg_image_ids()), key=lambda image: image.name):
        cam_from_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        views.append(View(image.name, pinhole_camera(lens_of(image.camera)), cam_from_world))
    points = [model.points3D[row] for row in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in points], np.float64).reshape(-1, 3)
    colors = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    unseen = np.zeros((0, 2))
    return Scene(tuple(views), SparseCloud(xyz, colors, np.zeros(len(xyz)), unseen.astype(np.int64), unseen))


def _show(server: Any, mesh: Mesh | None, scene: Scene) -> None:
    """Adds mesh, points and cameras with a check box each, and places the visitor behind the cameras."""
    from recon.io.meshes.gltf import glb_bytes

    centers = np.array([view.center for view in scene.views]).reshape(-1, 3)
    points = np.zeros((0, 3)) if scene.cloud is None else scene.cloud.points
    everything = np.concatenate([centers, points, np.zeros((0, 3)) if mesh is None else mesh.vertices])
    low, high = np.percentile(everything, [2, 98], axis=0) if len(everything) else (-np.ones(3), np.ones(3))
    extent = float(np.linalg.norm(high - low))
    _, down, forward = capture_frame(scene.views).axes
    server.scene.set_up_direction(-down)
    server.initial_camera.look_at = (low + high) / 2
    server.initial_camera.position = (low + high) / 2 - extent * (forward + 0.4 * down)
    if mesh is not None:
        _add_toggle(server, "Mesh", [server.scene.add_glb("/mesh", glb_bytes(mesh, np.eye(4)))])
    if scene.cloud is not None and len(points):
        size = POINT_SHARE * extent
        dots = server.scene.add_point_cloud("/points", points, scene.cloud.colors, point_size=size)
        _add_toggle(server, "Sparse points", [dots])
    frusta = [_add_frustum(server, view, FRUSTUM_SHARE * extent) for view in scene.views]
    _add_toggle(server, "Cameras", frusta)
    add_label = server.scene.add_label
    labels = [add_label(f"/names/{view.name}", view.name, position=view.center) for view in scene.views]
    _add_toggle(server, "Photo names", labels)


def _add_frustum(server: Any, view: View, size: float) -> Any:
    """Adds a frustum that takes the visitor to its pose when clicked."""
    from scipy.spatial.transform import Rotation

    wxyz = Rotation.from_matrix(view.cam_from_world[:3, :3]).inv().as_quat(scalar_first=True)
    fov = float(2 * np.arctan(view.camera.height / view.camera.K[1, 1] / 2))
    aspect = view.camera.width / view.camera.height
    pose = {"wxyz": wxyz, "position": view.center}
    frustum = server.scene.add_camera_frustum(f"/cameras/{view.name}", fov, aspect, scale=size, **pose)
    frustum.thickness, frustum.thickness_units = 2.0, "screen"

    @frustum.on_click
    def _(event: Any) -> None:
        with event.client.atomic():
            event.client.camera.wxyz, event.client.camera.position = wxyz, view.center

    return frustum


def _add_toggle(server: Any, name: str, handles: list[Any]) -> None:
    box = server.gui.add_checkbox(name, True)

    @box.on_update
    def _(_event: Any) -> None:
        for handle in handles:
            handle.visible = box.value
