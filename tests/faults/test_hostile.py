"""A gateway among peers that mean no good: the sinks get everything, its memory stays bounded, others are served."""

import contextlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from tests.faults import hostile
from tests.faults.recording import RUN, Recording, Stack
from tests.producer.bus import eventually, peer
from tests.protocol.specimens import reading, reading_run

from dtolbus.wire import Done, Fetch, RunRecord
from dtolbus_producer.journal import RunWriter

if sys.platform != "linux":
    pytest.skip("what a process takes is read from /proc", allow_module_level=True)
import resource

PEERS = 6
MOST_MB = 150
"""Of a gateway's memory; it needs 50 in peace."""

Attack = Callable[[Stack, float], object]


def strangers(stack: Stack, seconds: float) -> None:
    for seed in range(round(10 * seconds)):
        for said in hostile.foreign(random.Random(seed)):
            for port in stack.ports:
                with hostile.crowd(port, 1, said):
                    pass


def handshakes_that_stop(stack: Stack, seconds: float) -> None:
    with contextlib.ExitStack() as held:
        for said in hostile.foreign(random.Random(1)):
            for port in stack.ports:
                held.enter_context(hostile.crowd(port, round(10 * seconds), said))


def crowds(stack: Stack, seconds: float) -> None:
    count = min(500, round(100 * seconds))
    with hostile.crowd(stack.pub_port, count, hostile.SUB), hostile.crowd(stack.catchup_port, count, hostile.DEALER):
        before = stack.position()
        eventually(lambda: stack.position() > before + 50)


def subscriptions(stack: Stack, seconds: float) -> None:
    for size in (60, 500, 50_000):
        topics = hostile.subscriptions(random.Random(size), size)
        hostile.flood(stack.pub_port, hostile.SUB, topics, seconds, PEERS)


def fetches(stack: Stack, seconds: float) -> None:
    for reads in (True, False):
        asked = hostile.fetches(RUN.device, RUN.task, RUN.run_id)
        hostile.flood(stack.catchup_port, hostile.DEALER, asked, seconds / 2, PEERS, reads=reads)


def hellos(stack: Stack, seconds: float) -> None:
    for reads in (True, False):
        hostile.flood(stack.catchup_port, hostile.DEALER, hostile.hellos(), seconds / 2, PEERS, reads=reads)


def damaged_requests(stack: Stack, seconds: float) -> None:
    hostile.flood(stack.catchup_port, hostile.DEALER, hostile.damaged(random.Random(1)), seconds, PEERS)


ATTACKS: list[Attack] = [
    strangers,
    handshakes_that_stop,
    crowds,
    subscriptions,
    fetches,
    hellos,
    damaged_requests,
]


@pytest.mark.parametrize(
    ("attacks", "seconds"),
    [
        pytest.param(ATTACKS, 1.0, id="all"),
        *(pytest.param([attack], 10.0, id=attack.__name__, marks=pytest.mark.soak) for attack in ATTACKS),
    ],
)
def test_the_gateway_lives_within_bounds_and_the_worker_gets_everything(
    tmp_path: Path, attacks: list[Attack], seconds: float
) -> None:
    with Recording(tmp_path, before=300) as recording, Stack(tmp_path) as stack:
        eventually(lambda: stack.position() > 300)
        for attack in attacks:
            attack(stack, seconds)
            assert stack.gateway.poll() is None, f"{attack.__name__}: {stack.log('gateway')}"
            peak_mb = peak_memory_mb(stack.gateway.pid)
            assert peak_mb < MOST_MB, f"{attack.__name__}: the gateway has taken {peak_mb:.0f} MB"
        after = recording.count
        assert_served(stack)
        eventually(lambda: stack.position() > after)
        recording.end()
        stack.assert_stored(recording.count)


def test_a_gateway_that_ran_out_of_descriptors_goes_on_where_it_was(tmp_path: Path) -> None:
    """A run that begins meanwhile cannot even be opened."""
    with Recording(tmp_path, before=300) as recording, Stack(tmp_path) as stack, contextlib.ExitStack() as held:
        eventually(lambda: stack.position() > 300)
        resource.prlimit(stack.gateway.pid, resource.RLIMIT_NOFILE, (64, 64))
        for port, said in zip(stack.ports, (hostile.SUB, hostile.DEALER), strict=True):
            held.enter_context(hostile.crowd(port, 100, said))
        eventually(lambda: len(list(Path(f"/proc/{stack.gateway.pid}/fd").iterdir())) == 64)
        later = RunWriter(tmp_path / "journal", reading_run("0190a5f4-0000-7000-8000-000000000002"))
        held.callback(later.close)
        eventually(lambda: "Too many open files" in stack.log("gateway"))
        for index in range(20):
            later.append(reading(later.info, index))
        held.close()
        assert_served(stack)
        recording.end()
        stack.assert_stored(recording.count, 20)
        assert stack.gateway.poll() is None, stack.log("gateway")


def assert_served(stack: Stack) -> None:
    """Assert that who comes now gets what it asks for, and hears what is published."""
    with peer(zmq.DEALER, stack.catchup_port) as client:
        assert any(status.info.run_id == RUN.run_id for status in client.hello().runs)
        *records, done = client.fetch(Fetch(RUN.device, RUN.task, RUN.run_id, 0, 100, 1))
        assert len(records) == 100
        assert done == Done(RUN.run_id, 100, 1)
    with peer(zmq.SUB, stack.pub_port) as subscriber:
        subscriber.socket.subscribe(b"block/")
        assert isinstance(subscriber.next(), RunRecord)


def peak_memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
