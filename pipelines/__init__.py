"""Stages and the three pipelines made of them: one photo, a folder of photos, a posed stream.

From Python, what the commands do:

    photos = pipelines.find_photos(Path("photos"), Path("out/cache"))
    outcome = pipelines.run(pipelines.MultiView(), photos, pipelines.DiskStore(Path("out/cache")))
    mesh = outcome.get("mesh")
"""

import importlib
from typing import Any

_HOMES = {
    "DiskStore": "pipelines.store",
    "MultiView": "pipelines.multi_view",
    "SingleView": "pipelines.single_view",
    "Streaming": "pipelines.streaming",
    "find_photos": "pipelines.sources",
    "run": "pipelines.runner",
    "stream": "pipelines.streaming",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used, so that `recon --help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
