"""What was durable and is gone is told: recovery never calls a run complete that its head says was longer."""

import pytest
from tests.producer.test_journal import block, indexes, info_of, killed, segments_of

from dtolbus.records import Gap
from dtolbus.runs import Head, RunFolder, encode_head
from dtolbus_producer.journal import RunWriter, recover_run


def killed_with_segments(tmp_path):
    """A killed run of three records in three segments, all durable."""
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0, segment_s=0.0)
    for index in range(3):
        writer.append(block(info, index))
    writer._release()
    assert len(segments_of(writer.path)) == 3
    return writer.path


def gaps(folder, count):
    with RunFolder(folder) as run:
        return [found for found in run.records(0, count) if isinstance(found, Gap)]


def test_a_durable_segment_that_was_cut_short_is_a_gap_up_to_the_old_head(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    segment.write_bytes(segment.read_bytes()[:-300])

    file = recover_run(folder)

    assert (file.state, file.final) == ("interrupted", 5)
    last = indexes(folder, 5)[-1]
    assert isinstance(last, tuple)
    assert last[1] == 5
    assert gaps(folder, 5)[0].cause.startswith("missing in the journal")
    with RunFolder(folder) as run:
        assert (run.status().head, run.head()) == (5, 5)


@pytest.mark.parametrize(("deleted", "expected"), [([2], [0, 1, (2, 3)]), ([1, 2], [0, (1, 3)]), ([0, 1, 2], [(0, 3)])])
def test_durable_segments_that_were_deleted_are_a_gap(tmp_path, deleted, expected):
    folder = killed_with_segments(tmp_path)
    for first in deleted:
        (folder / f"{first:012d}.dt-raw").unlink()

    assert recover_run(folder).final == 3
    assert indexes(folder, 3) == expected
    assert [gap.cause for gap in gaps(folder, 3)] == ["missing in the journal"]


def test_a_damaged_tail_that_was_durable_is_a_gap_and_kept_aside(tmp_path):
    folder = killed(tmp_path, 5)
    segment = folder / "000000000000.dt-raw"
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-500] + bytes(500))

    assert recover_run(folder).final == 5
    found = indexes(folder, 5)
    assert found[:2] == [0, 1]
    assert found[-1] == (len(found) - 1, 5)
    assert segment.read_bytes() + (folder / "000000000000.dt-raw.torn").read_bytes() == whole[:-500] + bytes(500)


def test_a_durable_segment_without_anything_whole_is_a_gap(tmp_path):
    folder = killed_with_segments(tmp_path)
    (folder / "000000000002.dt-raw").write_bytes(b"\x10\x00")

    assert recover_run(folder).final == 3
    assert indexes(folder, 3) == [0, 1, (2, 3)]


def test_a_head_that_cannot_be_trusted_claims_nothing(tmp_path):
    folder = killed(tmp_path, 5)
    head = bytearray(encode_head(Head(1000, 10**6)))
    head[9] ^= 1
    (folder / "head").write_bytes(head)

    assert recover_run(folder).final == 5
    assert indexes(folder, 5) == list(range(5))


def test_what_is_lost_after_a_run_has_ended_is_a_gap_too(tmp_path):
    info = info_of()
    writer = RunWriter(tmp_path, info, sync_ms=0, segment_s=0.0)
    for index in range(3):
        writer.append(block(info, index))
    writer.close()
    last = writer.path / "000000000002.dt-raw"
    last.write_bytes(last.read_bytes()[:-5])
    damaged = gaps(writer.path, 3)
    assert [(gap.from_index, gap.to_index) for gap in damaged] == [(2, 3)]
    assert "in the journal" in damaged[0].cause
    last.unlink()
    assert gaps(writer.path, 3) == [Gap(2, 3, "missing in the journal")]
