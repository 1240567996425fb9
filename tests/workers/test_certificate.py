"""The certificate: whatever a sink has missing, doubled or changed is found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus.manifest import DELETED
from dtolbus.records import Gap
from dtolbus_workers.certificate import Certificate, Line, compare
from dtolbus_workers.certificate_text import as_text
from dtolbus_workers.columns import block_summary
from dtolbus_workers.destination import Position, Stored, StoredAside, StoredBlock, StoredEvent, StoredReading

RUN = block_run()
JOURNAL = [block(RUN, 0), block(RUN, 1), event(RUN, 2), block(RUN, 3)]
READINGS = reading_run()
GONE = "{count} records missing for good: the journal does not have them any more"
EVENT = StoredEvent(2, 20, "1970-01-01T00:00:00+00:00", "overrun", "the board overran")


def stored_blocks() -> list[StoredBlock]:
    return [
        StoredBlock(b.index, b.first_sample_index, b.data.copy(), block_summary(b))
        for b in (JOURNAL[0], JOURNAL[1], JOURNAL[3])  # type: ignore[union-attr]
    ]


def line_for(blocks: list[StoredBlock], **fields: Any) -> Line:
    settings: dict[str, Any] = {"position": Position(4, 1), "gaps": [], "events": [EVENT], "put_aside": []}
    stored = Stored(blocks=iter(blocks), readings=iter(()), **{**settings, **fields})
    line = Line("sink", "d/t", "run", "ended", 4)
    compare(line, iter(JOURNAL), stored, "parquet")
    return line


def test_a_sink_that_equals_the_journal_is_complete() -> None:
    line = line_for(stored_blocks())
    assert line.complete
    assert (line.expected, line.stored, line.backfilled, line.samples) == (4, 4, 1, 60)


def a_bit_of_a_value(blocks: list[StoredBlock]) -> None:
    assert blocks[1].values is not None
    blocks[1].values[1, 4] = np.nextafter(blocks[1].values[1, 4], np.inf)


def a_summary(blocks: list[StoredBlock]) -> None:
    assert blocks[1].summary is not None
    blocks[1] = blocks[1]._replace(summary={**blocks[1].summary, "max": "[0.0,0.0]"})


def a_sample_less(blocks: list[StoredBlock]) -> None:
    assert blocks[2].values is not None
    blocks[2] = blocks[2]._replace(values=blocks[2].values[:, :-1])


@pytest.mark.parametrize("change", [a_bit_of_a_value, a_summary, a_sample_less])
def test_a_changed_block_is_found(change: Callable[[list[StoredBlock]], None]) -> None:
    blocks = stored_blocks()
    change(blocks)
    line = line_for(blocks)
    assert (line.different, line.complete) == (1, False)


def test_missing_doubled_and_foreign_records_are_found() -> None:
    blocks = stored_blocks()
    assert line_for(blocks[:-1]).missing == 1
    assert line_for(stored_blocks(), events=[]).missing == 1
    doubled = line_for([blocks[0], *stored_blocks()])
    assert (doubled.duplicates, doubled.missing, doubled.complete) == (1, 0, False)
    foreign = line_for([*stored_blocks(), blocks[0]._replace(block_index=9)])
    assert "1 records that the journal does not have" in foreign.remarks


@pytest.mark.parametrize(
    ("sink", "mode", "lacks", "missing"),
    [
        ("sqlite", "both", {"values": None}, 1),
        ("sqlite", "both", {"summary": None}, 1),
        ("sqlite", "samples", {"values": None}, 1),
        ("sqlite", "samples", {"summary": None}, 0),
        ("postgres", "summary", {"summary": None}, 1),
        ("postgres", "summary", {"values": None}, 0),
        ("parquet", None, {"values": None}, 1),
        ("parquet", None, {"summary": None}, 0),
    ],
)
def test_a_block_is_stored_when_all_of_it_is_that_the_sink_stores(
    sink: str, mode: str | None, lacks: dict[str, Any], missing: int
) -> None:
    blocks = stored_blocks()
    blocks[1] = blocks[1]._replace(**lacks)
    stored = Stored(Position(4, 0), [], [EVENT], [], iter(blocks), iter(()))
    line = Line("sink", "d/t", "run", "ended", 4)
    compare(line, iter(JOURNAL), stored, sink, blocks_mode=mode)
    assert (line.missing, line.complete) == (missing, not missing)


@pytest.mark.parametrize(
    "change",
    [{"sample_index": 21}, {"t_utc": "1970-01-01T00:00:01+00:00"}, {"kind": "sensor"}, {"message": "it did not"}],
)
def test_a_changed_event_is_found(change: dict[str, Any]) -> None:
    line = line_for(stored_blocks(), events=[EVENT._replace(**change)])
    assert (line.different, line.remarks) == (1, ["event 2 differs from the journal"])


def test_an_event_doubled_or_too_many_is_found() -> None:
    assert line_for(stored_blocks(), events=[EVENT, EVENT]).duplicates == 1
    surplus = line_for(stored_blocks(), events=[EVENT, EVENT._replace(record_index=1)])
    assert surplus.remarks == ["1 records that the journal does not have"]


@pytest.mark.parametrize("position", [3, 5])
def test_a_position_that_is_not_the_end_of_what_is_stored_is_found(position: int) -> None:
    line = line_for(stored_blocks(), position=Position(position, 0))
    assert line.remarks == [f"its position is {position}, what it holds ends at 4"]


def test_what_the_reader_remarks_is_told() -> None:
    line = line_for(stored_blocks(), remarks=["the run's header is not there"])
    assert (line.remarks, line.complete) == (["the run's header is not there"], False)


def test_a_gap_where_the_journal_has_the_record_is_missing() -> None:
    line = line_for([stored_blocks()[0], stored_blocks()[2]], gaps=[Gap(1, 2, "damaged in the journal")])
    assert (line.missing, line.remarks) == (1, ["gap 1, which the journal has"])


def test_what_a_damaged_journal_cannot_give_any_more_is_the_sinks_and_is_not_compared() -> None:
    stored = Stored(Position(4, 0), [], [EVENT], [], iter(stored_blocks()), iter(()))
    line = Line("sink", "d/t", "run", "ended", 4)
    compare(line, iter([JOURNAL[0], Gap(1, 3, "damaged in the journal"), JOURNAL[3]]), stored, "parquet")
    assert (line.stored, line.unreadable, line.missing, line.remarks) == (4, 2, 0, [])
    assert line.complete


@pytest.mark.parametrize(
    ("blocks", "has_no_room", "told"),
    [
        (3, False, []),
        (0, False, ["1 records missing; `dtolbus up --catch-up`, or the start of its worker, fills them in", GONE]),
        (
            0,
            True,
            [
                "1 records missing; make room first, then `dtolbus up --catch-up`, or the start of its worker, "
                "fills them in",
                GONE,
            ],
        ),
        (1, False, [GONE]),
    ],
)
def test_only_what_the_journal_still_has_is_said_to_be_filled_in(
    blocks: int, has_no_room: bool, told: list[str]
) -> None:
    """The journal has the records 0 and 2, and not 1 and 3 any more."""
    stored = Stored(Position(4, 0), [], [EVENT], [], iter(stored_blocks()[:blocks]), iter(()))
    line = Line("sink", "d/t", "run", "ended", 4, has_no_room=has_no_room)
    deleted = [Gap(index, index + 1, f"{DELETED}: pruned") for index in (1, 3)]
    compare(line, iter([JOURNAL[0], deleted[0], JOURNAL[2], deleted[1]]), stored, "parquet")
    text = [entry.strip() for entry in as_text(Certificate([line], 1)) if "missing" in entry]
    assert [entry.removeprefix("sink d/t run: ") for entry in text if entry.startswith("sink d/t run")] == [
        entry.format(count=2 if blocks < 2 else 1) for entry in told
    ]


def test_a_sink_that_gets_on_while_its_run_is_recorded_is_behind_and_nothing_else() -> None:
    stored = Stored(Position(2, 0), [], [], [], iter(stored_blocks()), iter(()))
    line = Line("sink", "d/t", "run", "running", 4)
    compare(line, iter(JOURNAL), stored, "parquet")
    assert (line.stored, line.behind, line.missing, line.remarks) == (2, 2, 0, [])
    assert not line.complete


def test_a_gap_is_told_with_its_cause_and_is_not_complete() -> None:
    gap = Gap(1, 2, "damaged in the journal")
    stored = Stored(Position(4, 0), [gap], [EVENT], [], iter([stored_blocks()[0], stored_blocks()[2]]), iter(()))
    line = Line("sink", "d/t", "run", "ended", 4)
    compare(line, iter([JOURNAL[0], gap, *JOURNAL[2:]]), stored, "parquet")
    assert (line.missing, line.complete, line.remarks) == (0, False, [])
    assert line.gaps[0].cause == "damaged in the journal"


@pytest.mark.parametrize(
    ("sink", "value", "needed"),
    [
        ("sqlite", 2**63, True),
        ("sqlite", 2**63 - 1, False),
        ("parquet", -(2**63) - 1, True),
        ("jsonl", 2**63, False),
        ("csv", [1], True),
        ("postgres", "nul\0", True),
        ("sqlite", "nul\0", False),
        ("postgres", 1.5, False),
    ],
)
def test_a_record_is_put_aside_only_where_the_sink_cannot_hold_it(sink: str, value: Any, needed: bool) -> None:
    record = reading(READINGS, 0, values={"tc0": value})
    stored = Stored(Position(1, 0), [], [], [StoredAside(0, "for a reason", b"")], iter(()), iter(()))
    line = Line("sink", "d/t", "run", "ended", 1)
    compare(line, iter([record]), stored, sink)
    assert (line.put_aside, line.missing, line.complete) == (1, not needed, needed)
    assert line.remarks == ([] if needed else ["record 0 is put aside without need: for a reason"])


@pytest.mark.parametrize(
    ("sink", "given", "back", "equal"),
    [
        ("parquet", 1.5, 1.5, True),
        ("parquet", float("nan"), None, False),
        ("sqlite", float("nan"), None, True),
        ("jsonl", float("inf"), None, True),
        ("sqlite", -0.0, 0.0, True),
        ("postgres", -0.0, 0.0, False),
        ("postgres", 2.0, None, False),
        ("sqlite", True, 1, True),
        ("csv", 1, 1.0, True),
        ("csv", float("nan"), None, False),
        ("csv", 2**53 + 1, float(2**53 + 1), False),
    ],
)
def test_only_what_a_format_cannot_hold_is_let_pass(sink: str, given: Any, back: Any, equal: bool) -> None:
    record = reading(READINGS, 0, values={"tc0": given, "tc1": 1.0})
    stored = Stored(Position(1, 0), [], [], [], iter(()), iter([StoredReading(0, {"tc0": back, "tc1": 1.0})]))
    line = Line("sink", "d/t", "run", "ended", 1)
    compare(line, iter([record]), stored, sink)
    assert line.complete is equal


def test_only_what_the_sink_has_counts_as_compared() -> None:
    stored = Stored(
        position=Position(1, 0),
        gaps=[],
        events=[],
        put_aside=[],
        blocks=iter(()),
        readings=iter([StoredReading(0, reading(READINGS, 0).values)]),
    )
    line = Line("sink", "d/t", "run", "ended", 3)
    compare(line, iter([reading(READINGS, index) for index in range(3)]), stored, "csv")
    assert (line.stored, line.missing) == (1, 2)
    assert line.samples == len(reading(READINGS, 0).values)
