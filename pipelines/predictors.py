"""Where depth and normals of a photo come from: files, or any class that follows the Predictor protocol."""

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from pipelines.graph import digest
from pipelines.sources import Photo, file_digest
from recon.errors import InputError, ViewError
from recon.io import maps
from recon.scene import Prediction


@runtime_checkable
class Predictor(Protocol):
    """Anything that predicts depth (and normals) of photos; a list, so that a GPU can batch."""

    def __call__(self, images: list[UInt8[np.ndarray, "h w 3"]]) -> list[Prediction]:
        """Returns one prediction per photo, in order, of any size with the photo's ratio of sides."""
        ...


@dataclass(frozen=True)
class FromFiles:
    """Reads the prediction of each photo from a folder of NAME.npz files."""

    folder: Path
    """Holds NAME.npz for each photo NAME.jpg: values, kind, normals and optionally confidence."""

    makes: ClassVar[str] = "photo_prediction"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def content(self, view: str | None) -> str:
        """Returns the digest of the view's file."""
        return file_digest(self._path(view or ""))

    def check(self, names: Iterable[str]) -> None:
        """Raises before any work if there is a prediction of no photo.

        Raises:
            InputError: The first file that is missing, as all others are.
        """
        paths = [self._path(name) for name in names]
        if not any(path.is_file() for path in paths):
            wanted = paths[0].relative_to(self.folder)
            raise InputError(f"{self.folder}: no prediction {wanted}, nor of any other photo")

    def __call__(self, *, photo: Photo) -> Prediction:
        """Returns the prediction of one photo.

        Raises:
            ViewError: There is no file for the photo, or it does not hold a prediction.
        """
        path = self._path(photo.name)
        if not path.is_file():
            raise ViewError(f"no prediction {path.relative_to(self.folder)} in {self.folder}")
        try:
            return maps.read_prediction(path)
        except InputError as error:
            raise ViewError(str(error)) from None

    def _path(self, name: str) -> Path:
        return (self.folder / name).with_suffix(".npz")


@dataclass(frozen=True)
class Imported:
    """Uses a predictor class of any installed package."""

    target: str
    """Where the class is: `package.module:Class`."""

    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor."""

    def check(self) -> None:
        """Raises before any work what a call would raise of the class's place; nothing is loaded into it.

        Raises:
            InputError: The class cannot be imported.
        """
        _imported(self.target)

    def content(self) -> str:
        """Returns a digest of the file that the class is written in, and the class's own `content`, if any.

        It is empty where the class is not on this machine: those of a cluster may have it.
        """
        try:
            kind = _imported(self.target)
        except InputError:
            return ""
        source = getattr(sys.modules.get(kind.__module__), "__file__", None)
        own = self._instance().content() if hasattr(kind, "content") else ""  # type: ignore[attr-defined]
        return digest(file_digest(Path(source)) if source else "", own)

    def __call__(self, images: list[UInt8[np.ndarray, "h w 3"]]) -> list[Prediction]:
        """Returns what the class predicts.

        Raises:
            InputError: The class cannot be imported, or returns something else than predictions.
        """
        predictions = self._instance()(images)
        is_list = isinstance(predictions, list | tuple) and len(predictions) == len(images)
        if not is_list or not all(isinstance(p, Prediction) for p in predictions):
            raise InputError(f"{self.target}: wanted {len(images)} recon.Prediction, got {type(predictions)}")
        return list(predictions)

    def _instance(self) -> Predictor:
        return _instance(self.target, tuple(sorted(self.options.items())))


def _imported(target: str) -> Callable[..., Any]:
    module_name, _, class_name = target.partition(":")
    if not class_name or not module_name or module_name.startswith("."):
        raise InputError(f"predictor {target!r}, wanted package.module:Class")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever a module of the user's raises
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"predictor {target}: cannot import ({reason})") from None
    if not callable(kind):
        raise InputError(f"predictor {target}: a {type(kind).__name__}, wanted a class")
    found: Callable[..., Any] = kind
    return found


@lru_cache(maxsize=2)
def _instance(target: str, options: tuple[tuple[str, Any], ...]) -> Predictor:
    kind = _imported(target)
    try:
        predictor: Predictor = kind(**dict(options))
    except TypeError as error:
        raise InputError(f"predictor {target}: {error}") from None
    if not callable(predictor):
        raise InputError(f"predictor {target}: a {type(predictor).__name__} cannot be called with photos")
    return predictor
