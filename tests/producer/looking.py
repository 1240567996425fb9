"""`dtolbus check`, `boards` and `doctor` called in this process, as a shell would."""

import logging
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

import click
import pytest


class Called(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def call(command: click.Command, words: Sequence[object], capsys: pytest.CaptureFixture[str]) -> Called:
    """Call a command line; the log, and who tells of an exception, go back to what they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as end:
            command.main([str(word) for word in words])
    finally:
        root.handlers[:], root.level = handlers, level
        sys.excepthook, threading.excepthook = hooks
    assert isinstance(end.value.code, int)
    return Called(end.value.code, *capsys.readouterr())
