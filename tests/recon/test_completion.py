"""Predicted depth drawn through measurements: smooth factors are found, edges stay, outliers count little."""

import numpy as np
import pytest

from recon.completion import complete

HEIGHT, WIDTH = 120, 160
ROWS, COLUMNS = np.indices((HEIGHT, WIDTH)) / WIDTH
TRUE = (2 + 0.5 * COLUMNS + 0.3 * ROWS).astype(np.float32)


def measured_some(depth: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
    chosen = np.random.default_rng(seed).random(depth.shape) < share
    return np.where(chosen, depth, 0).astype(np.float32)


def test_a_constant_factor_is_found_exactly() -> None:
    assert complete(1.2 * TRUE, measured_some(TRUE, 0.01)) == pytest.approx(TRUE, rel=1e-5)


def test_a_smooth_factor_is_found() -> None:
    factor = np.exp(0.2 * np.sin(3 * COLUMNS) + 0.1 * ROWS).astype(np.float32)
    before, after = (
        np.abs(np.log(d / TRUE)) for d in (factor * TRUE, complete(factor * TRUE, measured_some(TRUE, 0.05)))
    )
    assert after.mean() < 0.05 * before.mean()


def test_the_factor_of_a_thing_does_not_leak_behind_it() -> None:
    thing = (np.abs(COLUMNS - 0.5) < 0.2) & (np.abs(ROWS - 0.375) < 0.15)
    depth = np.where(thing, 1, TRUE).astype(np.float32)
    predicted = np.where(thing, 1.25, 0.8).astype(np.float32) * depth
    found = complete(predicted, measured_some(depth, 0.05))
    assert np.abs(found / depth - 1).max() < 0.02


def test_what_is_far_from_all_that_was_measured_takes_the_factor_of_the_rest() -> None:
    measured = measured_some(TRUE, 0.1)
    measured[:, WIDTH // 4 :] = 0
    assert complete(1.2 * TRUE, measured) == pytest.approx(TRUE, rel=1e-3)


def test_another_depth_without_measurements_takes_the_factor_around() -> None:
    depth = TRUE.copy()
    depth[40:60, 60:80] = 20
    measured = measured_some(TRUE, 0.1)
    measured[40:60, 60:80] = 0
    assert complete(1.1 * depth, measured) == pytest.approx(depth, rel=1e-3)


def test_wrong_measurements_count_little() -> None:
    measured = measured_some(TRUE, 0.1)
    wrong = measured_some(np.ones_like(TRUE), 0.25, seed=1) > 0
    found = complete(1.1 * TRUE, np.where(wrong, 1.4 * measured, measured).astype(np.float32))
    assert np.abs(found / TRUE - 1).mean() < 0.03  # a plain mean is 0.085 off


def test_units_do_not_matter() -> None:
    measured = measured_some(TRUE, 0.1)
    assert complete(1000 * 1.2 * TRUE, 1000 * measured) == pytest.approx(
        1000 * complete(1.2 * TRUE, measured), rel=1e-4
    )


def test_what_is_not_predicted_stays_unknown() -> None:
    predicted = 1.1 * TRUE
    predicted[:20] = 0
    found = complete(predicted, measured_some(TRUE, 0.1))
    assert not found[:20].any()
    assert found[20:] == pytest.approx(TRUE[20:], rel=1e-4)


def test_nothing_measured_changes_nothing() -> None:
    assert complete(TRUE, np.zeros_like(TRUE)) is TRUE
