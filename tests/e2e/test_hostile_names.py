"""Names from outside lead nowhere: whatever a gateway calls its runs, a sink writes into its own folder only."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.forging import forged, renamed
from tests.fuzz.places import inside
from tests.protocol.specimens import block, block_run, event

from dtolbus import topics, wire
from dtolbus.client import Client, Endpoints
from dtolbus.parquet.places import run_folder
from dtolbus.records import RunInfo, RunStatus
from dtolbus.registrations import registration_path
from dtolbus.runs import run_path
from dtolbus_producer.sinkplaces import default_place
from dtolbus_workers.registry import destination_class
from dtolbus_workers.text_folder import stream_folder
from dtolbus_workers.text_run import file_name
from dtolbus_workers.worker import WorkerConfig, run_worker

RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
LEADING_OUT = ("..", ".", "../../escaped", "/tmp/escaped", "..\\..\\escaped", "C:\\escaped", "~", "a/../../escaped")
ODD = (
    *LEADING_OUT,
    *(
        "CON",
        "con.txt",
        "NUL",
        "COM1",
        "a:b",
        "a:$DATA",
        "trailing...",
        "trailing ",
        " ",
        "ｄｔ１",
        "dt1/",
        "Ａ/．．/",
        "‥",
        "∕etc",
    ),
    *("%2e%2e", "%2F", "%", "*", "?", "[a]", '"; drop table samples; --', "'", "=1+1", "-rf", "🦆", "é", "e\u0301"),
)
IMPOSSIBLE = ("", "\0", "a\0b", "a\nb", "\x1b[2J", "dt1\u202egpj", "x" * 221, "ü" * 60)


class HostileGateway:
    """Tells of one good run, and of the same records under whatever names it was given."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._pub = self._context.socket(zmq.PUB)
        self.ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in (self._pub, self._router)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "HostileGateway":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._publish()
            if self._router.poll(20):
                peer, *frames = self._router.recv_multipart()
                for answer in self._answers(wire.decode(frames)):
                    self._router.send_multipart([peer, *answer])

    def _publish(self) -> None:
        for message in self._records(RUN):
            self._pub.send_multipart(renamed(message, **self._names))
        self._pub.send_multipart(renamed(wire.Heartbeat(RunStatus(RUN, "ended", 0, 3)), **self._names))

    def _answers(self, asked: wire.Message) -> Iterator[list[bytes]]:
        if isinstance(asked, wire.Hello):
            welcome = wire.Welcome((RunStatus(RUN, "ended", 0, 3),), 1000, 1.0, number=asked.number)

            def under_other_names(fields: list[Any]) -> None:
                fields[2][0][0]["info"].update(self._names)
                fields[2][3] = True

            if not any(map(topics.name_fault, self._names.values())):  # else it is asked for anew, for ever
                yield forged(welcome, under_other_names)
            yield forged(welcome, lambda fields: None)
        elif isinstance(asked, wire.Fetch):
            names = {} if asked.run_id == RUN.run_id else self._names
            for message in self._records(RUN)[asked.from_index : asked.to_index]:
                yield renamed(message, **names)
            yield forged(wire.Done(asked.run_id, asked.to_index, asked.number), lambda fields: None)

    def _records(self, run: RunInfo) -> list[wire.Message]:
        return [wire.RunRecord(run, record) for record in (block(run, 0), event(run, 1), block(run, 2))]


def stored(kind: str, out: Path, names: dict[str, str]) -> None:
    options = {} if kind == "parquet" else {"blocks": "samples"}
    place = out / "lab.sqlite" if kind == "sqlite" else out
    with HostileGateway(names) as gateway:
        at = Endpoints(*(f"tcp://127.0.0.1:{port}" for port in gateway.ports))
        config = WorkerConfig("lab", at, str(place), until_end=True)
        asyncio.run(
            asyncio.wait_for(run_worker(destination_class(kind)(place, **options), config, threading.Event()), 60)
        )
    found = destination_class(kind).stored(str(place), options, RUN)
    assert found is not None
    assert found.position.next == 3
    assert len(list(found.blocks)) == 2


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder deep enough that whatever climbs out of it is seen."""
    folder = tmp_path / "a" / "b" / "c" / "d" / "out"
    folder.mkdir(parents=True)
    yield folder
    for path in (*tmp_path.rglob("*"), *Path("/tmp").glob("escaped*")):
        assert path.is_relative_to(folder) or folder.is_relative_to(path), path


@pytest.mark.parametrize("name", ["../../escaped", "a/../../../../../escaped", "/tmp/escaped", "a\0b", "x" * 5000])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "sqlite"])
def test_a_hostile_gateway_writes_nowhere_and_keeps_no_good_run_back(kind: str, name: str, out: Path) -> None:
    stored(kind, out, {"device": name, "task": name, "run_id": name})


def test_each_odd_name_is_stored_in_its_place(out: Path) -> None:
    for place, name in enumerate((*ODD, *IMPOSSIBLE)):
        stored("csv", out / str(place), {"device": name, "run_id": "0190a5f4-0000-7000-8000-000000000002"})
        marked = list((out / str(place)).glob("*/*/*.position.json"))
        for path in marked:
            inside(out / str(place), path, depth=3)
        assert bool(name in ODD) == any(path.parts[-3] != topics.quote(RUN.device) for path in marked)


names = st.one_of(st.sampled_from((*ODD, *IMPOSSIBLE)), st.text(max_size=250))


@settings(max_examples=300, deadline=None)
@given(device=names, task=names, run_id=names, sink=names)
def test_no_name_makes_a_path_but_its_own(device: str, task: str, run_id: str, sink: str) -> None:
    root = Path("/data")
    with contextlib.suppress(ValueError):
        run = msgspec.structs.replace(RUN, device=device, task=task, run_id=run_id)
        for ending in ("position.json", "2.csv", "put-aside.jsonl"):
            inside(root, stream_folder(root, run) / file_name(run, ending), depth=3)
        inside(root, run_folder(root, run), depth=3)
        inside(root, run_path(root, device, task, run_id), depth=3)
    if not topics.name_fault(sink):
        inside(root, registration_path(root, sink), depth=2)
        for kind in ("csv", "parquet", "sqlite", "jsonl"):
            inside(root, root / default_place(kind, sink), depth=1)


@given(one=names, other=names)
def test_two_names_never_make_one_path(one: str, other: str) -> None:
    if one and other and one != other:
        assert topics.quote(one) != topics.quote(other)
        assert topics.unquote(topics.quote(one)) == one


def test_nonsense_without_end_keeps_nobody_from_the_rest() -> None:
    context, stop, backlog = zmq.Context(), threading.Event(), threading.Event()
    pub = context.socket(zmq.PUB)
    port = pub.bind_to_random_port("tcp://127.0.0.1")
    client = Client(Endpoints(f"tcp://127.0.0.1:{port}"))
    heard = threading.Event()

    def flood() -> None:
        sent = 0
        while not stop.is_set():
            pub.send_multipart([b"block/x/y/", b"%d" % sent, *[b""] * 9])
            sent += heard.is_set()
            if sent > 20_000:
                backlog.set()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        while not client.foreign:
            client.receive(1.0)
        heard.set()
        assert backlog.wait(60)
        for _ in range(50):
            before = client.foreign.total()
            assert client.receive(1.0) == []
            assert client.foreign.total() - before <= 256
        assert len(client.foreign) <= 101
    finally:
        stop.set()
        thread.join()
        client.close()
        context.destroy(linger=0)
