"""The multigrid solver against an exact sparse solve, over weights of many orders of magnitude."""

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from recon.refinement.multigrid import Multigrid, Stencil, solve


def random_weights(height: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A patchwork of surfaces, links between them 1e-4 of those inside, few pixels held."""
    rng = np.random.default_rng(seed)
    patch = np.add.outer(np.arange(height) // 7, np.arange(width) // 11) % 3
    along_u = np.where(np.diff(patch, axis=1) != 0, 1e-4, 1.0) * rng.uniform(0.3, 1, (height, width - 1))
    along_v = np.where(np.diff(patch, axis=0) != 0, 1e-4, 1.0) * rng.uniform(0.3, 1, (height - 1, width))
    unary = np.where(rng.random((height, width)) < 0.05, 1.0, 1e-4)
    return tuple(torch.from_numpy(array.astype(np.float32)) for array in (unary, along_u, along_v))


def dense(unary: torch.Tensor, along_u: torch.Tensor, along_v: torch.Tensor) -> coo_array:
    """The same operator as a sparse matrix, from its energy."""
    height, width = unary.shape
    index = np.arange(height * width).reshape(height, width)
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    weight = np.concatenate([along_u.numpy().ravel(), along_v.numpy().ravel()]).astype(np.float64)
    diagonal = unary.numpy().ravel().astype(np.float64)
    rows = np.concatenate([index.ravel(), first, second, first, second])
    columns = np.concatenate([index.ravel(), first, second, second, first])
    return coo_array((np.concatenate([diagonal, weight, weight, -weight, -weight]), (rows, columns))).tocsc()


@pytest.mark.parametrize("size", [(33, 47), (40, 64), (3, 50), (9, 9), (2, 2)])
def test_solution_is_that_of_a_direct_solver(size: tuple[int, int]) -> None:
    weights = random_weights(*size, seed=1)
    right = torch.from_numpy(np.random.default_rng(2).standard_normal(size).astype(np.float32))
    multigrid = Multigrid(Stencil.from_weights(*weights))
    found, _ = solve(multigrid, right, torch.zeros(size), tolerance=1e-5)
    wanted = spsolve(dense(*weights), right.numpy().astype(np.float64).ravel()).reshape(size)
    assert np.abs(found.numpy() - wanted).max() < 2e-3 * np.abs(wanted).max()  # float32


def test_cycle_is_symmetric_and_positive() -> None:
    multigrid = Multigrid(Stencil.from_weights(*random_weights(31, 45, seed=3)))
    first, second = torch.randn(2, 31, 45, generator=torch.Generator().manual_seed(0))
    one = float((first * multigrid.cycle(second)).sum())
    other = float((second * multigrid.cycle(first)).sum())
    assert one == pytest.approx(other, rel=1e-3)
    assert float((first * multigrid.cycle(first)).sum()) > 0


def test_iterations_do_not_grow_with_the_picture() -> None:
    counts = []
    for scale in (1, 4):
        height, width = 48 * scale, 64 * scale
        unary = torch.full((height, width), 1e-6)
        unary[::16, ::16] = 1.0
        links = torch.ones(height, width - 1), torch.ones(height - 1, width)
        multigrid = Multigrid(Stencil.from_weights(unary, *links))
        right = torch.randn(height, width, generator=torch.Generator().manual_seed(1))
        counts.append(solve(multigrid, right, torch.zeros(height, width), tolerance=1e-4)[1])
    assert counts[0] <= 15
    assert counts[1] <= counts[0] + 5


def test_energy_falls_with_every_iteration() -> None:
    weights = random_weights(30, 40, seed=5)
    stencil = Stencil.from_weights(*weights)
    right = torch.randn(30, 40, generator=torch.Generator().manual_seed(2))
    multigrid = Multigrid(stencil)
    energies = []
    for most in range(8):
        x, _ = solve(multigrid, right, torch.zeros(30, 40), tolerance=0.0, most=most)
        energies.append(float((0.5 * x * stencil.apply(x) - right * x).double().sum()))
    assert all(after <= before + 1e-6 * abs(before) for before, after in itertools.pairwise(energies))
