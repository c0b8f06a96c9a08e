"""The parts of texturing put together."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from recon.errors import InputError
from recon.geometry import sample
from recon.scene import Mesh, View
from recon.texturing.best_views import LOOK_SIZE, best_views
from recon.texturing.charts import Charts
from recon.texturing.layout import Layout, resized
from recon.texturing.levelling import levelled_offsets

MAX_SIZE = 4096  # px, sides of the texture; what every viewer takes
MIN_SIZE = 64  # px
GREY = 200  # of faces without photo and vertex colours


def texture_mesh(
    mesh: Mesh,
    views: Sequence[View],
    photos: Mapping[str, UInt8[np.ndarray, "h w 3"]],
    *,
    max_size: int = MAX_SIZE,
    on_view: Callable[[int, int], None] = lambda done, count: None,
) -> Mesh:
    """Returns the mesh with a texture of its photos; the same faces in the same order, vertices repeated.

    Args:
        mesh: World frame. Its colours, where it has some, tell which photos to believe, and colour what no
            photo shows.
        views: Cameras of the photos.
        photos: By the views' names, of their cameras' ratio; each is asked for twice at most.
        max_size: Most pixels of a side of the texture; photos are shrunk until what is seen of them fits.
        on_view: Called with the steps that are done and how many there are.

    Raises:
        InputError: No faces, no views, a texture of less than `MIN_SIZE` pixels is wanted, or what is seen
            does not fit into it.
    """
    if not len(mesh.faces) or not views:
        raise InputError(f"texture of {len(mesh.faces)} faces from {len(views)} photos, wanted some of both")
    if max_size < MIN_SIZE:
        raise InputError(f"texture of at most {max_size} px, wanted at least {MIN_SIZE}")
    labels, pairs = best_views(mesh, views, photos, lambda done: on_view(done, 2 * len(views)))
    charts = Charts.of(mesh, views, labels, pairs)
    layout = Layout.of(charts, max_size)
    agreed = None if mesh.colors is None else mesh.colors[charts.vertices].astype(np.float64)
    colors = np.full((len(charts.vertices), 3), GREY, np.float64) if agreed is None else agreed.copy()
    atlas = np.zeros((layout.height, layout.width, 3), np.uint8)
    for number, view in enumerate(views):
        if (labels == number).any():
            photo = photos[view.name]
            rows = charts.view_of_vertex == number
            small = view.camera.fitted(LOOK_SIZE)
            colors[rows] = sample(resized(photo, small), charts.uv[rows] * (small.width / view.camera.width))
            layout.paste(atlas, charts.of_view(number), photo, view.camera)
        on_view(len(views) + number + 1, 2 * len(views))
    offsets = levelled_offsets(
        charts, mesh.vertices[charts.vertices], colors, colors if agreed is None else agreed
    )
    uv = layout.draw(atlas, charts, colors, offsets)
    return Mesh(
        vertices=mesh.vertices[charts.vertices],
        faces=charts.faces,
        normals=None if mesh.normals is None else mesh.normals[charts.vertices],
        colors=None if mesh.colors is None else mesh.colors[charts.vertices],
        uv=uv,
        texture=atlas,
    )
