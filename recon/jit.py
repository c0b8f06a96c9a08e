"""How kernels are compiled by numba and spread over threads."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

PIECES = 16  # so that a thread with easy pieces takes more; fixed, so that no result depends on the threads


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled for the processor, kept on disk where there is a place to keep it.

    The kernels release the lock of the interpreter and do not reorder sums (no `fastmath`), so threads run
    beside each other and every run gives the same bytes. Division by zero gives infinity as in numpy; a check
    for it would keep loops from being vectorised. Threads are Python's and not numba's: numba's own pool
    aborts the process when two threads start kernels at once, and after a fork.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither beside the source nor in the home folder: compile anew in each process
        return numba.njit(nogil=True, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function as a part of the kernels that call it; alone it would not be vectorised."""
    return numba.njit(inline="always", error_model="numpy")(function)


def thread_count(threads: int | None) -> int:
    """Returns the number of threads to use; None means one per processor that this process may use."""
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """The threads of one operation; started at the first use, gone at the end of the `with` block."""

    def __init__(self, threads: int | None) -> None:
        self._count = thread_count(threads)
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def run(self, kernel: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
        """Returns what `kernel(start, stop, *arguments)` returns for the pieces of range(count), in order.

        Each piece runs on one thread and may write only what belongs to it. The pieces are the same for any
        number of threads, and so is the result.
        """
        pieces = min(PIECES, max(count, 1))
        bounds = [count * i // pieces for i in range(pieces + 1)]
        if self._count == 1:
            return [kernel(start, stop, *arguments) for start, stop in itertools.pairwise(bounds)]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count)
        futures = [
            self._pool.submit(kernel, start, stop, *arguments) for start, stop in itertools.pairwise(bounds)
        ]
        return [future.result() for future in futures]


def run_rows(kernel: Callable[..., Any], rows: int, threads: int | None, *arguments: Any) -> None:
    """Runs `kernel(start, stop, *arguments)` over pieces of range(rows), as `Workers.run` does."""
    with Workers(threads) as workers:
        workers.run(kernel, rows, *arguments)
