"""Runs the stages of a pipeline over photos, reusing what the store already holds.

Order, reuse and failures are decided here and nowhere else: a view whose stage raises ViewError is dropped
with its reason, any other error stops the run, and whatever was made until then stays in the store for the
next one.
"""

import logging
import resource
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import networkx as nx

from pipelines.executors import Executor, one_blas_thread
from pipelines.graph import (
    PROGRESS,
    VIEW_SOURCES,
    Recipe,
    Stage,
    build_graph,
    evaluate,
    inputs_of,
    name_of,
    plan,
    read_common,
    read_inputs,
    stage_key,
    takes_progress,
)
from pipelines.sources import Given, LinkPhotos, Photos, view_recipes
from recon.errors import InputError, PipelineError, ViewError
from recon.scene import Scene

Progress = Callable[[str, int, int], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What making one artifact took."""

    artifact: str
    stage: str
    seconds: float
    computed: int
    """How many views (or 1 for the whole run) were made now."""

    reused: int
    """How many were there already."""

    peak_memory_bytes: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run made, and what it had to leave out."""

    scene: Scene
    dropped: Mapping[str, str]
    """Photos and views that are not in the result, with the reason."""

    steps: Sequence[Step]
    recipes: Mapping[str, Recipe | Mapping[str, Recipe]]
    store: MutableMapping[str, Any]

    def __contains__(self, artifact: str) -> bool:
        return artifact in self.recipes

    def get(self, artifact: str, view: str | None = None) -> Any:
        """Returns an artifact of the run, or of one of its views."""
        recipe = self.recipes[artifact]
        if isinstance(recipe, Recipe):
            return evaluate(recipe, self.store)
        assert view is not None
        return evaluate(recipe[view], self.store)

    def views(self, artifact: str) -> tuple[str, ...]:
        """Returns the names of the views that have an artifact."""
        recipe = self.recipes[artifact]
        return () if isinstance(recipe, Recipe) else tuple(recipe)


@dataclass
class _State:
    """A run under way."""

    photos: Photos
    store: MutableMapping[str, Any]
    executor: Executor
    progress: Progress
    max_dropped: float
    recipes: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    scene: Scene = Scene(())


def run(
    pipeline: Any,
    photos: Photos,
    store: MutableMapping[str, Any],
    *,
    until: str | None = None,
    executor: Executor = map,
    progress: Progress = lambda artifact, done, total: None,
) -> Outcome:
    """Makes the artifacts of a pipeline, or those up to `until`, in order.

    Args:
        pipeline: Its `stages` run; its `max_dropped` is the largest share of views that may fail.
        photos: What is reconstructed.
        store: Keeps the artifacts; a dict, or a DiskStore that survives the process.
        until: Last artifact wanted; None makes all.
        executor: Called like the builtin map for the stages that run once per view; not for networks, which
            take all of one machine anyway, unless it has an attribute `many_machines` that is true. Its
            method `rest`, if it has one, is called before a stage that fills the memory, its method `load`
            before any other stage that runs once.
        progress: Called with (artifact or step, done, total).

    Raises:
        PipelineError: The stages do not fit together, or too many views cannot be used.
        InputError: Something given is not what it has to be.
    """
    graph = build_graph(pipeline.stages)
    order = plan(graph, until)
    if not 0 <= pipeline.max_dropped <= 1:
        raise InputError(f"max_dropped: {pipeline.max_dropped}, wanted a share between 0 and 1")
    state = _State(photos, store, executor, progress, pipeline.max_dropped, dropped=dict(photos.dropped))
    state.recipes["photos"] = Recipe(photos.key, Given(photos), kept=False)
    with one_blas_thread():  # not only for speed: another number of threads rounds differently
        for artifact in order:
            stage = graph.nodes[artifact]["stage"]
            if stage.per_view:
                _make_per_view(stage, state)
            else:
                _make_once(stage, state)
            if artifact == "scene":
                _open_scene(graph, state)
    return Outcome(state.scene, state.dropped, state.steps, state.recipes, store)


def _open_scene(graph: "nx.DiGraph[str]", state: _State) -> None:
    kept = state.recipes["scene"]
    linked = Recipe(kept.key, LinkPhotos(state.photos.files), {"scene": kept}, kept=False)
    state.recipes["scene"] = linked
    state.scene = evaluate(linked, state.store)
    state.dropped = {**state.scene.dropped, **state.photos.dropped}
    state.recipes.update(view_recipes(state.photos, state.scene, set(VIEW_SOURCES) & set(graph.nodes)))


def _make_once(stage: Stage, state: _State) -> None:
    inputs = {source.name: state.recipes[source.name] for source in inputs_of(stage)}
    recipe = _recipe(stage, inputs, _content(stage, None), state)
    started, reused = time.perf_counter(), recipe.key in state.store
    tells = takes_progress(stage)
    if not reused:
        before = "rest" if getattr(stage, "fills_memory", False) else "load"
        getattr(state.executor, before, lambda: None)()
        if not tells:
            state.progress(stage.makes, 0, 1)
        evaluate(recipe, state.store)
    if reused or not tells:
        state.progress(stage.makes, 1, 1)
    # workers read it from the store; the console's progress cannot travel to them
    make: Callable[..., Any] = partial(stage, **{PROGRESS: _silent}) if tells else stage
    state.recipes[stage.makes] = replace(recipe, make=make)
    _record(stage, state, started, (0, 1) if reused else (1, 0))


def _silent(step: str, done: int, total: int) -> None:
    pass


def _make_per_view(stage: Stage, state: _State) -> None:
    started, names = time.perf_counter(), _live_views(stage, state)
    same = _passed_on(stage, state)
    if same is not None:  # what is made from it has the keys that it has had before
        state.recipes[stage.makes] = {name: state.recipes[same][name] for name in names}
        state.progress(stage.makes, len(names), len(names))
        _record(stage, state, started, (0, len(names)))
        return
    recipes = {}
    for name in names:
        inputs = {
            source.name: state.recipes[source.name]
            if source.by_view or isinstance(state.recipes[source.name], Recipe)
            else state.recipes[source.name][name]
            for source in inputs_of(stage)
        }
        recipes[name] = _recipe(stage, inputs, _content(stage, name), state)
    todo = {name: recipe for name, recipe in recipes.items() if _is_missing(recipe, state.store)}
    if recipes and next(iter(recipes.values())).kept:
        _run_tasks(stage, todo, len(recipes), state)
        _drop_failed(stage, recipes, state)
    state.recipes[stage.makes] = recipes
    _record(stage, state, started, (len(todo), len(recipes) - len(todo)))


def _passed_on(stage: Stage, state: _State) -> str | None:
    """Returns the artifact that a stage passes on as it is, None if it makes one."""
    if not hasattr(stage, "passes_on"):
        return None
    recipes = {source.name: state.recipes[source.name] for source in inputs_of(stage)}
    once = {name: recipe for name, recipe in recipes.items() if isinstance(recipe, Recipe)}
    same: str | None = stage.passes_on(
        **{name: evaluate(recipe, state.store) for name, recipe in once.items()}
    )
    return same


def _live_views(stage: Stage, state: _State) -> list[str]:
    """Views for which everything that the stage reads per view is there."""
    names = [view.name for view in state.scene.views if view.name not in state.dropped]
    per_view = [state.recipes[source.name] for source in inputs_of(stage) if not source.by_view]
    return [n for n in names if all(isinstance(r, Recipe) or n in r for r in per_view)]


def _recipe(stage: Stage, inputs: dict[str, Any], content: str, state: _State) -> Recipe:
    keys = {
        name: source.key if isinstance(source, Recipe) else {view: r.key for view, r in source.items()}
        for name, source in inputs.items()
    }
    make: Callable[..., Any] = stage
    if takes_progress(stage):
        make = partial(stage, **{PROGRESS: state.progress})
    kept = getattr(stage, "kept", True)
    return Recipe(stage_key(stage, keys, content), make, inputs, kept)


def _content(stage: Stage, view: str | None) -> str:
    """Digest of the files outside the graph that a stage reads, where it reads any."""
    return stage.content(view) if hasattr(stage, "content") else ""


def _is_missing(recipe: Recipe, store: MutableMapping[str, Any]) -> bool:
    return not recipe.kept or (recipe.key not in store and store.get(recipe.failure_key) is None)


def _run_tasks(stage: Stage, todo: Mapping[str, Recipe], total: int, state: _State) -> None:
    size = getattr(stage, "batch_size", 1)
    recipes = list(todo.values())
    batches = [recipes[start : start + size] for start in range(0, len(recipes), size)]
    done = total - len(recipes)
    state.progress(stage.makes, done, total)
    here = getattr(stage, "whole_machine", False) and not getattr(state.executor, "many_machines", False)
    for batch_length in (map if here else state.executor)(partial(_run_batch, store=state.store), batches):
        done += batch_length
        state.progress(stage.makes, done, total)


def _run_batch(batch: Sequence[Recipe], store: MutableMapping[str, Any]) -> int:
    """Makes a few views of one stage. Results and reasons go into the store; only their number comes back."""
    stage = batch[0].make
    if len(batch) > 1 and hasattr(stage, "many"):
        inputs, recipes = [], []
        common = read_common(batch, store)
        for recipe in batch:
            try:
                inputs.append(read_inputs(recipe, store, common))
                recipes.append(recipe)
            except ViewError as error:
                store[recipe.failure_key] = str(error)
        if recipes:
            for recipe, value in zip(recipes, stage.many(inputs), strict=True):
                store[recipe.key] = value
        return len(batch)
    for recipe in batch:
        try:
            evaluate(recipe, store)
        except ViewError as error:
            log.info("dropped: %s", error)
    return len(batch)


def _drop_failed(stage: Stage, recipes: dict[str, Recipe], state: _State) -> None:
    for name, recipe in list(recipes.items()):
        if recipe.failure_key in state.store:
            state.dropped[name] = f"{stage.makes}: {state.store[recipe.failure_key]}"
            del recipes[name]
    views = len(state.scene.views)
    failed = [view.name for view in state.scene.views if view.name in state.dropped]
    if failed and views == 1:
        raise PipelineError(f"{failed[0]}: {state.dropped[failed[0]]}")
    if failed and (len(failed) > state.max_dropped * views or len(failed) == views):
        raise PipelineError(
            f"{len(failed)} of {views} views cannot be used, at most {state.max_dropped:.0%} may fail; "
            f"the first: {failed[0]}: {state.dropped[failed[0]]}"
        )


def _record(stage: Stage, state: _State, started: float, counts: tuple[int, int]) -> None:
    usage = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    state.steps.append(
        Step(
            artifact=stage.makes,
            stage=name_of(stage),
            seconds=time.perf_counter() - started,
            computed=counts[0],
            reused=counts[1],
            peak_memory_bytes=max(usage) * 1024,
        )
    )
