"""Kernels kept on disk."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recon.jit import begin_rows

KERNEL = """
from staling.sizes import SIDE
from recon.jit import compiled

@compiled
def area(x):
    return SIDE * SIDE * x

print(area(1.0))
"""


@pytest.mark.parametrize("through", ["", "staling.more"])
def test_a_kernel_on_disk_is_as_new_as_the_constants_of_other_files(tmp_path: Path, through: str) -> None:
    package = tmp_path / "staling"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kernel.py").write_text(KERNEL)
    constants = package / "sizes.py"
    if through:
        constants.write_text(f"from {through} import SIDE")
        constants = package / "more.py"
    found = []
    for side in (2, 3, 2):
        constants.write_text(f"SIDE = {side}.0")
        command = [sys.executable, "-Bc", "import staling.kernel"]
        root = Path(__file__).parents[2]
        environment = {"PYTHONPATH": f"{tmp_path}:{root}", "HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        found.append(float(done.stdout))
    assert found == [4, 9, 4]
    assert list(package.glob("__pycache__/*.nbi"))


@pytest.mark.parametrize("count", [0, 1, 5, 100])
@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_rows_are_done_once_on_any_number_of_threads(count: int, threads: int) -> None:
    done = np.zeros(count, int)

    def add(start: int, stop: int, to: np.ndarray) -> None:
        to[start:stop] += 1

    begin_rows(add, count, threads, done)()
    assert np.array_equal(done, np.ones(count))
