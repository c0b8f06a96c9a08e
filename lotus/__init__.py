"""Lotus, the default predictor: depth and normals of one photo in one diffusion step (arXiv 2409.18124).

`lotus.load(source, device, dtype)` returns a `LotusModel`, whose `annotate` gives the network's raw picture;
`LotusPredictor` turns photos into `recon.Prediction`s in this project's conventions.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lotus.checkpoints import load as load
    from lotus.model import LotusModel as LotusModel
    from lotus.predictor import LotusPredictor as LotusPredictor

__all__ = ["LotusModel", "LotusPredictor", "load"]

_HOMES = {
    "LotusModel": "lotus.model",
    "LotusPredictor": "lotus.predictor",
    "load": "lotus.checkpoints",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import lotus` stays free of torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lotus' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
