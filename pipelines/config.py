"""Options of a pipeline from and to plain dictionaries: TOML files in, `run.json` out and in again."""

import dataclasses
import difflib
import json
import tomllib
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from recon.errors import InputError

P = TypeVar("P")
TYPE = "type"  # names the class where a field can hold one of several
RUN_SECTION = "pipeline"  # where run.json keeps the options
INPUT_SECTION = "inputs"  # and what was given beside them


def options_of(value: Any) -> Any:
    """Returns the options of a pipeline or stage as JSON values; every dataclass names its `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {spec.name: options_of(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
        return {TYPE: type(value).__name__, **fields}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [options_of(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): options_of(item) for key, item in value.items()}
    return value


def with_options(default: P, options: Mapping[str, Any], where: str) -> P:
    """Returns a pipeline or stage with some of its options replaced.

    Args:
        default: Holds what `options` leaves out.
        options: By field name; tables for fields that hold stages.
        where: The file, for messages.

    Raises:
        InputError: An option is unknown (the nearest is named) or has the wrong type.
    """
    hints = get_type_hints(type(default))
    fields = {spec.name for spec in dataclasses.fields(default)}  # type: ignore[arg-type]
    changes = {}
    for name, value in options.items():
        if name == TYPE:
            continue
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f", did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(fields))}"
            raise InputError(f"{where}: unknown option {name!r} of {type(default).__name__}{hint}")
        path = f"{where}: {type(default).__name__}.{name}"
        changes[name] = _converted(value, hints[name], getattr(default, name), path)
    return replace(default, **changes)  # type: ignore[type-var]


def read_options(path: Path) -> dict[str, Any]:
    """Returns the options of a TOML file, of a JSON file, or of the `run.json` of an earlier run.

    Raises:
        InputError: No such file, or not readable as what its ending says.
    """
    table = _read_table(path)
    chosen = table.get(RUN_SECTION, table)
    if not isinstance(chosen, dict):
        raise InputError(f"{path}: {RUN_SECTION} holds {chosen!r}, wanted a table of options")
    return chosen


def read_inputs(path: Path) -> dict[str, Any]:
    """Returns what an earlier run was given beside its options, by its `run.json`; nothing from other files.

    Raises:
        InputError: As `read_options`.
    """
    table = _read_table(path)
    inputs = table.get(INPUT_SECTION) if RUN_SECTION in table else None
    return inputs if isinstance(inputs, dict) else {}


def _read_table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read ({getattr(error, 'strerror', None) or error})") from None
    try:
        options = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: no {'JSON' if path.suffix == '.json' else 'TOML'} ({error})") from None
    if not isinstance(options, dict):
        raise InputError(f"{path}: holds a {type(options).__name__}, wanted a table of options")
    return options


def _converted(value: Any, hint: Any, default: Any, where: str) -> Any:
    choices = _choices(hint)
    classes = [choice for choice in choices if isinstance(choice, type) and dataclasses.is_dataclass(choice)]
    if value is None and type(None) in choices:
        return None
    if classes and isinstance(value, Mapping):
        return _converted_class(value, classes, default, where)
    for choice in choices:
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if choice is Path and isinstance(value, str):
            return Path(value)
        origin = get_origin(choice) or choice
        if origin is tuple and isinstance(value, list):
            return _converted_items(value, get_args(choice), where)
        if str(origin).startswith("typing.Literal"):
            if value in get_args(choice):
                return value
            raise InputError(f"{where}: {value!r}, wanted one of {', '.join(map(str, get_args(choice)))}")
        if (
            isinstance(origin, type)
            and isinstance(value, origin)
            and isinstance(value, bool) == (origin is bool)
        ):
            return value
    wanted = " or ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
    raise InputError(f"{where}: {value!r}, wanted {wanted}")


def _converted_items(values: list[Any], hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """The items of a tuple[X, ...] or tuple[X, Y], each of its type."""
    if hints[-1] is Ellipsis:
        hints = hints[:1] * len(values)
    if len(hints) != len(values):
        raise InputError(f"{where}: {len(values)} values, wanted {len(hints)}")
    items = enumerate(zip(values, hints, strict=True))
    return tuple(_converted(value, hint, None, f"{where}[{number}]") for number, (value, hint) in items)


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _converted_class(value: Mapping[str, Any], classes: list[type], default: Any, where: str) -> Any:
    name = value.get(TYPE, type(default).__name__)
    for choice in classes:
        if choice.__name__ == name:
            start = default if isinstance(default, choice) else _bare(choice, value, where)
            return with_options(start, value, where)
    raise InputError(f"{where}: type {name!r}, wanted {' or '.join(choice.__name__ for choice in classes)}")


def _bare(choice: Any, value: Mapping[str, Any], where: str) -> Any:
    """An instance with only those fields set that have no default."""
    hints = get_type_hints(choice)
    required = [
        spec.name
        for spec in dataclasses.fields(choice)
        if spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in value]
    if missing:
        raise InputError(f"{where}: {choice.__name__} needs {', '.join(missing)}")
    given = {name: _converted(value[name], hints[name], None, f"{where}.{name}") for name in required}
    return choice(**given)
