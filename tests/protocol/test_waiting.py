"""The line that tells how far a long work is."""

import io

from dtolbus.waiting import Waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, *instants: float) -> str:
    clock = iter([0.0, *instants])
    waiting = Waiting(stream, 10.0, clock=lambda: next(clock))
    for instant in instants:
        waiting.show(lambda at=instant: f"at {at:g}")  # type: ignore[misc]
    waiting.close()
    return stream.getvalue()


def test_without_a_terminal_it_is_a_line_every_ten_seconds() -> None:
    assert shown(io.StringIO(), 1, 9, 11, 12, 20, 21.5) == "at 11\nat 21.5\n"


def test_what_is_done_at_once_says_nothing() -> None:
    assert shown(io.StringIO(), 1, 2) == shown(Terminal(), 0.1, 0.2) == ""


def test_on_a_terminal_it_is_rewritten_and_goes() -> None:
    assert shown(Terminal(), 0.1, 0.3, 0.4, 0.7) == "\r\x1b[Kat 0.3\r\x1b[Kat 0.7\r\x1b[K"


def test_a_stream_that_is_gone_stops_nothing() -> None:
    stream = io.StringIO()
    waiting = Waiting(stream, 0.0)
    stream.close()
    waiting.show(lambda: "x")
