"""Connections that die without a word: no FIN, no RST, only silence. Everything is stored all the same."""

import subprocess
from pathlib import Path

import pytest
from tests.faults.netns import network
from tests.faults.recording import Recording, Stack
from tests.producer.bus import eventually


def test_connections_that_fall_silent_are_made_anew_and_nothing_is_missing(tmp_path: Path) -> None:
    """All packets are dropped for longer than a SUB waits; then new connections work, the old ones never again."""
    with network() as net, Recording(tmp_path) as recording, Stack(tmp_path, within=net.within) as stack:
        eventually(lambda: stack.position() > 100)
        old = net.clients(*stack.ports)
        assert len(old) == 2
        net.drop(stack.ports)
        before = recording.count
        eventually(lambda: "nothing heard, trying on" in stack.log("worker"))
        net.drop(old)
        eventually(lambda: stack.position() > before + 100)
        recording.end()
        stack.assert_stored(recording.count)


@pytest.mark.soak
def test_a_catch_up_that_falls_silent_in_the_middle_of_a_fetch_is_asked_again(tmp_path: Path) -> None:
    slow = ("--catchup-mb-s", "0.5")
    with network() as net, Recording(tmp_path, 5000) as recording, Stack(tmp_path, *slow, within=net.within) as stack:
        eventually(lambda: 100 < stack.position() < 3000)
        old = net.clients(stack.catchup_port)
        net.drop([stack.catchup_port])
        eventually(lambda: "catch-up connects anew" in stack.log("worker"))
        net.drop(old)
        recording.end()
        stack.assert_stored(recording.count)


@pytest.mark.soak
@pytest.mark.parametrize("again", [False, True])
def test_a_live_path_that_falls_silent_alone(tmp_path: Path, again: bool) -> None:
    """The old connection comes back, or never again."""
    with network() as net, Recording(tmp_path) as recording, Stack(tmp_path, within=net.within) as stack:
        eventually(lambda: stack.position() > 100)
        old = net.clients(stack.pub_port)
        net.drop([stack.pub_port])
        before = recording.count
        eventually(lambda: "nothing heard, trying on" in stack.log("worker"))
        net.drop([] if again else old)
        eventually(lambda: stack.position() > before + 100)
        recording.end()
        stack.assert_stored(recording.count)


@pytest.mark.soak
def test_a_gateway_that_is_away_for_long(tmp_path: Path) -> None:
    """The worker tries on for as long as it takes, and says once that it hears nothing."""
    with network() as net, Recording(tmp_path) as recording, Stack(tmp_path, within=net.within) as stack:
        eventually(lambda: stack.position() > 100)
        net.drop(stack.ports)
        with pytest.raises(subprocess.TimeoutExpired):
            stack.worker.wait(45)  # what is waited for is that nothing happens
        assert stack.log("worker").count("nothing heard") == 1
        before = recording.count
        net.drop([])
        eventually(lambda: stack.position() > before)
        recording.end()
        stack.assert_stored(recording.count)
