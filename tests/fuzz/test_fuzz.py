"""What comes from outside breaks no decoder: all that once did, and a bounded number of new inputs each time."""

import logging
import random
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz import __main__ as command
from tests.fuzz.corpus import CORPUS, inputs_of
from tests.fuzz.drivers import DECODERS
from tests.fuzz.mutating import mutated

_ROOM_BYTES = 96 << 20
"""What an input of some kB may have allocated on its way: the largest window, three times the largest header."""
_EXAMPLES = {"wire": 150, "raw": 80, "registration": 80}
_KEPT = [pytest.param(path, id=f"{path.parent.name}-{path.name}") for path in sorted(CORPUS.glob("*/*"))]


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Each hostile input has its warning, and each in turn."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", _KEPT)
def test_what_was_found_once_is_refused_without_harm(path: Path) -> None:
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a value that is no number is a value like any other
            DECODERS[path.parent.name].run(path.read_bytes())
        assert tracemalloc.get_traced_memory()[1] < _ROOM_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", DECODERS)
def test_valid_inputs_pass_and_changed_ones_break_nothing(name: str) -> None:
    decoder, known = DECODERS[name], inputs_of(name)

    @settings(
        max_examples=_EXAMPLES.get(name, 30), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 2**32))
    def broken(number: int) -> None:
        chance = random.Random(number)
        decoder.run(mutated(chance.choice(known), chance, known, in_parts=decoder.in_parts))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in decoder.seeds():
            decoder.run(data)
        broken()


def test_the_command_keeps_what_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> None:
        if len(data) != 4:
            raise RuntimeError("broken")

    monkeypatch.setattr(command, "CORPUS", tmp_path)
    monkeypatch.setitem(command.DECODERS, "config", command.Decoder(broken, lambda: [b"kept"]))
    trial = command.looped("config", 0.2, seed=1)
    assert trial.count > 1
    assert list(trial.places) == [f"RuntimeError test_fuzz.py:{broken.__code__.co_firstlineno + 2}"]
    (kept,) = (tmp_path / "config").iterdir()
    assert len(kept.read_bytes()) != 4
