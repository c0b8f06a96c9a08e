"""Reuse, failures and executors, on stages that only count."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipelines.executors import Workers, local_executor, worker_count
from pipelines.graph import ByView, renamed
from pipelines.runner import Outcome, run
from pipelines.sources import Photo, Photos
from pipelines.store import DiskStore
from recon import Camera, PipelineError, Scene, View, ViewError

calls: list[str] = []


@dataclass(frozen=True)
class Cameras:
    makes: ClassVar[str] = "scene"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, photos: Photos) -> Scene:
        calls.append("scene")
        camera = Camera.from_fov(4, 3, 60.0)
        return Scene(tuple(View(name, camera, np.eye(4)) for name in photos.files))


@dataclass(frozen=True)
class Measure:
    refused: tuple[str, ...] = ()

    makes: ClassVar[str] = "measured"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def __call__(self, *, photo: Photo) -> int:
        calls.append(f"measured {photo.name}")
        if photo.name in self.refused:
            raise ViewError("too dark")
        return len(photo.path.read_bytes())


@dataclass(frozen=True)
class Total:
    factor: int = 1

    makes: ClassVar[str] = "total"
    per_view: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def __call__(self, *, measured: ByView[int]) -> int:
        calls.append("total")
        return self.factor * sum(measured.values())


@dataclass(frozen=True)
class Pipeline:
    cameras: Cameras = field(default_factory=Cameras)
    measure: Measure = field(default_factory=Measure)
    total: Total = field(default_factory=Total)
    max_dropped: float = 0.5

    @property
    def stages(self) -> tuple[Any, ...]:
        return (self.cameras, self.measure, self.total)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(10**number))
    calls.clear()
    return tmp_path


def photos_of(folder: Path) -> Photos:
    files = {path.name: path for path in sorted(folder.glob("*.jpg"))}
    return Photos(files, {name: path.read_bytes().hex() for name, path in files.items()})


def run_on(folder: Path, pipeline: Pipeline, store: Any = None, **options: Any) -> Outcome:
    return run(pipeline, photos_of(folder), {} if store is None else store, **options)


def test_every_stage_is_called_once_per_view_or_run(folder: Path) -> None:
    assert run_on(folder, Pipeline()).get("total") == 1111
    measured = [f"measured {number}.jpg" for number in range(4)]
    assert sorted(calls) == [*measured, "scene", "total"]


def test_second_run_makes_nothing(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    calls.clear()
    assert run_on(folder, Pipeline(), store).get("total") == 1111
    assert calls == []


@dataclass(frozen=True)
class Again:
    """Measures once more, unless there is nothing to do."""

    is_idle: bool

    makes: ClassVar[str] = "measured"
    per_view: ClassVar[bool] = True
    version: ClassVar[int] = 1

    def passes_on(self, *, scene: Scene) -> str | None:
        return "first_measured" if self.is_idle and scene.views else None

    def __call__(self, *, scene: Scene, first_measured: int) -> int:
        calls.append("again")
        return first_measured + len(scene.views)


@dataclass(frozen=True)
class Twice(Pipeline):
    is_idle: bool = False

    @property
    def stages(self) -> tuple[Any, ...]:
        first = renamed((self.measure, self.total), {"measured": "first_measured", "total": "first_total"})
        return (self.cameras, *first, Again(self.is_idle), self.total)


def test_what_a_stage_passes_on_makes_nothing_anew(folder: Path) -> None:
    assert run_on(folder, Twice()).get("total") == 1111 + 4 * 4
    assert calls.count("again") == 4
    calls.clear()
    outcome = run_on(folder, Twice(is_idle=True))
    assert outcome.get("total") == outcome.get("first_total") == 1111
    assert calls.count("total") == 1
    assert "again" not in calls


def test_changed_option_makes_its_stage_and_later_ones_only(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    calls.clear()
    assert run_on(folder, Pipeline(total=Total(factor=2)), store).get("total") == 2222
    assert calls == ["total"]


def test_one_more_photo_is_measured_alone(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    calls.clear()
    (folder / "4.jpg").write_bytes(bytes(10**4))
    assert run_on(folder, Pipeline(), store).get("total") == 11111
    assert calls == ["scene", "measured 4.jpg", "total"]


def test_changed_photo_is_measured_again(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    calls.clear()
    (folder / "3.jpg").write_bytes(bytes(2))
    assert run_on(folder, Pipeline(), store).get("total") == 113
    assert "measured 3.jpg" in calls
    assert "measured 0.jpg" not in calls


def test_lost_result_is_made_again(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    calls.clear()
    for key in [key for key in store if key.startswith("total") or key == next(iter(store))]:
        del store[key]
    assert run_on(folder, Pipeline(), store).get("total") == 1111


def test_until_stops_after_the_artifact(folder: Path) -> None:
    outcome = run_on(folder, Pipeline(), until="measured")
    assert "total" not in outcome
    assert outcome.get("measured", "2.jpg") == 100


def test_view_that_fails_is_dropped_with_its_reason(folder: Path) -> None:
    outcome = run_on(folder, Pipeline(measure=Measure(refused=("1.jpg",))))
    assert outcome.get("total") == 1101
    assert outcome.dropped == {"1.jpg": "measured: too dark"}


def test_failure_is_reused_too(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    pipeline = Pipeline(measure=Measure(refused=("1.jpg",)))
    run_on(folder, pipeline, store)
    calls.clear()
    assert run_on(folder, pipeline, store).dropped == {"1.jpg": "measured: too dark"}
    assert calls == []


def test_too_many_failures_stop_the_run_with_the_first_reason(folder: Path) -> None:
    refused = Measure(refused=("0.jpg", "1.jpg", "2.jpg"))
    with pytest.raises(PipelineError, match=r"3 of 4 views .* 50% .* 0\.jpg: measured: too dark"):
        run_on(folder, Pipeline(measure=refused))


def test_threads_give_what_the_builtin_map_gives(folder: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        threaded = run_on(folder, Pipeline(), DiskStore(folder / "cache"), executor=pool.map)
    assert threaded.get("total") == run_on(folder, Pipeline()).get("total")


def test_progress_counts_reused_views_as_done(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    seen: list[tuple[str, int, int]] = []
    (folder / "4.jpg").write_bytes(b"x")
    run_on(folder, Pipeline(), store, progress=lambda *step: seen.append(step))
    assert [step for step in seen if step[0] == "measured"] == [("measured", 4, 5), ("measured", 5, 5)]


def test_steps_record_what_was_computed_and_what_reused(folder: Path) -> None:
    store = DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store)
    (folder / "4.jpg").write_bytes(b"x")
    steps = {step.artifact: step for step in run_on(folder, Pipeline(), store).steps}
    assert (steps["measured"].computed, steps["measured"].reused) == (1, 4)


@dataclass(frozen=True)
class WholeMachine(Measure):
    whole_machine: ClassVar[bool] = True


def test_a_stage_that_takes_the_whole_machine_stays_in_this_process_but_on_a_cluster(folder: Path) -> None:
    asked: list[int] = []

    def cluster(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        items = list(items)
        asked.append(len(items))
        return map(function, items)

    run_on(folder, Pipeline(measure=WholeMachine()), until="measured", executor=cluster)
    assert asked == []
    run_on(folder, Pipeline(measure=Measure()), until="measured", executor=cluster)
    assert asked == [4]
    cluster.many_machines = True  # type: ignore[attr-defined]
    run_on(folder, Pipeline(measure=WholeMachine()), until="measured", executor=cluster)
    assert asked == [4, 4]


@pytest.mark.parametrize(
    ("photos", "pixels", "cores", "free", "wanted"),
    [
        (100, 8e5, 8, 64e9, 8),
        (100, 8e5, 8, 5e9, 3),  # memory
        (5, 8e5, 8, 64e9, 2),  # a photo or two each are not worth it
        (12, 96.0 * 72, 8, 64e9, 1),  # little work
        (100, 8e5, 8, None, 8),
        (100, 8e5, 8, 1e8, 1),
    ],
)
def test_as_many_workers_as_cores_memory_and_work_allow(
    photos, pixels, cores, free, wanted, monkeypatch
) -> None:
    monkeypatch.setattr("pipelines.executors.thread_count", lambda threads: cores)
    monkeypatch.setattr("pipelines.executors.free_bytes", lambda device: free)
    assert worker_count(photos, pixels) == wanted


def test_a_worker_that_is_ended_is_told_in_one_line() -> None:
    with pytest.raises(PipelineError, match=r"one of 2 workers was ended.*--workers 1"):  # noqa: SIM117
        with local_executor(2) as executor:
            list(executor(os._exit, [1]))


@pytest.mark.parametrize("from_file", [True, False])
def test_a_script_that_workers_cannot_run_again_is_told_what_is_wrong(from_file, tmp_path) -> None:
    script = """
from pipelines.executors import local_executor
from recon.errors import PipelineError
try:
    with local_executor(2) as executor:
        list(executor(abs, [1]))
except PipelineError as error:
    print(error)
"""
    (tmp_path / "script.py").write_text(script)
    found = subprocess.run(
        [sys.executable, str(tmp_path / "script.py") if from_file else "-"],
        input="" if from_file else script,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "none of 2 workers could start" in found.stdout
    assert "__main__" in found.stdout


def test_workers_that_rest_are_gone_and_others_come_for_the_next_call() -> None:
    with local_executor(2) as executor:
        first = set(executor(os.getpgid, [0]))
        before = multiprocessing.active_children()
        assert before
        assert isinstance(executor, Workers)
        executor.rest()
        assert multiprocessing.active_children() == []
        assert set(executor(os.getpgid, [0])) == first
    assert multiprocessing.active_children() == []


def has_torch(_: int) -> bool:
    return "torch" in sys.modules


def test_workers_load_torch_while_they_have_nothing_to_do() -> None:
    workers = Workers(1)
    workers.load()
    assert multiprocessing.active_children() == []
    assert list(workers(has_torch, [0])) == [False]
    workers.load()
    assert list(workers(has_torch, [0])) == [True]
    workers.rest()


@dataclass(frozen=True)
class Large(Total):
    fills_memory: ClassVar[bool] = True


def test_workers_rest_before_a_stage_that_fills_the_memory(folder: Path) -> None:
    class Counted:
        rests = 0

        def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
            return map(function, items)

        def rest(self) -> None:
            self.rests += 1

    workers, store = Counted(), DiskStore(folder / "cache")
    run_on(folder, Pipeline(), store, executor=workers)
    assert workers.rests == 0
    run_on(folder, Pipeline(total=Large(factor=2)), store, executor=workers)
    assert workers.rests == 1
    run_on(folder, Pipeline(total=Large(factor=2)), store, executor=workers)  # there is nothing to do
    assert workers.rests == 1
