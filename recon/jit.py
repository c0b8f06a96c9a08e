"""How kernels are compiled by numba and spread over threads."""

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

PIECES = 16  # so that a thread with easy pieces takes more; fixed, so that no result depends on the threads


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Returns the function compiled for the processor, kept on disk where there is a place to keep it.

    The kernels release the lock of the interpreter and do not reorder sums (no `fastmath`), so threads run
    beside each other and every run gives the same bytes. Division by zero gives infinity as in numpy; a check
    for it would keep loops from being vectorised. Threads are Python's and not numba's: numba's own pool
    aborts the process when two threads start kernels at once, and after a fork.
    """
    try:
        kernel = numba.njit(nogil=True, error_model="numpy", cache=True, **options)(function)
    except RuntimeError:  # neither beside the source nor in the home folder: compile anew in each process
        return numba.njit(nogil=True, error_model="numpy", **options)(function)
    stored = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if stored is not None:  # numba compiles, and keeps its files as in the versions tested
        stored._source_stamp = _digest(function.__module__)
    return kernel


@functools.cache
def _digest(module: str) -> str:
    """Returns a digest of a module's source and of all that it imports from its package.

    That is what a kernel on disk has to be as new as: constants and inlined functions of other files are in
    it. numba looks at the time of the kernel's own file, and runs what a change elsewhere has made wrong.
    """
    todo, sources = [module], dict[str, bytes]()
    while todo:
        name = todo.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and name not in sources:
            sources[name] = _read(file)
            todo += re.findall(
                rf"^from ({name.partition('.')[0]}[\w.]*) import", sources[name].decode(), re.M
            )
    return hashlib.sha256(b"".join(sources[name] for name in sorted(sources))).hexdigest()


@functools.cache
def _read(file: str) -> bytes:
    with open(file, "rb") as source:
        return source.read()


def reordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function compiled as by `compiled`, with sums in the order that is fastest.

    So they are vectorised, multiplied and added in one. Every run still gives the same bytes, but a processor
    with other vectors may round otherwise.
    """
    return compiled(function, fastmath={"reassoc", "contract"})


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function as a part of the kernels that call it; alone it would not be vectorised.

    It may be a compiled one, whose calls then cost nothing.
    """
    return numba.njit(inline="always", error_model="numpy")(getattr(function, "py_func", function))


@intrinsic
def prefetch(typing: Any, array: Any, position: Any) -> Any:
    """Asks for the cache line of a flat array's element; the kernel goes on without waiting for memory."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.bitcast(builder.gep(view.data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, word(1), word(3), word(1)])  # to write, into all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


def thread_count(threads: int | None) -> int:
    """Returns the number of threads to use; None means one per processor that this process may use."""
    if threads is not None:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_pieces(kernel: Callable[..., Any], count: int, threads: int | None, *arguments: Any) -> list[Any]:
    """Returns what `kernel(start, stop, *arguments)` returns for the pieces of range(count), in order.

    Each piece runs on one thread and may write only what belongs to it. The pieces are the same for any
    number of threads, and so is the result. The calling thread works too and the others are kept for the
    next call: to start threads or to wake them takes as long as a small kernel.

    Args:
        kernel: Compiled.
        count: Of whatever it loops over.
        threads: None means one per processor.
        arguments: The rest of what the kernel is called with.
    """
    pieces = min(PIECES, max(count, 1))
    results: list[Any] = [None] * pieces

    def work(i: int) -> None:
        results[i] = kernel(count * i // pieces, count * (i + 1) // pieces, *arguments)

    _share(work, pieces, thread_count(threads))()
    return results


def begin_rows(
    kernel: Callable[..., Any], count: int, threads: int | None, *arguments: Any
) -> Callable[[], None]:
    """Starts `kernel(start, stop, *arguments)` for parts of range(count) on all threads but the calling one.

    For kernels whose rows have nothing to do with each other, so that the parts may depend on the number of
    threads: each takes its share of what is left. To take the next one a thread has to wait for the
    interpreter, which the calling thread may need for its own work meanwhile.

    Returns what finishes it: a function that helps with the parts that are left.
    """
    workers, least = thread_count(threads), -(-count // PIECES)
    parts, start = [], 0
    while start < count:
        stop = min(start + max(-(-(count - start) // workers), least), count)
        parts.append((start, stop))
        start = stop
    return _share(lambda i: kernel(*parts[i], *arguments), len(parts), workers)


def _share(work: Callable[[int], None], count: int, threads: int) -> Callable[[], None]:
    """Starts work(0), work(1), ... on all threads but the calling one; returns what helps and waits."""
    todo = iter(range(count))  # shared: who is done takes the next

    def some() -> None:
        for i in todo:
            work(i)

    others = min(threads, count) - 1
    futures = [_pool(others).submit(some) for _ in range(others)]

    def finish() -> None:
        some()
        for future in futures:
            if not future.cancel():  # not begun: others keep the threads busy, and nothing is left to do
                future.result()

    return finish


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process
