"""`dtolbus check`, `boards` and `doctor` called in this process, as a shell would."""

import logging
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
    """Call a command line; the log goes back to where it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    capsys.readouterr()
    try:
        with pytest.raises(SystemExit) as end:
            command.main([str(word) for word in words])
    finally:
        root.handlers[:], root.level = handlers, level
    assert isinstance(end.value.code, int)
    return Called(end.value.code, *capsys.readouterr())
