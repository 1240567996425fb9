"""How many connections a gateway has, and what becomes of the others."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
import zmq
from tests.faults.hostile import SUB, crowd
from tests.producer.bus import RunningGateway, eventually, peer
from tests.protocol.specimens import block, block_run

from dtolbus_producer import admission
from dtolbus_producer.journal import RunWriter

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
ROOM = 40
UNANSWERED_S = 0.5

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can be kept out")


def test_beyond_its_bound_a_gateway_keeps_whom_it_has_and_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(RunWriter(tmp_path / "journal", RUN)) as writer, RunningGateway(tmp_path) as gateway:
        writer.append(block(RUN, 0))
        with gateway.client() as known:
            known.hello()
            lowest = os.dup(0)
            os.close(lowest)
            monkeypatch.setattr(admission, "MOST_DESCRIPTORS", lowest + ROOM)
            with crowd(gateway.pub_port, 10 * ROOM, SUB):
                eventually(lambda: "too many connections: nobody new is let in" in caplog.text)
                with peer(zmq.DEALER, gateway.catchup_port) as newcomer:
                    newcomer.socket.send(b"")
                    assert not newcomer.socket.poll(round(UNANSWERED_S * 1000))
                known.hello()
            with gateway.client() as newcomer:
                newcomer.hello()


def test_without_any_descriptor_there_is_room_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource  # Windows has none

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        assert admission.room_left() == "none"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert admission.room_left() in ("free", "full")
