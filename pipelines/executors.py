"""Where the tasks of a stage run: each executor is called like the builtin `map`, results in order.

Tasks carry recipes, not arrays; workers read and write the store. So every executor gives identical results.
"""

import atexit
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from lotus.devices import free_bytes
from recon.errors import InputError, PipelineError
from recon.jit import thread_count

WORKER_BYTES = 1.5e9  # of memory at most, of photos of a megapixel
WORKER_PIXELS = 1.5e6  # of all photos: the work that is worth starting a process, which takes seconds
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Executor = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keeps NumPy's and SciPy's linear algebra to one thread.

    The systems of a view are small: more threads only wait for each other, up to ten times longer.
    """
    import scipy.linalg  # noqa: F401  only libraries that are loaded can be limited

    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keeps torch to one thread: with others, sums and exponentials round differently."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def worker_count(photos: int, pixels: float) -> int:
    """Returns how many workers of this machine are worth starting: one per core, as memory and work allow.

    Args:
        photos: To work on.
        pixels: Of each, at the size that they are worked on.
    """
    free = free_bytes("cpu")
    by_memory = thread_count(None) if free is None else int(free / WORKER_BYTES)
    return max(1, min(thread_count(None), by_memory, photos // 2, int(photos * pixels / WORKER_PIXELS)))


class Workers:
    """Processes of this machine, started when they are first needed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self.have_started = False  # whether any process came as far as to take work

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """As the builtin map."""
        if self._pool is None:
            # spawn, since a fork of a process that has torch's or Open3D's threads hangs
            # at their end they leave at once: to take all that they imported apart takes over a second
            self._pool = ProcessPoolExecutor(
                self._count,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=atexit.register,
                initargs=(os._exit, 0),
            )
            self._pool.submit(os.getpid).result()
            self.have_started = True
        return self._pool.map(function, items)

    def load(self) -> None:
        """Lets the processes import what later stages need, while this one has work that they wait for."""
        if self._pool is not None:
            for _ in range(self._count):
                self._pool.submit(_load)

    def rest(self) -> None:
        """Ends the processes, which hold memory as long as they wait; the next call starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # an interrupted run waits for no more than is begun
        self._pool = None


def _load() -> None:
    import torch  # noqa: F401  which takes a second


@contextmanager
def local_executor(workers: int) -> Iterator[Executor]:
    """Gives an executor of this machine: 1 worker is the builtin map, more are processes of their own.

    Raises:
        InputError: Fewer than 1 worker.
        PipelineError: A worker was ended from outside, or none could start.
    """
    if workers < 1:
        raise InputError(f"{workers} workers, at least 1 wanted")
    if workers == 1:
        yield map
        return
    processes = Workers(workers)
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # workers inherit it; they share the cores
    try:
        yield processes
    except BrokenProcessPool:
        if not processes.have_started:
            raise PipelineError(
                f"none of {workers} workers could start: they run the calling script's file again, so "
                "it has to be a file (not read from standard input) that does its work below "
                "if __name__ == '__main__':, or take 1 worker"
            ) from None
        raise PipelineError(
            f"one of {workers} workers was ended, most likely for lack of memory; the same command goes on "
            "where it was, with --workers 1 on the least memory"
        ) from None
    finally:
        processes.rest()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def ray_executor(address: str) -> Iterator[Executor]:
    """Gives an executor of a Ray cluster; `local` starts one on this machine.

    The run's OUT has to be on a file system that every node sees.

    Raises:
        InputError: The extra `ray` is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed: pip install 'lotus-recon[ray]'") from None
    environment = {"env_vars": dict.fromkeys(THREAD_VARIABLES, "1")}
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    except (ConnectionError, ValueError) as error:
        raise InputError(f"no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None
    try:

        def ray_map(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
            def call(item: Any) -> Any:  # Ray takes functions, no other callables
                return function(item)

            remote = ray.remote(call)
            pending = [remote.remote(item) for item in items]
            return (ray.get(reference) for reference in pending)

        ray_map.many_machines = True  # type: ignore[attr-defined]
        yield ray_map
    finally:
        ray.shutdown()
