"""A board of libuldaq to test with: the package uldaq on a stand-in of its library, which libuldaq.c says."""

import ctypes
import ctypes.util
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest

from dtolbus_producer.boards import ulchannels
from dtolbus_producer.boards.conformance import BLOCK, RATE_HZ
from dtolbus_producer.boards.ul import UlBoard
from dtolbus_producer.config import config_from
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig

ERROR, STALL, SILENCE, FRACTION, POLL = range(1, 6)
"""What the stand-in can do once."""
OVERRUN, DEAD_DEV = 18, 8
"""Errors of the library."""
TRUE_HZ = 12_288_000 / 1229
"""What the stand-in makes of RATE_HZ."""
TWO = (ChannelConfig("a", physical=1), ChannelConfig("b", physical=2))

_SOURCE = Path(__file__).with_name("libuldaq.c")


def unavailable():
    """Why there can be no stand-in here, or None."""
    if importlib.util.find_spec("uldaq") is None:
        return "the package uldaq is not installed"
    return None if shutil.which("cc") else "no C compiler (cc) to build the stand-in of libuldaq with"


def build(folder):
    """Compile the stand-in into the folder, with a refusal for each other function that the package looks up."""
    (package,) = importlib.util.find_spec("uldaq").submodule_search_locations
    names = set(re.findall(r"lib\.(ul\w+)", (Path(package) / "ul_c_interface.py").read_text()))
    names -= set(re.findall(r"^(?:int|void) (ul\w+)\(", _SOURCE.read_text(), re.MULTILINE))
    others = folder / "others.c"
    others.write_text("\n".join(f"int {name}(void) {{ return 3; }}" for name in sorted(names)))
    library = folder / ("libuldaq.dylib" if sys.platform == "darwin" else "libuldaq.so")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Werror", "-ffp-contract=off", "-shared", "-fPIC", "-pthread"]
    done = subprocess.run(["cc", *flags, "-o", library, _SOURCE, others], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


class StandIn:
    """The library's board: what it is and does, by the names in libuldaq.c without their prefix."""

    def __init__(self, library):
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name):
        return ctypes.c_int.in_dll(self._library, f"standin_{name}").value

    def each(self, name):
        return list((ctypes.c_int * 8).in_dll(self._library, f"standin_{name}"))

    def set(self, **values):
        for name, value in values.items():
            ctypes.c_int.in_dll(self._library, f"standin_{name}").value = value

    def happens(self, fault, at, *, error=0, away=0):
        self.set(fault=fault, fault_at=at, error=error, away_then=away)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if (why := unavailable()) is not None:
        pytest.skip(why)
    built = build(tmp_path_factory.mktemp("libuldaq"))
    with mock.patch.object(ctypes.util, "find_library", return_value=str(built)):
        importlib.import_module("uldaq")
    yield built
    forget_uldaq(sys.modules.pop)


@pytest.fixture
def standin(library):
    """The stand-in, a DT9837A with nothing wrong."""
    made = StandIn(library)
    made.set(model=0, claimed=0, away=0, queued=0)
    made.happens(0, 0)
    return made


def small_ring(monkeypatch):
    """The ring holds eight blocks: 80 ms."""
    monkeypatch.setattr(ulchannels, "_RING_S", 0.0)


def forget_uldaq(forget):
    """Have the package imported anew by whoever asks for it next."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "uldaq"]:
        forget(name)


def codes_of(physical, first, count, *, bits=24):
    """The codes that input `physical` gives in every run, shape (count,)."""
    scans = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    key = np.uint64((physical * 0xDA942042E4DD58B5) & (2**64 - 1))
    return ((scans + key) >> np.uint64(64 - bits)).astype(np.int64)


def volts_of(physical, first, count):
    """The volts that the library makes of the 16 bit board's codes at ±10 V, calibrated."""
    return (1.01 * codes_of(physical, first, count, bits=16) + 3.0) * (20.0 / 65536) - 10.0


def device_of(*, board="uldaq", options=None, channels=TWO, **task):
    task = TaskConfig("t", **{"rate_hz": RATE_HZ, "block_samples": BLOCK, "channels": channels, **task})
    return DeviceConfig("dev", board, options or {}, (task,))


def config_of(device, **rest):
    return config_from({"device": [msgspec.to_builtins(device)], **rest})


def opened(device):
    UlBoard.check(device)
    board = UlBoard(device)
    board.open()
    return board
