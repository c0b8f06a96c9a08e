"""Matching and verification of photo pairs by COLMAP, block by block, on all cores.

Each core has a process that matches on one thread. Threads of one process would do, but pycolmap's wheels
multiply matrices by an OpenBLAS without locks, it seems: two threads that enter it at once may work
in one buffer (OpenBLAS issues 1755 and 2126), and a pair of photos then loses most of its matches.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from jaxtyping import Int64

from recon.errors import PipelineError
from recon.io.colmap.features import PhotoFeatures, Progress
from recon.io.colmap.matching import count_matches, fill_database, working_name
from recon.io.colmap.options import load_pycolmap, thread_count

BLOCK_PAIRS = 64  # at most, between two reports of progress
TILE = 8  # photos; pairs of a tile share their search trees
WORKER_LOOKUPS = 200_000  # of features in other photos: about a second, what a process is worth
FOLDER = "blocks-"  # starts the name of the folder of what is being matched
WORKER = "from recon.io.colmap.pair_matching import work; work()"

Match = Callable[[Path, Path, int], None]  # of a database the pairs in a file, with a seed


def match_pairs(
    database: Path,
    features: Sequence[PhotoFeatures],
    cameras: Sequence[Any],
    pairs: Int64[np.ndarray, "p 2"],
    seed: int,
    on_progress: Progress,
) -> None:
    """Matches and verifies pairs of photos by SIFT, and puts what is found into their database.

    Pairs that are there are skipped, so a run after a crash ends in the same matches.

    Raises:
        PipelineError: A process ended before its pairs were matched.
    """
    known = count_matches(database).raw
    order = np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 1] // TILE, pairs[:, 0] // TILE))
    wanted = [(i, j) for i, j in pairs[order].tolist() if (i, j) not in known]
    lookups = sum(features[i].count + features[j].count for i, j in wanted)
    workers = min(thread_count(), 1 + lookups // WORKER_LOOKUPS)
    size = min(BLOCK_PAIRS, -(-len(wanted) // workers)) or 1
    blocks = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    for left in database.parent.glob(f"{FOLDER}*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    done = len(pairs) - len(wanted)
    on_progress("matching", done, len(pairs))

    def match_block(number: int) -> int:
        small = folder / f"{number}.db"
        fill_database(small, features, cameras, sorted({index for pair in blocks[number] for index in pair}))
        list_file = small.with_suffix(".txt")
        list_file.write_text("".join(f"{working_name(i)} {working_name(j)}\n" for i, j in blocks[number]))
        match = free.get()
        try:
            match(small, list_file, seed)
        finally:
            free.put(match)
        _move_matches(small, database)
        return len(blocks[number])

    free: SimpleQueue[Match] = SimpleQueue()
    with ThreadPoolExecutor(workers) as threads, ExitStack() as stack:
        parent = tempfile.TemporaryDirectory(prefix=FOLDER, dir=database.parent, ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(parent))
        for _ in range(workers):
            free.put(stack.enter_context(_worker(folder)) if workers > 1 else _match)
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        for task in as_completed([threads.submit(match_block, number) for number in range(len(blocks))]):
            done += task.result()
            on_progress("matching", done, len(pairs))


def _match(database: Path, list_file: Path, seed: int) -> None:
    """Matches on one thread. All other matchers need ONNX or a download, else COLMAP aborts the process."""
    pycolmap = load_pycolmap()
    matching = pycolmap.FeatureMatchingOptions(
        type=pycolmap.FeatureMatcherType.SIFT_BRUTEFORCE, use_gpu=False, num_threads=1
    )
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    pairing = pycolmap.ImportedPairingOptions(match_list_path=list_file)
    pycolmap.match_image_pairs(database, matching, pairing, verification, pycolmap.Device.cpu)


def _move_matches(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(target, timeout=600, isolation_level=None)) as opened:
        opened.execute("ATTACH ? AS source", (str(source),))
        opened.execute("BEGIN IMMEDIATE")
        for table in ("matches", "two_view_geometries"):
            opened.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM source.{table}")
        opened.execute("COMMIT")
    source.unlink()


@contextmanager
def _worker(folder: Path) -> Iterator[Match]:
    """Gives a function that matches in a process of its own, which ends with the block."""
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=folder,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def match(database: Path, list_file: Path, seed: int) -> None:
        try:
            print(database.name, list_file.name, seed, file=stdin, flush=True)
            done = stdout.readline()
        except (OSError, ValueError):
            done = ""
        if not done:
            raise PipelineError(
                f"matching: a process ended (exit code {process.wait()}) before its pairs of photos were "
                "matched; what is done is kept, run again, with less memory in use elsewhere"
            )

    try:
        yield match
    finally:
        process.kill()
        process.communicate()


def work() -> None:
    """Matches what is named line by line on standard input: database, file of pairs, seed."""
    for line in sys.stdin:
        database, list_file, seed = line.split()
        _match(Path(database), Path(list_file), int(seed))
        sys.stdout.write("done\n")
        sys.stdout.flush()
