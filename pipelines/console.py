"""Progress bars and lines on the console; the only place of the packages that draws them."""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

MAX_LEFT_OUT = 10  # lines; a sequence can lack hundreds of frames


class Console:
    """Progress bars and lines on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._step = ""

    def __enter__(self) -> "Console":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def say(self, text: str) -> None:
        """Writes a line below the bars."""
        self._close()
        sys.stderr.write(f"{text}\n")

    def left_out(self, dropped: Mapping[str, str]) -> None:
        """Names what was left out with the reason, at most `MAX_LEFT_OUT` lines of it."""
        for name, reason in list(dropped.items())[:MAX_LEFT_OUT]:
            self.say(f"left out: {name}: {reason}")
        if len(dropped) > MAX_LEFT_OUT:
            self.say(f"left out: {len(dropped) - MAX_LEFT_OUT} more")

    def progress(self, step: str, done: int, total: int) -> None:
        """Moves the bar of a step; a new step gets a new bar."""
        if self._bar is None or self._step != step:
            self._close()
            # in a log file, one line per step is enough
            interval = 0.1 if sys.stderr.isatty() else float("inf")
            self._bar = tqdm(desc=step, total=total, file=sys.stderr, mininterval=interval, miniters=1)
            self._step = step
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
