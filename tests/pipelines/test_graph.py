"""Stages as a graph: checks before work, order, keys."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipelines.graph import (
    ByView,
    Recipe,
    build_graph,
    digest,
    evaluate,
    inputs_of,
    name_of,
    plan,
    read_common,
    renamed,
    stage_key,
)
from recon.errors import PipelineError, ViewError


@dataclass(frozen=True)
class MakeScene:
    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, photos: Any) -> Any:
        return photos


@dataclass(frozen=True)
class Blur:
    radius: float = 1.0
    folder: Path = Path("a")

    makes: ClassVar[str] = "blurred"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, image: Any) -> Any:
        return image


@dataclass(frozen=True)
class Join:
    makes: ClassVar[str] = "joined"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, blurred: ByView[Any], scene: Any, progress: Any) -> Any:
        return blurred


@dataclass(frozen=True)
class Wants:
    makes: ClassVar[str] = "wanted"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, nothing: Any) -> Any:
        return nothing


@dataclass(frozen=True)
class Loop:
    makes: ClassVar[str] = "nothing"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, wanted: Any) -> Any:
        return wanted


def test_inputs_are_the_calls_parameters_without_progress() -> None:
    assert [(i.name, i.by_view) for i in inputs_of(Join())] == [("blurred", True), ("scene", False)]


def test_asking_whether_a_view_has_an_artifact_makes_none() -> None:
    artifacts: ByView[Any] = ByView({"a": Recipe("key", Wants())}, store := {})
    assert "a" in artifacts
    assert "b" not in artifacts
    assert store == {}


def test_plan_orders_stages_by_need_and_not_by_position() -> None:
    assert plan(build_graph([Join(), Blur(), MakeScene()])) == ("scene", "blurred", "joined")


def test_plan_until_leaves_out_what_is_not_needed() -> None:
    assert plan(build_graph([Join(), Blur(), MakeScene()]), "blurred") == ("scene", "blurred")


def test_unknown_target_names_the_artifacts() -> None:
    with pytest.raises(PipelineError, match="no stage makes 'mesh'; there are scene, blurred"):
        plan(build_graph([Blur(), MakeScene()]), "mesh")


def test_missing_input_names_stage_and_artifact() -> None:
    with pytest.raises(PipelineError, match="Wants reads 'nothing', which no stage makes"):
        build_graph([MakeScene(), Wants()])


def test_artifact_made_twice_names_both_makers() -> None:
    with pytest.raises(PipelineError, match="Blur makes 'blurred', which Blur makes already"):
        build_graph([MakeScene(), Blur(), Blur(radius=2)])


def test_circle_is_named() -> None:
    with pytest.raises(PipelineError, match="circle"):
        build_graph([MakeScene(), Wants(), Loop()])


def test_key_depends_on_options_inputs_and_content() -> None:
    keys = {
        stage_key(Blur(), {"image": "a"}),
        stage_key(Blur(radius=2.0), {"image": "a"}),
        stage_key(Blur(), {"image": "b"}),
        stage_key(Blur(), {"image": "a"}, content="c"),
    }
    assert len(keys) == 4


def test_renamed_stages_read_and_make_artifacts_of_other_names() -> None:
    (first,) = renamed([Blur()], {"blurred": "once", "image": "photo"})
    (second,) = renamed([Blur()], {"image": "once"})
    assert (first.makes, [i.name for i in inputs_of(first)], name_of(first)) == ("once", ["photo"], "Blur")
    assert plan(build_graph([second, replace_image(first), MakeScene()]))[1:] == ("once", "blurred")
    assert first(photo=3) == 3


def replace_image(stage: Any) -> Any:
    """The same stage reading what a scene gives."""
    return renamed([stage.stage], {"blurred": "once"})[0]


def test_results_of_renamed_stages_are_those_of_the_stage_itself() -> None:
    (other,) = renamed([Blur()], {"blurred": "once", "image": "photo"})
    assert stage_key(other, {"photo": "a"}) == stage_key(Blur(), {"image": "a"})


def test_what_all_of_a_batch_read_is_read_once() -> None:
    reads = []

    def read() -> int:
        reads.append(1)
        return 7

    common, own = Recipe("common", read), [Recipe(name, lambda: 1) for name in "ab"]
    recipes = [Recipe(f"made-{one.key}", max, {"mesh": common, "view": one}) for one in own]
    assert read_common(recipes, {}) == {"mesh": 7}
    assert len(reads) == 1


def test_key_does_not_depend_on_where_a_file_lies() -> None:
    assert stage_key(Blur(), {"image": "a"}) == stage_key(replace(Blur(), folder=Path("b")), {"image": "a"})


def test_digest_tells_arrays_of_other_shape_and_type_apart() -> None:
    zeros = np.zeros(4, np.float32)
    assert len({digest(zeros), digest(zeros.reshape(2, 2)), digest(zeros.astype(np.int32))}) == 3


def test_failure_is_remembered_without_making_it_again() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise ViewError("too dark")

    store: dict[str, Any] = {}
    for _ in range(2):
        with pytest.raises(ViewError, match="too dark"):
            evaluate(Recipe("key", refuse), store)
    assert len(calls) == 1


def test_value_that_cannot_be_read_back_is_made_again() -> None:
    class Broken(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise KeyError(key)

    assert evaluate(Recipe("key", lambda: 3), Broken(key=0)) == 3
