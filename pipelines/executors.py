"""Where the tasks of a stage run: each executor is called like the builtin `map`, results in order.

Tasks carry recipes, not arrays; workers read and write the store. So every executor gives identical results.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_limits

from recon.errors import InputError

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


@contextmanager
def local_executor(workers: int) -> Iterator[Executor]:
    """Gives an executor of this machine: 1 worker is the builtin map, more are processes of their own.

    Raises:
        InputError: Fewer than 1 worker.
    """
    if workers < 1:
        raise InputError(f"{workers} workers, at least 1 wanted")
    if workers == 1:
        yield map
        return
    # spawn, since a fork of a process that has torch's or Open3D's threads hangs
    context = multiprocessing.get_context("spawn")
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # workers inherit it; they share the cores
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield pool.map
    finally:
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

        yield ray_map
    finally:
        ray.shutdown()
