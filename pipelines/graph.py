"""Stages as a graph: what each reads and makes, in which order, and the key under which it is reused.

A stage is a frozen dataclass that can be called. Its fields are its options, the keyword names of its call
are the artifacts it reads, `makes` names the artifact it writes. A parameter annotated `ByView[T]` receives
a lazy mapping over all views. A `Recipe` is a stage bound to the recipes of its inputs: enough to make one
artifact anywhere.
"""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, get_origin, runtime_checkable

import networkx as nx
import numpy as np

from recon.errors import PipelineError, ViewError

T = TypeVar("T")

SOURCES = ("photos",)
"""What a run is given; everything else is made by a stage or read off the scene."""

VIEW_SOURCES = ("view", "photo", "image", "mask", "points")
"""What a scene gives for each of its views."""

PROGRESS = "progress"
"""Parameter of a long stage that runs once; no artifact, but called with (step, done, total)."""


@runtime_checkable
class Stage(Protocol):
    """One step of a pipeline. See `pipelines/stages/` for all of them."""

    makes: ClassVar[str]
    """Name of the artifact that the call returns."""

    per_view: ClassVar[bool]
    """True: called once per view. False: called once per run."""

    version: ClassVar[int]
    """Raised whenever the result changes, so that old results are not reused."""

    __call__: Callable[..., Any]
    """A stage may have a method `passes_on`, too: called with what it reads that is made once per run, it
    returns the name of the artifact that it passes on as it is for all views, or None."""


class ByView(Mapping[str, T], Generic[T]):
    """An artifact of all views, each made or loaded when it is asked for."""

    def __init__(self, recipes: "Mapping[str, Recipe]", store: MutableMapping[str, Any]) -> None:
        self._recipes = recipes
        self._store = store

    def __getitem__(self, name: str) -> T:
        """Returns the artifact of one view."""
        return evaluate(self._recipes[name], self._store)

    def __contains__(self, name: object) -> bool:
        return name in self._recipes  # as a mapping asks, the artifact would be read for it

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)


@dataclass(frozen=True, eq=False)
class Recipe:
    """How one artifact is made: a stage and the recipes of what it reads."""

    key: str
    """Where the result is kept; equal keys mean equal results."""

    make: Callable[..., Any]
    inputs: "Mapping[str, Recipe | Mapping[str, Recipe]]" = field(default_factory=dict)
    kept: bool = True
    """False for what is cheaper to make again than to keep."""

    @property
    def failure_key(self) -> str:
        """Where the reason is kept if the view cannot be used."""
        return f"{self.key}-failed"


def evaluate(recipe: Recipe, store: MutableMapping[str, Any]) -> Any:
    """Returns the artifact of a recipe: from the store, or made now and kept there.

    Raises:
        ViewError: The view cannot be used; the store remembers why.
    """
    if not recipe.kept:
        return recipe.make(**read_inputs(recipe, store))
    reason = store.get(recipe.failure_key)
    if reason is not None:
        raise ViewError(reason)
    with suppress(KeyError):  # absent, or a broken file: made again
        return store[recipe.key]
    try:
        value = recipe.make(**read_inputs(recipe, store))
    except ViewError as error:
        store[recipe.failure_key] = str(error)
        raise
    store[recipe.key] = value
    return value


def read_inputs(
    recipe: Recipe, store: MutableMapping[str, Any], known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the arguments of a recipe's stage; those over all views stay lazy.

    Args:
        recipe: Of an artifact.
        store: Of the run.
        known: Arguments that are there already, by name.
    """
    known = {} if known is None else known
    return {
        name: known[name]
        if name in known
        else (evaluate(source, store) if isinstance(source, Recipe) else ByView(source, store))
        for name, source in recipe.inputs.items()
    }


def read_common(recipes: Sequence[Recipe], store: MutableMapping[str, Any]) -> dict[str, Any]:
    """Returns those arguments that are the same for all recipes of a stage, each read once."""
    common = {}
    for name, source in recipes[0].inputs.items():
        if isinstance(source, Recipe) and len({_key_of(recipe, name) for recipe in recipes}) == 1:
            common[name] = evaluate(source, store)
    return common


def _key_of(recipe: Recipe, name: str) -> str:
    source = recipe.inputs[name]
    assert isinstance(source, Recipe)  # as it is of the other recipes of the stage
    return source.key


@dataclass(frozen=True)
class Input:
    """One artifact that a stage reads."""

    name: str
    by_view: bool


@dataclass(frozen=True)
class Renamed:
    """A stage among artifacts of other names, so that it can run twice in a pipeline.

    Its results are kept under the keys of the stage itself: the same work is never done anew.
    """

    stage: Stage
    names: tuple[tuple[str, str], ...]
    """Pairs: what the stage calls an artifact, and what it is called in this pipeline."""

    @property
    def makes(self) -> str:
        """As in `Stage`."""
        return self.called(self.stage.makes)

    @property
    def per_view(self) -> bool:
        """As in `Stage`."""
        return self.stage.per_view

    @property
    def version(self) -> int:
        """As in `Stage`."""
        return self.stage.version

    @property
    def whole_machine(self) -> bool:
        """Whether the stage takes all cores itself."""
        return getattr(self.stage, "whole_machine", False)

    @property
    def fills_memory(self) -> bool:
        """Whether the stage needs the memory that idle workers hold."""
        return getattr(self.stage, "fills_memory", False)

    @property
    def batch_size(self) -> int:
        """How many views the stage takes at once."""
        return getattr(self.stage, "batch_size", 1)

    def many(self, inputs: list[dict[str, Any]]) -> list[Any]:
        """Calls the stage for a few views at once."""
        return cast(Any, self.stage).many([self.as_the_stage_calls(one) for one in inputs])

    def called(self, name: str) -> str:
        """Returns what an artifact of the stage is called in this pipeline."""
        return dict(self.names).get(name, name)

    def __call__(self, **inputs: Any) -> Any:
        """Calls the stage."""
        return self.stage(**self.as_the_stage_calls(inputs))

    def as_the_stage_calls(self, inputs: Mapping[str, T]) -> dict[str, T]:
        """Returns what is known by the names of this pipeline by those of the stage."""
        own = {here: name for name, here in self.names}
        return {own.get(name, name): value for name, value in inputs.items()}


def renamed(stages: Sequence[Stage], names: Mapping[str, str]) -> tuple[Stage, ...]:
    """Returns stages among artifacts of other names.

    Args:
        stages: As they are.
        names: What their artifacts are called instead.
    """
    return tuple(cast(Stage, Renamed(stage, tuple(names.items()))) for stage in stages)


def inputs_of(stage: Stage) -> tuple[Input, ...]:
    """Returns what a stage reads, from the signature of its call; `progress` is no artifact."""
    if isinstance(stage, Renamed):
        return tuple(replace(one, name=stage.called(one.name)) for one in inputs_of(stage.stage))
    parameters = list(inspect.signature(type(stage).__call__).parameters.values())[1:]
    return tuple(Input(p.name, get_origin(p.annotation) is ByView) for p in parameters if p.name != PROGRESS)


def takes_progress(stage: Stage) -> bool:
    """Returns whether a stage reports its progress."""
    if isinstance(stage, Renamed):
        return takes_progress(stage.stage)
    return PROGRESS in inspect.signature(type(stage).__call__).parameters


def name_of(stage: Stage) -> str:
    """Returns the name of a stage's class."""
    return name_of(stage.stage) if isinstance(stage, Renamed) else type(stage).__name__


def stages_among(pipeline: Any) -> tuple[Stage, ...]:
    """Returns the stages among a pipeline's fields, in their order."""
    values = (getattr(pipeline, spec.name) for spec in dataclasses.fields(pipeline))
    return tuple(value for value in values if hasattr(value, "makes"))


def build_graph(stages: Sequence[Stage]) -> "nx.DiGraph[str]":
    """Returns the graph of artifacts; an edge leads from what a stage reads to what it makes.

    Nodes carry the attribute `stage`, which sources lack.

    Raises:
        PipelineError: An artifact is made twice or read but not made, or the stages need each other in a
        circle.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    made_by = dict.fromkeys(SOURCES, "the run's input") | dict.fromkeys(VIEW_SOURCES, "the scene")
    for stage in stages:
        if stage.makes in made_by:
            raise PipelineError(
                f"{name_of(stage)} makes {stage.makes!r}, which {made_by[stage.makes]} makes already"
            )
        made_by[stage.makes] = name_of(stage)
        graph.add_node(stage.makes, stage=stage)
    for stage in stages:
        for source in inputs_of(stage):
            if source.name not in made_by:
                raise PipelineError(f"{name_of(stage)} reads {source.name!r}, which no stage makes")
            graph.add_edge(source.name, stage.makes)
            if source.name in VIEW_SOURCES:
                graph.add_edge("scene", source.name)
    if not nx.is_directed_acyclic_graph(graph):
        circle = [edge[0] for edge in nx.find_cycle(graph)]
        raise PipelineError(f"stages need each other in a circle: {' -> '.join([*circle, circle[0]])}")
    return graph


def plan(graph: "nx.DiGraph[str]", until: str | None = None) -> tuple[str, ...]:
    """Returns the artifacts that stages have to make, in order; only those that `until` needs if it is given.

    Raises:
        PipelineError: No stage makes `until`.
    """
    made = [name for name in nx.topological_sort(graph) if "stage" in graph.nodes[name]]
    if until is None:
        return tuple(made)
    if until not in made:
        raise PipelineError(f"no stage makes {until!r}; there are {', '.join(made)}")
    needed = nx.ancestors(graph, until) | {until}
    return tuple(name for name in made if name in needed)


def stage_key(stage: Stage, inputs: Mapping[str, str | Mapping[str, str]], content: str = "") -> str:
    """Returns the key of a stage's result: its name, version and options, and the keys of what it reads.

    Args:
        stage: Its fields are hashed as options.
        inputs: Keys by parameter name; by view for those over all views.
        content: Digest of whatever else the result depends on, such as a file that an option names.
    """
    if isinstance(stage, Renamed):
        return stage_key(stage.stage, stage.as_the_stage_calls(inputs), content)
    identity = {
        "stage": f"{type(stage).__module__}.{type(stage).__qualname__}",
        "version": stage.version,
        "options": _canonical(stage),
        "inputs": {name: key if isinstance(key, str) else dict(key) for name, key in inputs.items()},
        "content": content,
    }
    return f"{stage.makes}-{digest(json.dumps(identity, sort_keys=True))}"


def digest(*parts: Any) -> str:
    """Returns a short stable digest of arrays, bytes, strings, numbers and dataclasses of them."""
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        _feed(state, part)
    return state.hexdigest()


def _feed(state: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        state.update(f"array {part.dtype.str} {part.shape} ".encode())
        state.update(np.ascontiguousarray(part).data)
    elif isinstance(part, bytes):
        state.update(f"bytes {len(part)} ".encode() + part)
    elif dataclasses.is_dataclass(part):
        state.update(f"{type(part).__qualname__} ".encode())
        for spec in dataclasses.fields(part):
            _feed(state, getattr(part, spec.name))
    else:
        state.update(f"{type(part).__name__} {part!r} ".encode())


def _canonical(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        options = {spec.name: _canonical(getattr(value, spec.name)) for spec in dataclasses.fields(value)}
        return {"class": type(value).__qualname__, **options}
    if isinstance(value, Path):
        return None  # where a file lies is no option; what is in it is the stage's `content`
    if isinstance(value, tuple | list):
        return [_canonical(item) for item in value]
    return value
