"""The sections of the page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pipelines.frame import capture_frame
from pipelines.report.page import Section, figure, flat, folded, pairs_table, steps_table
from pipelines.report.pictures import camera_map, data_uri, is_room, mesh_sides
from recon.raycasting import RayCaster
from recon.scene import Mesh, Scene, View

MAP_HINT = "With the sparse points. Hold the pointer over a camera for its photo's name; orange: not used."
VIEWS_HINT = (
    "Held-out error: median relative depth error at sparse points that the fit did not see. Disagreement: "
    "median relative difference of depth where other views see the same surface, before and after all views "
    "were made to agree. Sigma: the standard deviation of depth. In the plot: the line is the fit, blue "
    "anchors agree, orange ones do not."
)
MESH_HINT = "Lit from the camera; reddish: back sides of the surface."
ROOM_HINT = "From outside, with the near side cut away. Lit from the camera."
POSE_HINT = "Seen from the poses of some photos. Reddish: back sides of the surface."


def sections_of(
    report: Mapping[str, Any], cards: Sequence[str], mesh_sections: Iterable[Section], scene: Scene | None
) -> Iterator[Section]:
    """Yields all sections in order: those of the mesh, cameras, dropped photos, steps, views, settings."""
    yield from mesh_sections
    if scene is not None and scene.views:
        yield Section("Cameras", _maps(scene, report["dropped"]), MAP_HINT)
    if report["dropped"]:
        yield Section(
            f"Dropped photos ({len(report['dropped'])})", pairs_table(report["dropped"], "photo", "reason")
        )
    if report["steps"]:
        yield Section("Steps", steps_table(report["steps"]))
    if cards:
        yield Section(f"Views ({len(cards)})", "".join(cards), VIEWS_HINT)
    options = folded("Options", pairs_table(flat(report["options"]), "option", "value"))
    versions = folded("Versions", pairs_table(report["versions"], "package", "version"))
    yield Section("Settings", options + versions)


def _maps(scene: Scene, dropped: Mapping[str, str]) -> str:
    frame = capture_frame(scene.views)
    cards = "".join(
        f'<div class="card">{figure(camera_map(scene, frame, rows, dropped), caption)}</div>'
        for rows, caption in (((0, 2), "from above"), ((0, ~1), "from behind"))
    )
    return f'<div class="maps">{cards}</div>'


def mesh_sections(
    mesh: Mesh | None, scene: Scene | None, photos: Mapping[str, UInt8[np.ndarray, "h w 3"]]
) -> Iterator[Section]:
    """Yields pictures of the mesh, and of it beside photos; a room first from inside."""
    if mesh is None or not len(mesh.faces):
        return
    views = scene.views if scene is not None else ()
    cloud = scene.cloud if scene is not None else None
    # the mesh may reach far beyond what was photographed; the sparse points say where that is
    focus = mesh.vertices if cloud is None or not len(cloud.points) else cloud.points
    frame, caster = capture_frame(views), RayCaster(mesh)
    room = is_room(caster, views, frame)
    sides = "".join(
        figure(data_uri(picture), caption, kind="mesh")
        for caption, picture in mesh_sides(caster, frame, focus, cut_open=room)
    )
    outside = Section("Mesh", f'<div class="grid four">{sides}</div>', ROOM_HINT if room else MESH_HINT)
    pairs = "".join(_compared(caster, view, photos[view.name]) for view in views if view.name in photos)
    inside = (
        [Section("Mesh beside photos", f'<div class="grid three">{pairs}</div>', POSE_HINT)] if pairs else []
    )
    yield from [*inside, outside] if room else [outside, *inside]


def _compared(caster: RayCaster, view: View, photo: UInt8[np.ndarray, "h w 3"]) -> str:
    """Returns a photo, the mesh from its pose and the bare shape: three figures."""
    camera = view.camera.resized(photo.shape[1], photo.shape[0])
    colored, shape = (caster.draw(camera, view.cam_from_world, colored=colors) for colors in (True, False))
    return (
        figure(data_uri(photo), view.name)
        + figure(data_uri(colored), "mesh", kind="mesh")
        + figure(data_uri(shape), "mesh, shape", kind="mesh")
    )
