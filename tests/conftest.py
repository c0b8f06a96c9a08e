"""Shape and type checks at run time, one thread per library, and the shared data where it is there."""

import os
from pathlib import Path

import pytest
import scipy.linalg  # noqa: F401
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
# all but pipelines.commands, whose dataclasses hold tyro's marker for values that the user has to give
CHECKED_PIPELINES = [f"pipelines.{path.stem}" for path in sorted((ROOT / "pipelines").glob("*.py"))]
install_import_hook(["recon", "lotus", *CHECKED_PIPELINES], "beartype.beartype")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # set before torch or open3d load libgomp
threadpool_limits(1, user_api="blas")  # of numpy and scipy, both loaded by now
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real photo sets beside the checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real data sets in {SHARED / 'data'}, which is absent")
    return SHARED / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference outputs beside the checkout."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"needs the reference outputs in {SHARED / 'golden'}, which is absent")
    return SHARED / "golden"
