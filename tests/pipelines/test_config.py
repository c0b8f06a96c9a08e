"""Options from files: what is given replaces, what is wrong is named."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pipelines.config import options_of, read_options, with_options
from recon import InputError


@dataclass(frozen=True)
class Points:
    size: int = 640


@dataclass(frozen=True)
class Files:
    folder: Path
    strict: bool = True


@dataclass(frozen=True)
class Fuse:
    voxel_size: float | None = None
    mode: Literal["fast", "exact"] = "fast"


@dataclass(frozen=True)
class Pipeline:
    predict: Points | Files = field(default_factory=Points)
    fuse: Fuse = field(default_factory=Fuse)
    levels: tuple[int, ...] = (1, 2)
    size: tuple[int, float] = (4, 0.5)


def changed(options: dict[str, object]) -> Pipeline:
    return with_options(Pipeline(), options, "run.toml")


def test_nested_option_replaces_only_itself() -> None:
    assert changed({"fuse": {"voxel_size": 2}}) == Pipeline(fuse=Fuse(voxel_size=2.0))


def test_type_chooses_among_classes() -> None:
    made = changed({"predict": {"type": "Files", "folder": "maps"}})
    assert made.predict == Files(Path("maps"))


def test_options_given_back_make_the_same_pipeline() -> None:
    pipeline = Pipeline(Files(Path("maps"), strict=False), Fuse(0.5, "exact"), (3,))
    assert with_options(Pipeline(), json.loads(json.dumps(options_of(pipeline))), "run.json") == pipeline


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"fuse": {"voxel_sise": 1}},
            "unknown option 'voxel_sise' of Fuse, did you mean 'voxel_size'",
        ),
        ({"zzz": 1}, "unknown option 'zzz' of Pipeline; there are fuse, levels, predict, size"),
        ({"levels": [1, "x"]}, "run.toml: Pipeline.levels[1]: 'x', wanted int"),
        ({"size": [1]}, "run.toml: Pipeline.size: 1 values, wanted 2"),
        ({"fuse": {"voxel_size": "big"}}, "Fuse.voxel_size: 'big', wanted float or NoneType"),
        ({"fuse": {"mode": "slow"}}, "wanted one of fast, exact"),
        ({"predict": {"type": "File"}}, "type 'File', wanted Points or Files"),
        ({"predict": {"type": "Files"}}, "Files needs folder"),
        ({"predict": {"size": True}}, "Points.size: True, wanted int"),
    ],
)
def test_wrong_option_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        changed(options)
    assert message in str(caught.value)


def test_toml_and_run_json_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[fuse]\nvoxel_size = 0.5\n")
    (tmp_path / "run.json").write_text('{"command": "multi", "pipeline": {"fuse": {"voxel_size": 0.5}}}')
    wanted = {"fuse": {"voxel_size": 0.5}}
    assert read_options(tmp_path / "a.toml") == wanted
    assert read_options(tmp_path / "run.json") == wanted


def test_a_byte_order_mark_is_no_option(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[fuse]\nvoxel_size = 0.5\n", encoding="utf-8-sig")
    assert read_options(tmp_path / "a.toml") == {"fuse": {"voxel_size": 0.5}}


def test_items_are_of_their_types() -> None:
    size = changed({"size": [3, 1]}).size
    assert [type(item) for item in size] == [int, float]


@pytest.mark.parametrize("text", ["[fuse", "= 3"])
def test_broken_file_is_named_with_the_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match=r"a\.toml: .*\(at "):
        read_options(tmp_path / "a.toml")
