"""Subscribers: live, from the beginning, in a plain loop, in an async one, and with nothing else installed."""

import asyncio
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.e2e.commands import environment, run, running
from tests.producer.bus import RunningGateway, eventually
from tests.protocol.specimens import block, block_run, event

from dtolbus import DaqBlock, DaqEvent, Subscriber, catchup
from dtolbus import listen as listening
from dtolbus.client import Client
from dtolbus.errors import UsageError
from dtolbus.sequencer import Arrived
from dtolbus_producer.journal import RunWriter

ROOT = Path(__file__).parents[2]
RUN = block_run("0190a5f4-0000-7000-8000-000000000001")


@contextmanager
def journaled(data: Path, count: int) -> Iterator[RunWriter]:
    """A run with so many blocks, still being written."""
    writer = RunWriter(data / "journal", RUN)
    try:
        for index in range(count):
            writer.append(block(RUN, index))
        eventually(lambda: writer.head == count)
        yield writer
    finally:
        writer.close()


def url(port: int) -> str:
    return f"tcp://127.0.0.1:{port}"


def test_with_catch_up_it_begins_at_the_beginning_and_misses_nothing(tmp_path: Path) -> None:
    with journaled(tmp_path, 700) as writer, RunningGateway(tmp_path) as gateway:
        got = []
        with Subscriber(url(gateway.pub_port), catchup=url(gateway.catchup_port)) as subscriber:
            for record in subscriber:
                got.append(record)
                if len(got) == 700:
                    for index in range(700, 720):
                        writer.append(block(RUN, index))
                if len(got) == 720:
                    break
    assert [record.index for record in got] == list(range(720))
    for record in got:
        assert isinstance(record, DaqBlock)
        assert np.array_equal(record.raw_codes, block(RUN, record.index).raw_codes)  # type: ignore[arg-type]
    assert subscriber.gaps == []


def test_live_it_begins_with_the_next_record(tmp_path: Path) -> None:
    with journaled(tmp_path, 50) as writer, RunningGateway(tmp_path) as gateway:
        heard = threading.Event()
        got: list[int] = []

        async def listen() -> None:
            subscriber = Subscriber(url(gateway.pub_port), events=True)
            async for record in subscriber:
                got.append(record.index)
                heard.set()
                if isinstance(record, DaqEvent):
                    break

        thread = threading.Thread(target=lambda: asyncio.run(listen()))
        thread.start()
        index = 50
        while not heard.wait(0.02) and index < 2000:  # it joins when it joins
            writer.append(block(RUN, index))
            index += 1
        writer.append(event(RUN, index))
        thread.join(30)
        assert not thread.is_alive()
    assert got[0] >= 50
    assert got == list(range(got[0], index + 1))


def test_a_subscriber_that_is_closed_in_the_loop_begins_anew(tmp_path: Path) -> None:
    with journaled(tmp_path, 100), RunningGateway(tmp_path) as gateway:
        subscriber = Subscriber(url(gateway.pub_port), catchup=url(gateway.catchup_port))
        records = iter(subscriber)
        for index in range(20):
            assert next(records).index == index
        subscriber.close()
        assert [next(records).index for _ in range(3)] == [0, 1, 2]
        subscriber.close()


class SlowReader(Client):
    """A client whose reader may take long: `took_s` is added to what the catch-up connection takes for the time."""

    took_s = 0.0

    def taken(self) -> list[int]:
        """The indexes of the records that came."""
        return [item.record.index for item in self.receive(0.01) if isinstance(item, Arrived)]


@pytest.fixture
def slow_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowReader]:
    """One of a run of 400 blocks."""
    with journaled(tmp_path, 400), RunningGateway(tmp_path) as gateway:
        client = SlowReader(gateway.endpoints)
        monkeypatch.setattr(catchup, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + client.took_s))
        yield client
        client.close()


def test_a_reader_who_takes_long_is_sent_nothing_twice(slow_reader: SlowReader) -> None:
    got: list[int] = []

    def is_all() -> bool:
        taken = slow_reader.taken()
        got.extend(taken)
        slow_reader.took_s += 10.0 if taken else 0.0
        return len(got) >= 400

    eventually(is_all)
    assert got == list(range(400))
    assert slow_reader.reconnects == 0


def test_an_answer_that_waits_is_no_silence(slow_reader: SlowReader) -> None:
    assert slow_reader.receive(0.0) == []
    assert slow_reader._catchup is not None
    eventually(slow_reader._catchup._has_answer)
    slow_reader.took_s = 10.0
    eventually(lambda: bool(slow_reader.taken()))
    assert slow_reader.reconnects == 0


def test_topics_choose_streams(tmp_path: Path) -> None:
    with journaled(tmp_path, 10), RunningGateway(tmp_path) as gateway:
        at = url(gateway.pub_port), url(gateway.catchup_port)
        with Subscriber(at[0], catchup=at[1], topics=["reading/"]) as nothing:
            assert nothing.receive(1.0) == []
        with Subscriber(at[0], catchup=at[1], topics=["block/dt9806/"]) as blocks:
            assert next(iter(blocks)).index == 0


def test_listen_shows_what_arrives_and_says_where_nothing_does(tmp_path: Path) -> None:
    with journaled(tmp_path, 10), RunningGateway(tmp_path) as gateway:
        at = ["listen", url(gateway.pub_port), "--catchup", url(gateway.catchup_port), "--duration", "3"]
        shown = run("dtolbus", *at)
    assert shown.returncode == 0
    assert re.search(r"dt9806/vibration +record +9 .*samples/s .*lag .* lost 0 .*2 channels × 10 samples", shown.stdout)
    silent = run("dtolbus", "listen", url(gateway.pub_port))
    assert silent.returncode == 3
    assert silent.stderr.startswith(f"dtolbus: nothing heard from {url(gateway.pub_port)} in 5 s: is a gateway running")
    assert silent.stderr.count("\n") == 1


def test_listen_on_the_catch_up_port_says_so(tmp_path: Path) -> None:
    with RunningGateway(tmp_path) as gateway:
        told = run("dtolbus", "listen", url(gateway.catchup_port), "--duration", "0.3")
    assert (told.returncode, told.stderr.count("\n")) == (3, 1)
    assert "that is a gateway's catch-up port; name its port of live records instead" in told.stderr


def test_where_no_handshake_comes_to_be_a_listener_without_a_key_is_told_of_keys() -> None:
    """A gateway that asks for keys often hides, on a busy machine, that this is why it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        told = run("dtolbus", "listen", url(server.getsockname()[1]))
        server.shutdown(socket.SHUT_RDWR)
    assert (told.returncode, told.stderr.count("\n")) == (3, 1)
    assert "ask for a key (" in told.stderr


@pytest.mark.parametrize("topic", ["rig", "blocks/rig/", "", "block/a/b/c/d"])
def test_a_topic_that_can_match_nothing_is_refused(topic: str) -> None:
    with pytest.raises(UsageError, match="is not like block/, reading/, block/DEVICE/ or block/DEVICE/TASK/"):
        Subscriber("tcp://127.0.0.1:9", topics=["reading/", topic])


def test_listen_tells_that_a_gateway_fell_silent_and_that_it_is_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_SILENT_S", 1.0)
    said: list[str] = []
    stop = threading.Event()
    with journaled(tmp_path, 10), ExitStack() as held:
        with RunningGateway(tmp_path) as gateway:
            at = url(gateway.pub_port)
            subscriber = held.enter_context(Subscriber(at, catchup=url(gateway.catchup_port)))
            thread = threading.Thread(target=listening.listen, args=(subscriber, said.append, stop.is_set, 20.0))
            thread.start()
            held.callback(thread.join)
            held.callback(stop.set)
            eventually(lambda: any("record " in line for line in said))
        away = f"nothing heard from {at} for 1 s: the gateway or the network is away; trying on"
        eventually(lambda: said[-1] == away)
        again = RunningGateway(tmp_path)
        again.pub_port, again.catchup_port = gateway.pub_port, gateway.catchup_port
        held.enter_context(again)
        eventually(lambda: said[-1] == f"{at} is heard again")
    assert said.count(away) == 1


@pytest.fixture(scope="module")
def lone_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that holds `dtolbus` and what it needs, nothing else of ours."""
    uv = os.environ.get("UV", "uv")
    place = tmp_path_factory.mktemp("lone") / "venv"
    for words in ([uv, "venv", str(place)], [uv, "pip", "install", "--python", str(place), str(ROOT / "protocol")]):
        subprocess.run(words, check=True, capture_output=True, cwd=place.parent)
    return place / ("Scripts" if os.name == "nt" else "bin")


def test_a_remote_machine_needs_dtolbus_alone(lone_environment: Path, tmp_path: Path) -> None:
    with journaled(tmp_path, 10), RunningGateway(tmp_path) as gateway:
        at = [url(gateway.pub_port), "--catchup", url(gateway.catchup_port), "--duration", "3"]
        listening = subprocess.run(
            [lone_environment / "dtolbus", "listen", *at], capture_output=True, text=True, env=environment(), timeout=60
        )
    assert "dt9806/vibration" in listening.stdout, listening.stderr
    helped = subprocess.run([lone_environment / "dtolbus", "--help"], capture_output=True, text=True, timeout=60)
    assert "listen" in helped.stdout
    assert "verify" not in helped.stdout


def test_the_readmes_ten_lines_plot_a_channel(tmp_path: Path) -> None:
    """As they stand there, but for the port, with a stand-in for matplotlib that notes what is plotted."""
    (program,) = re.findall(r"```python\n(import matplotlib.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 14
    noted: list[tuple[str, object]] = []

    class Plot:
        def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
            return lambda value: noted.append((name, value))

    data, config = tmp_path / "data", tmp_path / "dtolbus.toml"
    config.write_text(
        '[[device]]\nname = "sim0"\n[[device.task]]\nname = "vibration"\nrate_hz = 10_000\nchannels = ["ai0", "ai1"]\n'
    )
    data.mkdir()
    with RunningGateway(data) as gateway:
        program = program.replace("import matplotlib.pyplot as plt\n", "").replace(":5601", f":{gateway.pub_port}")
        finished = threading.Thread(target=lambda: exec(program, {"plt": Plot()}))
        finished.start()
        options = ["--config", str(config), "--duration", "30", "--data", str(data)]
        with running("dtolbus-producer", "run", *options):
            finished.join(30)
        assert not finished.is_alive()
    names = [name for name, _ in noted]
    assert names == ["plot", "ylabel", "savefig"]
    assert len(noted[0][1]) >= 5000  # type: ignore[arg-type]
    assert noted[1][1] == "ai0 [V]"
