"""A gateway among peers that mean no good: the sinks get everything, its memory stays bounded, others are served."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.stacks import KILL, Up, assert_complete, runs
from tests.faults import hostile
from tests.faults.recording import RUN, Recording, Stack
from tests.producer.bus import eventually, free_ports
from tests.protocol.specimens import reading, reading_run

from dtolbus.records import DaqEvent, Gap
from dtolbus.sequencer import Arrived
from dtolbus.subscriber import Subscriber
from dtolbus_producer.journal import RunWriter

if sys.platform != "linux":
    pytest.skip("what a process takes is read from /proc", allow_module_level=True)
import resource

MOST_MB = {"endless_messages": 300}
"""Of a gateway's memory; it needs 50 in peace, and at most 150 under the other attacks."""
LIMIT = 512
"""Of descriptors: half are for peers, and the kernel holds up to 100 for each port that are taken in beyond that."""


@pytest.mark.parametrize(
    ("attacks", "seconds"),
    [
        pytest.param(list(hostile.ATTACKS), 1.0, id="all"),
        *(pytest.param([name], 10.0, id=name, marks=pytest.mark.soak) for name in hostile.ATTACKS),
    ],
)
def test_the_gateway_lives_within_bounds_and_the_worker_gets_everything(
    tmp_path: Path, attacks: list[str], seconds: float
) -> None:
    with Recording(tmp_path, before=300) as recording, Stack(tmp_path) as stack:
        eventually(lambda: stack.position() > 300)
        for name in attacks:
            hostile.ATTACKS[name](target(stack), seconds, lambda _: goes_on(stack))
            assert stack.gateway.poll() is None, f"{name}: {stack.log('gateway')}"
            peak_mb = peak_memory_mb(stack.gateway.pid)
            assert peak_mb < MOST_MB.get(name, 150), f"{name}: the gateway has taken {peak_mb:.0f} MB"
        after = recording.count
        assert_served(stack)
        eventually(lambda: stack.position() > after)
        recording.end()
        stack.assert_stored(recording.count)


def test_a_gateway_that_ran_out_of_descriptors_goes_on_where_it_was(tmp_path: Path) -> None:
    """A run that begins meanwhile cannot even be found."""
    with Recording(tmp_path, before=300) as recording, Stack(tmp_path) as stack, contextlib.ExitStack() as held:
        eventually(lambda: stack.position() > 300)
        before = resource.prlimit(stack.gateway.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(stack.gateway.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        later = held.enter_context(later_run(tmp_path))
        eventually(lambda: "run cannot be read" in stack.log("gateway"))
        resource.prlimit(stack.gateway.pid, resource.RLIMIT_NOFILE, before)
        for index in range(20):
            later.append(reading(later.info, index))
        held.close()
        assert_served(stack)
        recording.end()
        stack.assert_stored(recording.count, 20)
        assert stack.gateway.poll() is None, stack.log("gateway")


def test_a_crowd_leaves_descriptors_for_the_journal(tmp_path: Path) -> None:
    """A run that begins meanwhile is stored while the crowd is there."""
    with Recording(tmp_path, before=300) as recording, Stack(tmp_path) as stack, contextlib.ExitStack() as held:
        eventually(lambda: stack.position() > 300)
        resource.prlimit(stack.gateway.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        for port, said in zip(stack.ports, (hostile.SUB, hostile.DEALER), strict=True):
            held.enter_context(hostile.crowd(port, LIMIT, said))
        eventually(lambda: "nobody new is let in" in stack.log("gateway"))
        with later_run(tmp_path) as later:
            for index in range(20):
                later.append(reading(later.info, index))
            eventually(lambda: stack.position_in(later.info.run_id) == 20)
        goes_on(stack)
        held.close()
        assert_served(stack)
        recording.end()
        stack.assert_stored(recording.count, 20)
        assert stack.gateway.poll() is None, stack.log("gateway")


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("hellos", 3.0),
        *(pytest.param(name, 10.0, id=f"{name}-long", marks=pytest.mark.soak) for name in hostile.ATTACKS),
    ],
)
def test_a_gateway_that_is_killed_under_attack_costs_the_acquisition_nothing(
    tmp_path: Path, name: str, seconds: float
) -> None:
    ports = free_ports()
    with Up(tmp_path / "data", "--sinks", "sqlite", ports=ports) as up:
        before = up.wait_for_pids("gateway", "acquisition-sim0", "acquisition-sim1")
        up.wait_for_positions(1, ("sqlite",))
        eventually(lambda: list((up.data / "journal" / "sim0").glob("*/*/run.json")))  # the position may be sim1's
        nice = {name: os.getpriority(os.PRIO_PROCESS, pid) for name, pid in before.items()}
        assert nice["acquisition-sim0"] <= nice["sink-sqlite"] < nice["gateway"]
        run = runs(up.data)["sim0"][0].info
        with hostile.attacking(name, hostile.Target(*ports, run.device, run.task, run.run_id), seconds) as attacker:
            while attacker.poll() is None:
                gateway = up.pids().get("gateway")
                if gateway is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(gateway, KILL)
                    up.wait_for_pids("gateway", other_than={"gateway": gateway})
                attacker_ends(attacker, within_s=1.0)
            assert attacker.returncode == 0
        after = up.wait_for_pids("gateway")
        assert after | {"gateway": 0} == before | {"gateway": 0}
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
        for folder in (folder for folders in runs(up.data).values() for folder in folders):
            with folder:
                found = list(folder.records(0, folder.head()))
            assert not [record for record in found if isinstance(record, DaqEvent | Gap)]


def attacker_ends(attacker: "subprocess.Popen[str]", within_s: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        attacker.wait(within_s)


@contextlib.contextmanager
def later_run(data: Path) -> Iterator[RunWriter]:
    writer = RunWriter(data / "journal", reading_run("0190a5f4-0000-7000-8000-000000000002"))
    try:
        yield writer
    finally:
        writer.close()


def target(stack: Stack) -> hostile.Target:
    return hostile.Target(*stack.ports, RUN.device, RUN.task, RUN.run_id)


def goes_on(stack: Stack) -> None:
    before = stack.position()
    eventually(lambda: stack.position() > before + 50)


def assert_served(stack: Stack) -> None:
    """Assert that who comes now gets a run from its start up to what is new, and hears what is published.

    It asks again where it is cut off, as every client does: what an attack sent may be taken in after its end.
    """
    live, catchup = (f"tcp://127.0.0.1:{port}" for port in stack.ports)
    new = stack.position()
    with Subscriber(live, catchup=catchup) as subscriber:
        assert heard(subscriber, more_than=new) == list(range(new + 1))
    with Subscriber(live) as subscriber:
        assert heard(subscriber, more_than=0)


def heard(subscriber: Subscriber, more_than: int) -> list[int]:
    """Return the indexes of the first records of the run that it receives, one more than so many."""
    indexes: list[int] = []

    def has_more() -> bool:
        items = (item for item in subscriber.receive(0.1) if isinstance(item, Arrived))
        indexes.extend(item.record.index for item in items if item.run.run_id == RUN.run_id)
        return len(indexes) > more_than

    eventually(has_more)
    return indexes[: more_than + 1]


def peak_memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
