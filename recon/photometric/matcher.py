"""The best plane of each pixel of a level, and what the kernels do with it, on threads of the processor."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from jaxtyping import Float32, UInt8

from recon.devices import find_device
from recon.jit import run_pieces
from recon.photometric.fitting import measure_rows
from recon.photometric.propagation import fit_rows, propagate_rows
from recon.photometric.slants import tilt_rows
from recon.photometric.sweep import sweep_rows

if TYPE_CHECKING:
    from recon.photometric.on_device import DeviceMatcher


class Matcher:
    """The best plane of each pixel so far; the kernels change it."""

    def __init__(self, threads: int | None, reference: Any, others: Any, state: Any) -> None:
        """Keeps what is given.

        Args:
            threads: None takes one per processor.
            reference: As for `sweep.sweep_rows`.
            others: As for `sweep.sweep_rows`.
            state: As for `sweep.sweep_rows`; changed in place.
        """
        self._threads, self._reference, self._others, self._state = threads, reference, others, state

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Returns planes, scores, ratios and motions, as for `sweep.sweep_rows`."""
        return self._state

    def sweep(self, centre: Any) -> None:
        """Takes the best planes around centres: see `sweep.sweep_rows`."""
        self._run(sweep_rows, self._reference, self._others, centre, self._state)

    def tilt(self, centre: Any) -> None:
        """Tries other slants where planes match badly: see `slants.tilt_rows`."""
        self._run(tilt_rows, self._reference, self._others, centre, self._state)

    def propagate(self, color: int) -> None:
        """Tries the neighbours' planes at the pixels of one colour of the checkerboard."""
        self._run(propagate_rows, color, self._reference, self._others, self._state)

    def fit(self) -> None:
        """Tries planes fitted to what the neighbours have found."""
        planes, scores, _, _ = self._state
        self._run(fit_rows, self._reference, self._others, (planes.copy(), scores.copy()), self._state)

    def measure(
        self, energy: Float32[np.ndarray, "h w"], max_off_centre: float
    ) -> tuple[Float32[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """Moves planes to where they match best, and judges them: see `fitting.measure_rows`.

        Args:
            energy: Squared gradients of the smoothed grey levels.
            max_off_centre: How far off centre the texture may be, px.

        Returns:
            w, cost and variance of w per pixel, and what became of it.
        """
        grey, colors, _, planes, bands = self._reference
        numbers, outcome = np.zeros((*grey.shape, 3), np.float32), np.zeros(grey.shape, np.uint8)
        photo = (grey, colors, energy, max_off_centre, planes, bands)
        self._run(measure_rows, photo, self._others, self._state, (numbers, outcome))
        return numbers, outcome

    def _run(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        run_pieces(kernel, len(self._state[1]), self._threads, *arguments)


MakeMatcher = Callable[[Any, Any, Any], Union[Matcher, "DeviceMatcher"]]
"""Called with reference, others and state as of `sweep.sweep_rows`."""


def matchers_on(device: str, threads: int | None) -> MakeMatcher:
    """Returns what makes the matcher of a level: the kernels' own for "cpu", else one on a device of torch.

    Args:
        device: By name.
        threads: Of the kernels; None takes one per processor.

    Raises:
        InputError: There is no such device.
    """
    if device == "cpu":
        return partial(Matcher, threads)
    found = find_device(device, double=True)
    from recon.photometric.on_device import DeviceMatcher

    return partial(DeviceMatcher, found)
