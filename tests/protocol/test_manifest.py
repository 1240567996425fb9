"""What stays of deleted segments, and what a reader of the run is told of them."""

from pathlib import Path

import pytest
from tests.protocol.specimens import block, block_run

from dtolbus.errors import RawFormatError
from dtolbus.manifest import DELETED, MANIFEST_FILE, DeletedSegment, Manifest, read_manifest, write_manifest
from dtolbus.records import Gap
from dtolbus.runs import RunFolder, segment_name
from dtolbus.wire import RunGap, decode, encode
from dtolbus_producer.journal import RunWriter

RUN = block_run()


def gone(first: int, end: int, cause: str = "old") -> DeletedSegment:
    return DeletedSegment(
        first_index=first,
        end_index=end,
        first_sample=10 * first,
        end_sample=10 * end,
        bytes=1000,
        xxh3_64="0123456789abcdef",
        cause=cause,
        deleted_utc="2026-03-01T12:00:00+00:00",
    )


def written(journal: Path, count: int = 20) -> RunFolder:
    """A run that is over, of segments with five blocks each."""
    writer = RunWriter(journal, RUN, segment_bytes=4000)
    for index in range(count):
        writer.append(block(RUN, index))
    writer.close()
    folder = RunFolder(writer.path)
    assert len(folder.segments()) >= 3
    return folder


def delete_first(folder: RunFolder, count: int, *, unlink: bool = True) -> int:
    """Delete the first segments, the manifest first; return the index where the rest begins."""
    firsts = [*folder.segments(), folder.head()]
    for place in range(count):
        write_manifest(folder.path, read_manifest(folder.path).having(gone(firsts[place], firsts[place + 1])))
        if unlink:
            (folder.path / segment_name(RUN.kind, firsts[place])).unlink()
    return firsts[count]


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == Manifest()
    manifest = Manifest().having(gone(5, 9)).having(gone(0, 5))
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert [segment.first_index for segment in manifest.segments] == [0, 5]
    assert manifest.end == 9


def test_a_segment_named_twice_stays_as_it_was_named_first() -> None:
    manifest = Manifest().having(gone(0, 5, "old"))
    assert manifest.having(gone(0, 5, "again")) == manifest


def test_a_file_that_is_no_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text("{")
    with pytest.raises(RawFormatError, match=r"manifest\.json is damaged"):
        read_manifest(tmp_path)


def test_gaps_say_cause_and_samples_and_neighbours_of_one_cause_are_one() -> None:
    manifest = Manifest((gone(0, 5), gone(5, 9), gone(9, 12, "full")))
    assert list(manifest.gaps(0, 12)) == [
        Gap(0, 9, f"{DELETED}: old", 0, 90),
        Gap(9, 12, f"{DELETED}: full", 90, 120),
    ]
    assert list(manifest.gaps(3, 7)) == [Gap(3, 7, f"{DELETED}: old")]
    assert list(manifest.gaps(3, 9)) == [Gap(3, 9, f"{DELETED}: old", None, 90)]


def test_what_no_manifest_names_is_missing_and_not_deleted() -> None:
    manifest = Manifest((gone(5, 9),))
    assert [(g.from_index, g.to_index, g.cause) for g in manifest.gaps(0, 12)] == [
        (0, 5, "missing in the journal"),
        (5, 9, f"{DELETED}: old"),
        (9, 12, "missing in the journal"),
    ]


def test_a_run_without_its_first_segments_says_so_and_gives_the_rest(tmp_path: Path) -> None:
    with written(tmp_path) as folder:
        rest = delete_first(folder, 2)
        assert folder.first() == rest
        found = list(folder.records(0, 20))
        assert found[0] == Gap(0, rest, f"{DELETED}: old", 0, 10 * rest)
        assert [record.index for record in found[1:]] == list(range(rest, 20))  # type: ignore[union-attr]
        assert [type(record) for record in folder.records(1, 3)] == [Gap]


def test_a_run_without_any_segment_begins_at_its_head(tmp_path: Path) -> None:
    with written(tmp_path) as folder:
        delete_first(folder, len(folder.segments()))
        assert folder.first() == folder.head() == 20
        assert list(folder.records(0, 20)) == [Gap(0, 20, f"{DELETED}: old", 0, 200)]


def test_a_segment_that_is_named_and_still_there_is_read(tmp_path: Path) -> None:
    with written(tmp_path) as folder:
        delete_first(folder, 1, unlink=False)
        assert folder.first() == 0
        assert [record.index for record in folder.records(0, 20)] == list(range(20))  # type: ignore[union-attr]


def test_a_hole_that_a_power_cut_left_among_the_deletions_is_told_as_deleted(tmp_path: Path) -> None:
    with written(tmp_path) as folder:
        first, second, third, *_ = folder.segments()
        delete_first(folder, 2, unlink=False)
        (folder.path / segment_name(RUN.kind, second)).unlink()
        found = list(folder.records(first, 20))
        assert Gap(second, third, f"{DELETED}: old", 10 * second, 10 * third) in found
        assert len(found) == 20 - (third - second) + 1


def test_a_segment_deleted_while_it_is_read_is_a_gap_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with written(tmp_path) as folder:
        listed = folder.segments()
        rest = delete_first(folder, 1)
        answers = iter([listed])
        segments = folder.segments
        monkeypatch.setattr(folder, "segments", lambda: next(answers, None) or segments())
        found = list(folder.records(0, 20))
        assert found[0] == Gap(0, rest, f"{DELETED}: old", 0, 10 * rest)
        assert len(found) == 1 + 20 - rest


def test_a_manifest_that_cannot_be_read_costs_no_record(tmp_path: Path) -> None:
    with written(tmp_path) as folder:
        rest = delete_first(folder, 1)
        (folder.path / MANIFEST_FILE).write_text("torn")
        found = list(folder.records(0, 20))
        assert found[0] == Gap(0, rest, "missing in the journal")
        assert len(found) == 1 + 20 - rest


def test_the_samples_of_a_gap_travel() -> None:
    gap = RunGap("r", 1, 2, f"{DELETED}: old", 10, 20)
    assert decode(encode(gap)) == gap
