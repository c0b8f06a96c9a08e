"""Networks from their files: the config's facts checked, every tensor compared before it is loaded."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from recon.errors import InputError

FLOATS = ("F16", "BF16", "F32", "F64")

_DEPRECATED_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_config(file: Path, facts: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Returns a component's config after checking what makes it Lotus's."""
    try:
        config = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not JSON: {first_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: a JSON {type(config).__name__}, wanted an object")
    for key, allowed in facts.items():
        if config.get(key) not in allowed:
            wanted = " or ".join(repr(value) for value in allowed)
            raise InputError(f"{file}: {key} is {config.get(key)!r}, in a Lotus checkpoint it is {wanted}")
    return config


def read_module(file: Path, build: Callable[[], Any]) -> Any:
    """Returns the module that `build` makes, with the weights of a file; every tensor must fit."""
    import torch
    from safetensors.torch import load_file

    config = file.parent / "config.json"
    try:
        with torch.device("meta"):
            module = build()
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{config}: no network can be built from it: {first_line(error)}") from error
    shapes = {_canonical(name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_weights(file, shapes)
    weights = {_canonical(name): tensor for name, tensor in load_file(file).items()}
    module.load_state_dict({name: weights[_canonical(name)] for name in module.state_dict()}, assign=True)
    return module.eval().requires_grad_(False)


def _canonical(name: str) -> str:
    """Returns a tensor's name as today's libraries write it: older ones named attention otherwise."""
    parts = name.removeprefix("text_model.").split(".")
    if "attentions" in parts:
        parts = [_DEPRECATED_NAMES.get(part, part) for part in parts]
    return ".".join(parts)


def _check_weights(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError for the first tensor that is truncated, missing, unknown or of another shape."""
    header, size = _read_header(file)
    for name, entry in header.items():
        if entry["data_offsets"][1] > size:
            raise InputError(f"{file}: truncated, tensor {name} ends after the file's end")
        if entry["dtype"] not in FLOATS:
            raise InputError(f"{file}: tensor {name} is {entry['dtype']}, wanted one of {', '.join(FLOATS)}")
    found = {_canonical(name): tuple(entry["shape"]) for name, entry in header.items()}
    missing = [name for name in shapes if name not in found]
    if missing:
        raise InputError(f"{file}: tensor {missing[0]} is missing ({len(missing)} of {len(shapes)} are)")
    unknown = [name for name in found if name not in shapes]
    if unknown:
        raise InputError(f"{file}: tensor {unknown[0]} has no place in the network of config.json")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise InputError(f"{file}: tensor {name} has shape {found[name]}, config.json says {shape}")


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Returns the tensor table of a safetensors file, and how many bytes of tensors really follow it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise InputError(f"{file}: not a safetensors file, or truncated in its header ({size} bytes)")
        try:
            table = json.loads(stream.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not a safetensors file: {first_line(error)}") from error
    entries = {
        name: entry
        for name, entry in table.items()
        if name != "__metadata__" and not name.endswith("position_ids")  # a constant that old CLIP files hold
    }
    return entries, size - 8 - length


def first_line(error: Exception) -> str:
    """Returns what an error says first, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
