"""What is larger than a message, or no text: it never silences a sink, and nothing beside it is lost."""

import logging
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from tests.e2e import commands
from tests.producer.acquired import acquire_all, config_of, events_of, readings_of
from tests.producer.bus import RunningGateway, free_ports
from tests.producer.looking import call
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus.bounds import MAX_RUN_BYTES
from dtolbus.client import Client, Endpoints
from dtolbus.errors import UsageError
from dtolbus.records import Channel, DaqEvent, DaqReading, ErrorInfo, Gap, Record, RunInfo
from dtolbus.runs import list_runs
from dtolbus.wire import MAX_HEADER_BYTES
from dtolbus_producer import journal as journals
from dtolbus_producer.boards import Fault, Readout
from dtolbus_producer.boards.sim import SimBoard, SimReadings
from dtolbus_producer.journal import RunWriter
from dtolbus_producer.lookingcli import check
from dtolbus_workers.sqlite_destination import SqliteDestination
from dtolbus_workers.verify import verify

MIB = 1 << 20
TEXTS = reading_run("0190a5f4-0000-7000-8000-000000000003", ("tc0", "note", "label"))
TABLE = "[" + ", ".join(f"[{x}, {x}]" for x in range(1000)) + "]"
MANY = ", ".join(f'{{ name = "y{n}", physical = 0, unit = "bar", table = {TABLE} }}' for n in range(40))


def write(data: Path, run: RunInfo, records: list[Record]) -> None:
    writer = RunWriter(data / "journal", run, sync_ms=1)
    for record in records:
        writer.append(record)
    writer.close()


def journaled(data: Path, run: RunInfo) -> list[Record | Gap]:
    (folder,) = [folder for folder in list_runs(data / "journal") if folder.info.run_id == run.run_id]
    with folder:
        return list(folder.records(0, folder.head()))


def store(data: Path, *kinds: str) -> None:
    """Let a worker of each kind store what the journal holds, to the end."""
    with RunningGateway(data) as gateway:
        at = gateway.endpoints
        for kind in kinds:
            place = data / f"{kind}.sqlite" if kind == "sqlite" else data / kind
            words = ["--connect", at.connect, "--catchup", str(at.catchup), "--out", str(place), "--until-end"]
            done = commands.run(f"dtolbus-{kind}", *words)
            assert done.returncode == 0, done.stderr[-2000:]


def values(note: object, label: object = "x") -> dict[str, Any]:
    return {"tc0": 20.5, "note": note, "label": label}


LARGE_READINGS = [
    reading(TEXTS, 0, values=values("fine")),
    reading(TEXTS, 1, values=values("x" * (2 * MIB))),
    reading(TEXTS, 2, values=values("a" * 400_000, "b" * 300_000)),
    reading(TEXTS, 3, values=values("fine"), error=ErrorInfo("builtins.OSError", "é" * MIB)),
    reading(TEXTS, 4, values=values("fine"), metadata={"log": "y" * (2 * MIB)}),
    reading(TEXTS, 5, values=values(10**5000)),
    event(TEXTS, 6, kind="sdk_error", message="ü" * MIB),
    reading(TEXTS, 7, values=values("fine")),
]


def test_what_of_a_record_is_too_large_is_told_and_all_else_is_stored(tmp_path: Path) -> None:
    run = block_run("0190a5f4-0000-7000-8000-000000000001")
    failed = block(run, 0, error=ErrorInfo("builtins.OSError", "z" * (2 * MIB)))
    write(tmp_path, run, [failed, block(run, 1)])
    write(tmp_path, TEXTS, LARGE_READINGS)
    store(tmp_path, "sqlite", "parquet", "csv", "jsonl")
    certificate = verify(tmp_path)
    assert certificate.complete, certificate
    assert {(line.stored, len(line.gaps), line.put_aside) for line in certificate.lines} == {(2, 0, 0), (8, 0, 0)}

    found = journaled(tmp_path, TEXTS)
    readings = {record.index: record for record in found if isinstance(record, DaqReading)}
    assert [readings[index].values["tc0"] for index in (0, 1, 2, 3, 5, 7)] == [20.5] * 6
    assert (readings[0].error, readings[7].error) == (None, None)
    assert readings[1].values == values(None)
    assert str(2 * MIB) in str(readings[1].error)
    assert "note" in str(readings[1].error)
    assert readings[2].values == values(None, "b" * 300_000)
    assert "[cut: 2097152 bytes]" in str(readings[3].error)
    assert (readings[3].values, readings[5].values) == (values("fine"), values(None))
    assert (readings[4].values, readings[4].metadata) == (values("fine"), {})
    assert str(readings[4].error).endswith(" bytes: metadata")
    (told,) = [record for record in found if isinstance(record, DaqEvent)]
    assert told.message.startswith("üüü")
    assert told.message.endswith("… [cut: 2097152 bytes]")


def test_lone_surrogates_are_stored_as_escapes(tmp_path: Path) -> None:
    records: list[Record] = [
        reading(TEXTS, 0, values=values("a\udcffb"), metadata={"\udc80": ["\udc81"]}),
        reading(TEXTS, 1, error=ErrorInfo("builtins.OSError", "no \udcff")),
        event(TEXTS, 2, message="lost \udcff"),
        reading(TEXTS, 3, values=values("fine")),
    ]
    write(tmp_path, TEXTS, records)
    store(tmp_path, "sqlite", "csv", "jsonl", "parquet")
    certificate = verify(tmp_path)
    assert certificate.complete, certificate
    first, second, lost, last = journaled(tmp_path, TEXTS)
    assert isinstance(first, DaqReading)
    assert isinstance(second, DaqReading)
    assert isinstance(lost, DaqEvent)
    assert first.values == values("a\\udcffb")
    assert first.metadata == {"\\udc80": ["\\udc81"]}
    assert (str(second.error), lost.message) == ("no \\udcff", "lost \\udcff")
    assert last == records[3]


def test_a_board_that_says_what_is_no_text_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poll(self: SimReadings, slot: int) -> Readout | Fault:
        if slot == 1:
            return Fault("sdk_error", "broken \udcff", 0, fatal=False)
        return Readout({"tc": "\udcff" if slot == 2 else "fine"})  # type: ignore[dict-item]  # boards of others do

    monkeypatch.setattr(SimReadings, "poll", poll)
    task = {
        "name": "t",
        "kind": "readings",
        "rate_hz": 200.0,
        "samples": 4,
        "channels": [{"name": "tc", "thermocouple": "K"}],
    }
    (run,) = acquire_all(config_of(task), tmp_path)
    assert run.status().state == "ended"
    assert [record.values["tc"] for record in readings_of(run)] == ["fine", "\\udcff", "fine"]
    assert [record.message for record in events_of(run) if record.kind == "sdk_error"] == ["broken \\udcff"]


TOO_LARGE = [
    (MANY, ""),
    ('"x"', f'[run]\nnotes = "{"x" * (2 * MIB)}"\n'),
]


@pytest.mark.parametrize(("channels", "more"), TOO_LARGE, ids=["tables", "run"])
def test_a_config_whose_run_header_no_message_holds_is_refused(
    tmp_path: Path, channels: str, more: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "dtolbus.toml"
    task = '[[device]]\nname = "rig"\n[[device.task]]\nname = "fast"\nrate_hz = 10\n'
    config.write_text(f"{task}channels = [{channels}]\n{more}")
    options = ("--config", str(config), "--data", str(tmp_path / "data"), "--sinks", "csv")
    ports = dict(zip(("--pub-port", "--catchup-port"), map(str, free_ports()), strict=True))
    options += tuple(word for pair in ports.items() for word in pair)
    checked = call(check, options, capsys)
    started = commands.run("dtolbus", "up", *options, "--duration", "5")
    assert (checked.code, started.returncode) == (2, 2), checked.err[-500:] + started.stderr[-500:]
    for said in (checked.err, started.stderr):
        assert said.count("\n") == 1
        assert str(MAX_RUN_BYTES) in said
        assert "fewer channels in the task, shorter tables, or less in [run]" in said
    assert list_runs(tmp_path / "data" / "journal") == []


def test_no_task_of_a_board_begins_where_one_of_them_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimBoard, "check", staticmethod(lambda device: None))
    fast = {"name": "fast", "rate_hz": 1000.0, "samples": 100, "channels": ["x"]}
    table = [[float(x), float(x)] for x in range(1000)]
    wide = [{"name": f"y{n}", "physical": 0, "unit": "bar", "table": table} for n in range(40)]
    config = config_of(fast, device={"task": [fast, {**fast, "name": "wide", "channels": wide}]})
    with pytest.raises(UsageError, match="dev/wide: the run's header"):
        acquire_all(config, tmp_path)
    assert list_runs(tmp_path / "journal") == []


def test_a_run_that_fits_is_announced_and_its_records_too(tmp_path: Path) -> None:
    run = large_run(MAX_RUN_BYTES - 1000)
    write(tmp_path, run, [event(run, 0, message="x" * MIB), *(block(run, index) for index in range(1, 4))])
    store(tmp_path, "sqlite")
    assert verify(tmp_path).complete
    with pytest.raises(UsageError, match=f"takes {MAX_RUN_BYTES + 1} bytes"):
        RunWriter(tmp_path / "journal", large_run(MAX_RUN_BYTES + 1))


def large_run(size: int, number: int = 1) -> RunInfo:
    """A run with a header of that many bytes."""
    run = block_run(f"0190a5f4-0000-7000-8000-00000000001{number}", meta={"note": "x" * 70_000})
    more = size - len(msgspec.msgpack.encode(run))
    return msgspec.structs.replace(run, meta={"note": "x" * (70_000 + more)})


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer as it was before there were bounds."""
    monkeypatch.setattr(journals, "storable", lambda record: record)
    monkeypatch.setattr(journals, "check_run", lambda run: None)


@pytest.mark.usefixtures("unbounded")
def test_of_an_old_journal_only_what_is_too_large_is_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIMEOUT_S", 30.0)  # a worker that waits for ever is what is to be seen
    texts = msgspec.structs.replace(TEXTS, channels=tuple(Channel(name) for name in ("tc0", "note", "label")))
    write(tmp_path, texts, [record for record in LARGE_READINGS if record.index != 5][:2])
    other, unheard = block_run("0190a5f4-0000-7000-8000-000000000001"), large_run(MAX_HEADER_BYTES + 1)
    write(tmp_path, unheard, [block(unheard, 0)])
    beyond = msgspec.structs.replace(block_run("0190a5f4-0000-7000-8000-000000000002"), meta={"serial": 10**26})
    write(tmp_path, beyond, [block(beyond, 0)])
    write(tmp_path, other, [block(other, index) for index in range(3)])
    with caplog.at_level(logging.WARNING):
        store(tmp_path, "sqlite")
    left_out = [record for record in caplog.records if "cannot hold its header" in str(getattr(record, "cause", ""))]
    names = [Path(record.run).name for record in left_out]  # type: ignore[attr-defined]
    assert sorted(names) == sorted([unheard.run_id, beyond.run_id])
    certificate = verify(tmp_path)
    found = {line.run_id: line for line in certificate.lines}
    assert not certificate.complete
    assert (found[texts.run_id].stored, len(found[texts.run_id].gaps)) == (1, 1)
    assert (found[other.run_id].stored, len(found[other.run_id].gaps)) == (3, 0)
    assert found[unheard.run_id].missing == 1
    stored = SqliteDestination.stored(str(tmp_path / "sqlite.sqlite"), {"blocks": "summary"}, texts)
    assert stored is not None
    (gap,) = stored.gaps
    assert (gap.from_index, gap.to_index) == (1, 2)
    assert "the record is larger than a message" in gap.cause


@pytest.mark.usefixtures("unbounded")
def test_up_does_not_wait_for_a_run_that_no_sink_can_have(tmp_path: Path) -> None:
    unheard = large_run(MAX_HEADER_BYTES + 1)
    write(tmp_path, unheard, [block(unheard, 0)])
    ports = [
        word for pair in zip(("--pub-port", "--catchup-port"), map(str, free_ports()), strict=True) for word in pair
    ]
    done = commands.run("dtolbus", "up", "--data", str(tmp_path), "--duration", "0.5", "--sinks", "csv", *ports)
    assert done.returncode == 0, done.stderr
    assert "makes no progress" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "run left out: its header is larger" in line]


def waits(caplog: pytest.LogCaptureFixture) -> list[float]:
    """How long a client waited before each new connection."""
    return [record.after_s for record in caplog.records if record.message == "catch-up connects anew"]  # type: ignore[attr-defined]


def test_a_gateway_that_answers_what_cannot_be_read_is_asked_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pub, catchup = free_ports()
    context, stop = zmq.Context(), threading.Event()
    router = context.socket(zmq.ROUTER)
    router.bind(f"tcp://127.0.0.1:{catchup}")

    def answer() -> None:
        while not stop.is_set():
            if router.poll(50):
                router.send_multipart([router.recv_multipart()[0], b"control/", bytes(MAX_HEADER_BYTES + 1)])

    thread = threading.Thread(target=answer)
    thread.start()
    client = Client(Endpoints(f"tcp://127.0.0.1:{pub}", f"tcp://127.0.0.1:{catchup}"))

    try:
        with caplog.at_level(logging.INFO):
            while len(waits(caplog)) < 4:
                client.receive(0.05)
    finally:
        client.close()
        stop.set()
        thread.join()
        router.close(linger=0)
        context.term()
    assert waits(caplog) == [0.25, 0.5, 1.0, 2.0]
