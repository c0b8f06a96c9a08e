"""Made-up photos with exact depth and normals, to train on: rooms, table-tops, streets, free forms.

In the order of the method: `sample(seed)` lays out solids (`solids`, `materials`, `objects`, `furniture`,
`rooms`, `outdoors`) and a camera (`sampling`) as plain tables (`description`); `render` meets them with rays
(`intersection`, `tracing`), gives them colour and light (`textures`, `light`, `pixels`, `shading`) and takes
the photo (`exposure`). The same seed gives the same bytes.

For many scenes at once, on a GPU too: `pack_scenes` puts them into tables, `radiance_batch` returns their
light, depth and normals (`batched`, `gpu`), `develop_batch` takes their photos (`development`, `jpeg`).

Example:
    >>> from lotus import scenes
    >>> scenes.render(scenes.sample(7), 64, 48).image.shape
    (48, 64, 3)
"""

from lotus.scenes.batched import SceneTables, pack_scenes, radiance_batch
from lotus.scenes.description import Photo, SceneDescription, Shape, Solids
from lotus.scenes.development import develop_batch
from lotus.scenes.exposure import photo_table
from lotus.scenes.rendering import intrinsics, render, render_batch
from lotus.scenes.sampling import draw_photo, sample

__all__ = [
    "Photo",
    "SceneDescription",
    "SceneTables",
    "Shape",
    "Solids",
    "develop_batch",
    "draw_photo",
    "intrinsics",
    "pack_scenes",
    "photo_table",
    "radiance_batch",
    "render",
    "render_batch",
    "sample",
]
