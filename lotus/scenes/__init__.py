"""Made-up photos with exact depth and normals, to train on: rooms, table-tops, streets, free forms.

In the order of the method: `sample(seed)` lays out solids (`solids`, `materials`, `objects`, `furniture`,
`rooms`, `outdoors`) and a camera (`sampling`) as plain tables (`description`); `render` meets them with rays
(`intersection`, `tracing`), gives them colour and light (`textures`, `light`, `pixels`, `shading`) and takes
the photo (`exposure`). The same seed gives the same bytes. For many scenes at once, `pack_scenes` puts them
into tables and `radiance_batch` returns their light, depth and normals, on a GPU too (`batched`, `gpu`).

Example:
    >>> from lotus import scenes
    >>> scenes.render(scenes.sample(7), 64, 48).image.shape
    (48, 64, 3)
"""

from lotus.scenes.batched import SceneTables, pack_scenes, radiance_batch
from lotus.scenes.description import Photo, SceneDescription, Shape, Solids
from lotus.scenes.rendering import intrinsics, render, render_batch
from lotus.scenes.sampling import sample

__all__ = [
    "Photo",
    "SceneDescription",
    "SceneTables",
    "Shape",
    "Solids",
    "intrinsics",
    "pack_scenes",
    "radiance_batch",
    "render",
    "render_batch",
    "sample",
]
