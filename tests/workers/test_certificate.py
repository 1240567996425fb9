"""The certificate: whatever a sink has missing, doubled or changed is found."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus.records import Gap
from dtolbus_workers.certificate import Line, compare
from dtolbus_workers.columns import block_summary
from dtolbus_workers.destination import Position, Stored, StoredBlock

RUN = block_run()
JOURNAL = [block(RUN, 0), block(RUN, 1), event(RUN, 2), block(RUN, 3)]
READINGS = reading_run()


def stored_blocks() -> list[StoredBlock]:
    return [
        StoredBlock(b.index, b.first_sample_index, b.data.copy(), block_summary(b))
        for b in (JOURNAL[0], JOURNAL[1], JOURNAL[3])  # type: ignore[union-attr]
    ]


def line_for(blocks: list[StoredBlock], **fields: Any) -> Line:
    settings: dict[str, Any] = {"position": Position(4, 1), "gaps": [], "events": [2], "put_aside": []}
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
    blocks[1] = blocks[1]._replace(values=None, summary={**blocks[1].summary, "max": "[0.0,0.0]"})


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
    assert foreign.remarks == ["1 records that the journal does not have"]


def test_a_gap_is_told_with_its_cause_and_is_not_complete() -> None:
    line = line_for([stored_blocks()[0], stored_blocks()[2]], gaps=[Gap(1, 2, "damaged in the journal")])
    assert (line.missing, line.complete) == (0, False)
    assert line.gaps[0].cause == "damaged in the journal"


def test_records_put_aside_are_stored_and_told() -> None:
    line = line_for([stored_blocks()[0], stored_blocks()[2]], put_aside=[1])
    assert (line.missing, line.put_aside, line.complete) == (0, 1, True)


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
    ],
)
def test_only_what_a_format_cannot_hold_is_let_pass(sink: str, given: Any, back: Any, equal: bool) -> None:
    record = reading(READINGS, 0, values={"tc0": given, "tc1": 1.0})
    stored = Stored(Position(1, 0), [], [], [], iter(()), iter([(0, {"tc0": back, "tc1": 1.0})]))
    line = Line("sink", "d/t", "run", "ended", 1)
    compare(line, iter([record]), stored, sink)
    assert line.complete is equal
