"""`dtolbus up` that is interrupted while it verifies: one line, no traceback, and the certificate's file says so."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.stacks import Up, is_alive
from tests.producer.bus import eventually

from dtolbus_producer.certifying import CERTIFICATE_FILE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the process that verifies in Linux' /proc")


def verifying(parent: int) -> int | None:
    """The process of `dtolbus verify` that this one waits for."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"\0verify\0" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return None


def test_ctrl_c_while_it_verifies_is_one_line(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "0.5", "--sinks", "csv") as up:
        found: list[int] = []

        def is_held() -> bool:
            child = verifying(up.process.pid)
            if child is not None:
                os.kill(child, signal.SIGSTOP)
                found.append(child)
            return child is not None

        eventually(is_held)

        up.process.send_signal(signal.SIGINT)  # alone it ends nothing: the recording is over, the certificate is due
        with pytest.raises(subprocess.TimeoutExpired):
            up.process.wait(1.2)
        up.process.send_signal(signal.SIGINT)
        code = up.end()
    assert (code, up.errors) == (130, "\ndtolbus: interrupted\n")
    assert not is_alive(found[0])
    certificate = (up.data / "logs" / CERTIFICATE_FILE).read_text()
    assert certificate.startswith("not verified: KeyboardInterrupt; `dtolbus verify --data ")
