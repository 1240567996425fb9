"""How far a long work is, in one line: rewritten on a terminal, elsewhere a new one every now and then."""

import contextlib
import time
from collections.abc import Callable
from typing import TextIO

_TERMINAL_S = 0.25
_ERASE = "\r\x1b[K"


class Waiting:
    """Shows lines on `stream`, at most one every `every_s`; work that is done before has none.

    A stream that is gone stops nothing.
    """

    def __init__(self, stream: TextIO, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._every_s = _TERMINAL_S if self._is_terminal else every_s
        self._clock = clock
        self._next_s = clock() + self._every_s
        self._is_shown = False

    def show(self, line: Callable[[], str]) -> None:
        """Show the line, asked for only if it is time for one."""
        now = self._clock()
        if now >= self._next_s:
            self._next_s = now + self._every_s
            self._write(f"{_ERASE}{line()}" if self._is_terminal else f"{line()}\n")
            self._is_shown = True

    def close(self) -> None:
        """Leave nothing of it on a terminal."""
        if self._is_terminal and self._is_shown:
            self._write(_ERASE)
        self._is_shown = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
