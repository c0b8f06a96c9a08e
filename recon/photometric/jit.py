"""How the kernels of the matching are compiled and spread over threads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba

ROWS_PER_PIECE = 8  # so that a thread with easy rows takes more of them


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled for the processor, kept on disk where there is a place to keep it.

    The kernels release the lock of the interpreter and do not reorder sums (no `fastmath`), so threads run
    beside each other and every run gives the same bytes.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither beside the source nor in the home folder: compile anew in each process
        return numba.njit(nogil=True, error_model="numpy")(function)


def run_rows(kernel: Callable[..., Any], rows: int, threads: int | None, *arguments: Any) -> None:
    """Runs `kernel(start, stop, *arguments)` over pieces of range(rows).

    Each piece may write only its own rows, and read only what no piece writes, so that the result depends
    neither on the threads nor on the pieces.
    """
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads == 1:
        kernel(0, rows, *arguments)
        return
    starts = range(0, rows, ROWS_PER_PIECE)
    with ThreadPoolExecutor(threads) as pool:
        futures = [
            pool.submit(kernel, start, min(start + ROWS_PER_PIECE, rows), *arguments) for start in starts
        ]
        for future in futures:
            future.result()
