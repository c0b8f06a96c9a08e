"""How kernels are compiled by numba and spread over threads."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

PIECES_PER_THREAD = 4  # so that a thread with an easy piece takes the next one


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


def thread_count(threads: int | None) -> int:
    """Returns the number of threads to use; None means one per processor that this process may use."""
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(kernel: Callable[..., Any], count: int, threads: int | None, *arguments: Any) -> list[Any]:
    """Returns what `kernel(start, stop, *arguments)` returns for the pieces of range(count), in their order.

    Each piece runs on one thread and may write only what belongs to it, so that the result does not depend
    on the threads. How many pieces there are does.
    """
    workers = thread_count(threads)
    if workers == 1:
        return [kernel(0, count, *arguments)]
    pieces = workers * PIECES_PER_THREAD
    bounds = [count * i // pieces for i in range(pieces + 1)]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(kernel, start, stop, *arguments) for start, stop in itertools.pairwise(bounds)]
        return [future.result() for future in futures]
