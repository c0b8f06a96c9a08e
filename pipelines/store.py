"""Artifacts on disk: one npz per key with a JSON header, no pickle, written aside and renamed.

A value is taken apart into JSON and arrays by its structure: dataclasses by their fields, mappings,
sequences, and objects that offer `arrays()` and `from_arrays()`. So whatever a stage returns can be kept
without code of its own.
"""

import dataclasses
import importlib
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from recon.errors import InputError
from recon.io.files import replaced

HEADER = "header.json"
OWN_PACKAGES = ("recon", "lotus", "pipelines")  # a header may name types of these only

log = logging.getLogger(__name__)


class DiskStore(MutableMapping[str, Any]):
    """Keeps artifacts in a folder, one file per key. Any number of processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()  # workers may stand in another folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot make this folder ({error.strerror})") from None

    def __getitem__(self, key: str) -> Any:
        """Returns the artifact of a key.

        Raises:
            KeyError: There is none, or its file is broken or of an older form; then it is removed, to be made
                again.
        """
        path = self._path(key)
        try:
            with zipfile.ZipFile(path) as archive:
                header = json.loads(archive.read(HEADER))
                if header["key"] != key:
                    raise KeyError(key)
                return _join(header["value"], _Arrays(archive))
        except FileNotFoundError:
            raise KeyError(key) from None
        except (
            zipfile.BadZipFile,
            ValueError,
            TypeError,
            EOFError,
            NotImplementedError,
            OSError,
            InputError,
        ) as error:
            log.info("%s: not readable (%s), made again", path.name, error)
            path.unlink(missing_ok=True)
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        arrays: dict[str, np.ndarray] = {}
        header = json.dumps({"key": key, "type": type(value).__name__, "value": _split(value, arrays)})
        with (
            replaced(self._path(key)) as path,
            zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
        ):
            archive.writestr(zipfile.ZipInfo(HEADER), header)
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._path(key).exists()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in sorted(self._folder.glob("[!.]*.npz")))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"


@dataclasses.dataclass(frozen=True)
class _Arrays:
    """The arrays of a file, each read when it is asked for."""

    archive: zipfile.ZipFile

    def __getitem__(self, name: str) -> np.ndarray:
        with self.archive.open(name) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


class _Later(Mapping[str, Any]):
    """What an object is made from, of which each part is read when it is asked for and not kept."""

    def __init__(self, value: Mapping[str, Any], arrays: _Arrays) -> None:
        self._parts, self._arrays = dict(value["dict"]), arrays

    def __getitem__(self, key: str) -> Any:
        return _join(self._parts[key], self._arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _split(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Returns `value` as JSON; its arrays go into `arrays` and leave their names behind."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        name = f"{len(arrays):04d}.npy"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_split(item, arrays) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[str(key), _split(item, arrays)] for key, item in value.items()]}
    kind = f"{type(value).__module__}:{type(value).__qualname__}"
    if hasattr(value, "arrays"):
        return {"object": kind, "arrays": _split(value.arrays(), arrays)}
    if dataclasses.is_dataclass(value):
        fields = {spec.name: _split(getattr(value, spec.name), arrays) for spec in dataclasses.fields(value)}
        return {"object": kind, "fields": fields}
    raise TypeError(f"cannot keep a {type(value).__name__}")


def _join(value: Any, arrays: _Arrays) -> Any:
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "path" in value:
        return Path(value["path"])
    if "tuple" in value:
        return tuple(_join(item, arrays) for item in value["tuple"])
    if "list" in value:
        return [_join(item, arrays) for item in value["list"]]
    if "dict" in value:
        return {key: _join(item, arrays) for key, item in value["dict"]}
    kind = _own_type(value["object"])
    if "arrays" in value:
        return kind.from_arrays(_Later(value["arrays"], arrays))
    return kind(**{name: _join(item, arrays) for name, item in value["fields"].items()})


def _own_type(name: str) -> Any:
    module, _, qualified = name.partition(":")
    if module.partition(".")[0] not in OWN_PACKAGES:
        raise ValueError(f"type {name} is not of this project")
    try:
        return getattr(importlib.import_module(module), qualified)
    except (ImportError, AttributeError):
        raise ValueError(f"type {name} is not there any more") from None
