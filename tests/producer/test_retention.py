"""What may be deleted, what is deleted, and what the quota does."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import xxhash
from filelock import FileLock
from tests.producer.acquired import acquire_all, config_of, events_of, records_of
from tests.producer.bus import RunningGateway, eventually
from tests.producer.looking import call
from tests.protocol.specimens import block, block_run, event, reading, reading_run

from dtolbus.errors import CannotStartError, DtolbusError, RawFormatError, UsageError
from dtolbus.manifest import DELETED, read_manifest
from dtolbus.records import Gap, RunInfo
from dtolbus.registrations import Registration, SinkPosition, encode_registration, read_registrations, registration_path
from dtolbus.runs import RunFolder, list_runs, segment_name
from dtolbus.wire import Ack, Heartbeat, Refused, RunPosition
from dtolbus_producer import deletion, journalcli, listing, quota
from dtolbus_producer.config import config_from
from dtolbus_producer.deletion import LOCK_FILE
from dtolbus_producer.journal import JournalError, RunWriter, recover_run
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.pruning import prune
from dtolbus_producer.quantities import parse_age, parse_size, show_age, show_size
from dtolbus_producer.quota import Quota, free_bytes_asked
from dtolbus_producer.retention import Plan, Policy, RunFacts, SegmentFacts, plan

DAY_NS = 86_400_000_000_000
NOW_NS = 1_000 * DAY_NS
RUN = block_run("0190a5f4-0000-7000-8000-000000000001")
OTHER = reading_run("0190a5f4-0000-7000-8000-000000000002")
EVERYTHING = Policy(keep_s=0.0)


def sink(name: str, position: int = 0, run: RunInfo = RUN, *, kind: str = "parquet", **fields: Any) -> Registration:
    positions = {run.run_id: SinkPosition("s", position)}
    return Registration(name=name, sink=kind, place="/p", destination_id="d", positions=positions, **fields)


def summaries(name: str, position: int = 0, run: RunInfo = RUN, blocks: str = "summary") -> Registration:
    """A sink that keeps of blocks what `blocks` says."""
    return sink(name, position, run, kind="sqlite", options={"blocks": blocks})


def facts(*ages_d: float, run: RunInfo = RUN, state: str = "ended", size: int = 100) -> RunFacts:
    """A run of segments with ten records each, so many days old."""
    segments = tuple(
        SegmentFacts(10 * n, 10 * n + 10, size, round(NOW_NS - age * DAY_NS), state == "ended" or n < len(ages_d) - 1)
        for n, age in enumerate(ages_d)
    )
    return RunFacts(run, state, 10 * len(ages_d), segments)  # type: ignore[arg-type]


def going(found: Plan) -> list[tuple[str, int]]:
    return [(removal.run.device, removal.segment.first_index) for removal in found.removals]


class TestPlan:
    def test_only_what_is_old_and_acknowledged_goes(self) -> None:
        found = plan([facts(9, 8, 1)], [sink("a", 30)], Policy(keep_s=7 * 86_400), NOW_NS)
        assert going(found) == [("dt9806", 0), ("dt9806", 10)]
        assert found.stays == ()

    @pytest.mark.parametrize(("position", "count"), [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2)])
    def test_a_segment_goes_only_when_all_of_it_is_acknowledged(self, position: int, count: int) -> None:
        found = plan([facts(9, 9, 9)], [sink("a", position)], EVERYTHING, NOW_NS)
        assert len(found.removals) == count
        assert [(stay.segments, stay.holders[0]) for stay in found.stays] == [(3 - count, ("a", 30 - position))]

    def test_the_slowest_sink_counts(self) -> None:
        found = plan([facts(9, 9, 9)], [sink("fast", 30), sink("slow", 10)], EVERYTHING, NOW_NS)
        assert going(found) == [("dt9806", 0)]
        assert [holder.name for holder in found.stays[0].holders] == ["slow"]

    def test_a_sink_that_does_not_take_the_run_holds_nothing(self) -> None:
        others = [sink("r", topics=("reading/",)), sink("late", options={"since_utc_ns": str(RUN.started_utc_ns + 1)})]
        assert len(plan([facts(9)], [sink("a", 10), *others], EVERYTHING, NOW_NS).removals) == 1

    def test_without_a_sink_that_takes_the_run_nothing_goes(self) -> None:
        for sinks in ([], [sink("r", 10, topics=("reading/",))]):
            found = plan([facts(9)], sinks, Policy(0.0, 0), NOW_NS)
            assert found.removals == ()
            assert found.stays[0].is_unclaimed

    def test_the_newest_segment_of_a_running_run_stays(self) -> None:
        found = plan([facts(9, 9, state="running")], [sink("a", 20)], EVERYTHING, NOW_NS)
        assert going(found) == [("dt9806", 0)]
        assert found.stays[0].is_running

    def test_a_young_segment_keeps_those_behind_it(self) -> None:
        assert plan([facts(1, 9)], [sink("a", 20)], Policy(keep_s=7 * 86_400), NOW_NS).removals == ()

    def test_for_the_size_the_oldest_of_all_runs_go_and_no_more_than_needed(self) -> None:
        runs = [facts(3, 1), facts(4, 2, run=OTHER)]
        both = [sink("a", 20), sink("b", 20, OTHER, topics=("reading/",))]
        both[0] = sink("a", 20, topics=("block/",))
        found = plan(runs, both, Policy(max_bytes=150), NOW_NS)
        assert going(found) == [("dt9828", 0), ("dt9806", 0), ("dt9828", 10)]
        assert (found.excess_bytes, found.stays) == (0, ())

    def test_what_is_held_stays_however_large_the_journal_is(self) -> None:
        found = plan([facts(3, 2, 1)], [sink("a", 10)], Policy(max_bytes=100), NOW_NS)
        assert going(found) == [("dt9806", 0)]
        assert found.excess_bytes == 100
        assert found.stays[0].segments == 2

    def test_gap_oldest_takes_the_acknowledged_first_then_the_oldest_sealed(self) -> None:
        runs = [facts(9, 8, state="running"), facts(2, 1, run=OTHER)]
        sinks = [sink("a", 0, topics=("block/",)), sink("b", 10, OTHER, topics=("reading/",))]
        found = plan(runs, sinks, Policy(max_bytes=200, unacknowledged=True), NOW_NS)
        assert going(found) == [("dt9828", 0), ("dt9806", 0)]
        assert [[holder.name for holder in removal.lost_to] for removal in found.removals] == [[], ["a"]]
        rest = plan(runs, sinks, Policy(max_bytes=0, unacknowledged=True), NOW_NS)
        assert going(rest) == [("dt9828", 0), ("dt9806", 0), ("dt9828", 10)]
        assert rest.excess_bytes == 100

    @pytest.mark.parametrize("policy", [EVERYTHING, Policy(max_bytes=0)])
    def test_blocks_of_which_only_summaries_are_stored_stay(self, policy: Policy) -> None:
        found = plan([facts(9, 9)], [summaries("a", 20), summaries("b", 20, blocks="")], policy, NOW_NS)
        assert found.removals == ()
        assert [(stay.segments, stay.is_summarised, stay.holders) for stay in found.stays] == [(2, True, ())]
        found = plan([facts(9, 9)], [summaries("a", 20)], replace(policy, summaries_suffice=True), NOW_NS)
        assert [removal.is_summarised for removal in found.removals] == [True, True]
        assert found.stays == ()

    @pytest.mark.parametrize(
        "other", [sink("p", 20), summaries("s", 20, blocks="samples"), summaries("b", 20, blocks="both")]
    )
    def test_one_sink_that_keeps_the_samples_is_enough(self, other: Registration) -> None:
        found = plan([facts(9, 9)], [summaries("a", 20), other], EVERYTHING, NOW_NS)
        assert [removal.is_summarised for removal in found.removals] == [False, False]

    def test_a_sink_that_keeps_samples_and_does_not_take_the_run_does_not_count(self) -> None:
        found = plan([facts(9)], [summaries("a", 10), sink("r", 10, topics=("reading/",))], EVERYTHING, NOW_NS)
        assert found.removals == ()

    def test_readings_are_kept_by_every_sink(self) -> None:
        assert len(plan([facts(9, run=OTHER)], [summaries("a", 10, OTHER)], EVERYTHING, NOW_NS).removals) == 1

    def test_what_a_sink_took_while_it_kept_summaries_stays_though_it_keeps_samples_now(self) -> None:
        now = msgspec.structs.replace(
            summaries("a", 20, blocks="both"), positions={RUN.run_id: SinkPosition("s", 20, summarised=10)}
        )
        found = plan([facts(9, 9)], [now], EVERYTHING, NOW_NS)
        assert (found.removals, found.stays[0].is_summarised) == ((), True)

    def test_gap_oldest_takes_what_is_summarised_after_what_is_not(self) -> None:
        runs, sinks = [facts(9), facts(2, run=OTHER)], [summaries("a", 10), sink("b", 10, OTHER, topics=("reading/",))]
        sinks[0] = msgspec.structs.replace(sinks[0], topics=("block/",))
        assert going(plan(runs, sinks, Policy(max_bytes=100, unacknowledged=True), NOW_NS)) == [("dt9828", 0)]
        found = plan(runs, sinks, Policy(max_bytes=0, unacknowledged=True), NOW_NS)
        assert [removal.is_summarised for removal in found.removals] == [False, True]

    def test_a_deletion_that_was_cut_short_goes_on_whatever_the_policy(self) -> None:
        run = facts(1, 1)
        halfway = SegmentFacts(0, 10, 100, NOW_NS, is_sealed=True, is_condemned=True)
        found = plan([RunFacts(RUN, "ended", 20, (halfway, run.segments[1]))], [], Policy(keep_s=1e9), NOW_NS)
        assert going(found) == [("dt9806", 0)]


class TestQuantities:
    @pytest.mark.parametrize(
        ("text", "size"),
        [("200G", 200 << 30), ("1.5GiB", 3 << 29), ("2GB", 2 * 10**9), ("512", 512), ("0", 0), ("10k", 10240)],
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "G", "-1G", "nan", "1e9", "5 apples", "9" * 400, "200GG"])
    def test_what_is_no_size_is_told(self, text: str) -> None:
        with pytest.raises(UsageError, match="200G"):
            parse_size(text)

    @pytest.mark.parametrize(
        ("text", "age_s"), [("7d", 604_800), ("12h", 43_200), ("0s", 0), ("0.5m", 30), ("1w", 604_800)]
    )
    def test_ages(self, text: str, age_s: float) -> None:
        assert parse_age(text) == age_s

    @pytest.mark.parametrize("text", ["", "7", "d", "-7d", "inf d", "7 days"])
    def test_what_is_no_age_is_told(self, text: str) -> None:
        with pytest.raises(UsageError, match="7d"):
            parse_age(text)

    def test_what_people_read(self) -> None:
        assert [show_size(n) for n in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
        assert [show_age(s) for s in (0, 59, 3600, 3660, 90_000)] == ["0 s", "59 s", "1 h", "1 h 1 m", "1 d 1 h"]

    def test_what_stays_free_by_default_is_little_of_a_small_disk(self) -> None:
        assert free_bytes_asked(None, 1 << 40) == 1 << 30
        assert free_bytes_asked(None, 20 << 20) == 1 << 20
        assert free_bytes_asked(0, 1 << 40) == 0


def journal(data: Path, *, segment_bytes: int = 4000, count: int = 20, close: bool = True) -> RunWriter:
    """A run of blocks with an event in it."""
    writer = RunWriter(data / "journal", RUN, segment_bytes=segment_bytes, sync_ms=0)
    for index in range(count):
        writer.append(event(RUN, 2, lost_samples=5) if index == 2 else block(RUN, index))
    if close:
        writer.close()
    return writer


def register(data: Path, *sinks: Registration) -> None:
    (data / "sinks").mkdir(exist_ok=True)
    for one in sinks:
        registration_path(data, one.name).write_bytes(encode_registration(one))


def segments(data: Path) -> list[int]:
    return list_runs(data / "journal")[0].segments()


class TestPrune:
    def test_deletes_what_is_acknowledged_and_keeps_run_file_head_and_manifest(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        (folder,) = list_runs(tmp_path / "journal")
        firsts = folder.segments()
        before = {first: (folder.path / segment_name("blocks", first)).read_bytes() for first in firsts}
        lines = prune(tmp_path, EVERYTHING, dry_run=False)
        assert segments(tmp_path) == []
        assert {"run.json", "head", "manifest.json"} <= {path.name for path in folder.path.iterdir()}
        manifest = read_manifest(folder.path)
        assert [(s.first_index, s.xxh3_64, s.bytes) for s in manifest.segments] == [
            (first, xxhash.xxh3_64_hexdigest(data), len(data)) for first, data in before.items()
        ]
        assert (manifest.segments[0].first_sample, manifest.segments[-1].end_sample) == (0, 200)
        assert manifest.segments[0].lost_samples == 5
        assert f"{len(firsts)} segments" in lines[0]
        with RunFolder(folder.path) as left:
            assert (left.first(), left.head()) == (20, 20)

    def test_a_dry_run_deletes_nothing(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        before = segments(tmp_path)
        assert "would go" in prune(tmp_path, EVERYTHING, dry_run=True)[0]
        assert segments(tmp_path) == before
        assert not (list_runs(tmp_path / "journal")[0].path / "manifest.json").exists()

    def test_what_stays_is_told_with_the_sink_and_its_lag(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20), sink("slow", 3))
        before = segments(tmp_path)
        line, told = prune(tmp_path, EVERYTHING, dry_run=False)
        assert "slow (17 records behind)" in line
        assert told == "nothing is deleted"
        assert prune(tmp_path, EVERYTHING, dry_run=True)[-1] == "nothing would go"
        assert "a (" not in line
        assert segments(tmp_path) == before

    def test_without_a_sink_nothing_goes_and_that_is_told(self, tmp_path: Path) -> None:
        journal(tmp_path)
        before = segments(tmp_path)
        (line, *_) = prune(tmp_path, Policy(0.0, 0), dry_run=False)
        assert "no registered sink takes this run" in line
        assert segments(tmp_path) == before

    def test_the_only_samples_stay_unless_summaries_suffice(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, summaries("lab", 20))
        before = segments(tmp_path)
        line, _ = prune(tmp_path, EVERYTHING, dry_run=False)
        assert "only summaries of it are stored: add a sink that keeps samples, or say --summaries-suffice" in line
        assert segments(tmp_path) == before
        prune(tmp_path, Policy(0.0, summaries_suffice=True), dry_run=False)
        assert segments(tmp_path) == []
        (told,) = {segment.cause for segment in read_manifest(list_runs(tmp_path / "journal")[0].path).segments}
        assert told == "every sink registered then had it, as summaries only"

    def test_nothing_to_do_is_one_line(self, tmp_path: Path) -> None:
        journal(tmp_path)
        assert len(prune(tmp_path, Policy(keep_s=3600.0), dry_run=False)) == 1

    def test_the_newest_segment_of_a_running_run_stays_and_the_run_goes_on(self, tmp_path: Path) -> None:
        writer = journal(tmp_path, close=False)
        register(tmp_path, sink("a", 20))
        newest = segments(tmp_path)[-1]
        assert "being written" in prune(tmp_path, EVERYTHING, dry_run=False)[-1]
        assert segments(tmp_path) == [newest]
        writer.append(block(RUN, 20))
        writer.close()
        found = records_of(list_runs(tmp_path / "journal")[0])
        assert isinstance(found[0], Gap)
        assert [record.index for record in found[1:]] == list(range(newest, 21))  # type: ignore[union-attr]

    def test_a_registration_that_cannot_be_read_deletes_nothing(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        (tmp_path / "sinks" / "b.json").write_text("{")
        before = segments(tmp_path)
        with pytest.raises(RawFormatError, match=r"b\.json"):
            prune(tmp_path, EVERYTHING, dry_run=False)
        assert segments(tmp_path) == before

    def test_a_manifest_that_cannot_be_read_deletes_nothing_of_its_run(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        (list_runs(tmp_path / "journal")[0].path / "manifest.json").write_text("{")
        before = segments(tmp_path)
        prune(tmp_path, EVERYTHING, dry_run=False)
        assert segments(tmp_path) == before

    def test_a_kill_between_manifest_and_unlink_is_made_good(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                prune(tmp_path, EVERYTHING, dry_run=False)
        (folder,) = list_runs(tmp_path / "journal")
        named = read_manifest(folder.path)
        assert [s.first_index for s in named.segments] == [0]
        assert len(records_of(folder)) == 20
        prune(tmp_path, Policy(keep_s=1e9), dry_run=False)
        assert 0 not in segments(tmp_path)
        assert read_manifest(folder.path) == named

    def test_no_room_for_a_manifest_deletes_nothing_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        before = segments(tmp_path)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(deletion, "write_manifest", full)
        with pytest.raises(DtolbusError, match="no room"):
            prune(tmp_path, EVERYTHING, dry_run=False)
        assert segments(tmp_path) == before

    def test_no_journal_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no journal"):
            prune(tmp_path, EVERYTHING, dry_run=False)

    def test_a_killed_run_whose_only_segment_left_is_torn_keeps_its_final(self, tmp_path: Path) -> None:
        writer = journal(tmp_path, close=False)
        register(tmp_path, sink("a", 20))
        prune(tmp_path, EVERYTHING, dry_run=False)
        (newest,) = segments(tmp_path)
        copy = tmp_path / "killed" / "journal" / "dt9806" / "vibration" / RUN.run_id
        shutil.copytree(writer.path, copy)
        writer.close()
        (copy / segment_name("blocks", newest)).write_bytes(b"\0\0")
        (copy / "head").write_bytes(b"\0")
        recovered = recover_run(copy)
        assert recovered is not None
        assert recovered.final == newest
        with RunFolder(copy) as folder:
            (gap,) = folder.records(0, newest)
        assert isinstance(gap, Gap)
        assert gap.cause.startswith(DELETED)


class Disk(NamedTuple):
    total: int
    used: int
    free: int


class TestQuota:
    def test_stop_ends_the_run_loudly_with_an_event(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        config = config_of(
            {"name": "t", "rate_hz": 10_000.0, "channels": ["a", "b"], "block_samples": 500},
            options={"speed": "max"},
            journal={"segment_mb": 0.05, "max_size": "150K"},
        )
        with caplog.at_level(logging.ERROR), pytest.raises(JournalError, match="max_size"):
            acquire_all(config, tmp_path)
        (run,) = list_runs(tmp_path / "journal")
        assert run.refresh().state == "interrupted"
        (why,) = events_of(run)
        assert (why.kind, "is full" in why.message) == ("stopped", True)
        assert why.index == run.head() - 1
        assert not any(isinstance(record, Gap) for record in records_of(run))
        assert "recording stops" in caplog.text
        with pytest.raises(CannotStartError, match="make room"):
            acquire_all(config, tmp_path)

    def test_a_disk_with_less_than_min_free_stops_the_start(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100 << 30, 99 << 30, 1 << 29))
        with pytest.raises(CannotStartError, match="min_free"), Quota(tmp_path, JournalConfig()):
            pass
        assert segments(tmp_path)[0] == 0
        with Quota(tmp_path, JournalConfig(min_free="0")):
            pass

    @pytest.mark.parametrize(
        ("sinks", "settings", "told"),
        [
            ([sink("a", 20)], {}, ""),
            (
                [sink("a", 20), sink("slow", 3)],
                {},
                "let slow catch up by `dtolbus up --data {data} --catch-up`",
            ),
            ([summaries("lab", 20)], {}, "with --summaries-suffice, or add a sink that keeps samples"),
            ([summaries("lab", 20)], {"summaries_suffice": True}, ""),
        ],
    )
    def test_a_full_journal_names_a_command_that_makes_room(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        sinks: list[Registration],
        settings: dict[str, Any],
        told: str,
    ) -> None:
        journal(tmp_path)
        register(tmp_path, *sinks)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100 << 20, 100 << 20, (5 << 20) - 5000))
        watch = Quota(tmp_path, JournalConfig(**settings))
        watch.check()
        full = watch.full() or ""
        assert told.format(data=tmp_path) in full
        register(tmp_path, *(msgspec.structs.replace(one, positions=sink("x", 20).positions) for one in sinks))
        words = full.partition("`dtolbus prune ")[2].partition("`")[0].split()
        if "with --summaries-suffice" in full:
            words.append("--summaries-suffice")
        before = sum(path.stat().st_size for path in tmp_path.rglob("*.dt-raw"))
        assert call(journalcli.prune, words, capsys).code == 0
        assert before - sum(path.stat().st_size for path in tmp_path.rglob("*.dt-raw")) >= 5000

    def test_over_max_size_what_is_acknowledged_goes_and_recording_goes_on(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        with Quota(tmp_path, JournalConfig(max_size="5K")) as watch:
            assert watch.full() is None
        assert segments(tmp_path)[0] > 0
        assert "every sink" in read_manifest(list_runs(tmp_path / "journal")[0].path).segments[0].cause

    def test_gap_oldest_names_the_sinks_that_lose_it(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        journal(tmp_path)
        register(tmp_path, sink("slow", 1))
        with caplog.at_level(logging.WARNING):
            watch = Quota(tmp_path, JournalConfig(max_size="5K", when_full="gap-oldest"))
            watch.check()
        assert watch.full() is None
        (folder,) = list_runs(tmp_path / "journal")
        assert segments(tmp_path)[0] > 0
        (gap, *_) = records_of(folder)
        assert isinstance(gap, Gap)
        assert gap.cause == f"{DELETED}: it was larger than max_size, before slow had it"
        lost = [record for record in caplog.records if record.message == "segment deleted that a sink lacks"]
        assert lost
        assert vars(lost[0])["sinks"] == ["slow"]

    def test_the_only_samples_stay_unless_summaries_suffice(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, summaries("lab", 20))
        watch = Quota(tmp_path, JournalConfig(max_size="5K"))
        watch.check()
        assert segments(tmp_path)[0] == 0
        assert "full" in (watch.full() or "")
        watch = Quota(tmp_path, JournalConfig(max_size="5K", summaries_suffice=True))
        watch.check()
        assert watch.full() is None
        assert segments(tmp_path)[0] > 0

    def test_gap_oldest_deletes_the_only_samples_and_tells(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        journal(tmp_path)
        register(tmp_path, summaries("lab", 20))
        with caplog.at_level(logging.WARNING):
            watch = Quota(tmp_path, JournalConfig(max_size="5K", when_full="gap-oldest"))
            watch.check()
        assert watch.full() is None
        assert "segment deleted whose samples nobody else has" in caplog.text
        (gap, *_) = records_of(list_runs(tmp_path / "journal")[0])
        assert isinstance(gap, Gap)
        assert (
            gap.cause == f"{DELETED}: it was larger than max_size; every sink registered then had it, as summaries only"
        )

    def test_a_full_segment_is_looked_at_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quota, "_CHECK_S", 3600.0)
        monkeypatch.setattr(quota, "_PAUSE_FOR_SCAN", 0)
        with Quota(tmp_path, JournalConfig(max_size="5K")) as watch:
            writer = RunWriter(tmp_path / "journal", RUN, segment_bytes=2000, sync_ms=0, rolled=watch.rolled)
            index = 0
            while watch.full() is None:
                writer.append(block(RUN, index))
                index += 1
                assert index < 100_000
            writer.close()

    def test_two_that_make_room_do_not_meet(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20))
        watch = Quota(tmp_path, JournalConfig(max_size="5K"))
        with FileLock(tmp_path / LOCK_FILE):
            watch.check()
            assert segments(tmp_path)[0] == 0
        assert watch.full() is None

    @pytest.mark.parametrize(
        ("journal_config", "message"),
        [
            ({"max_size": "lots"}, "journal.max_size: 'lots' is no size"),
            ({"max_size": "100M"}, "two segments, 512.0 MiB"),
            ({"min_free": "-1G"}, "journal.min_free: '-1G'"),
            ({"when_full": "explode"}, "allowed are 'stop', 'gap-oldest'"),
            ({"max_sise": "1T"}, "did you mean 'max_size'"),
        ],
    )
    def test_a_wrong_setting_is_named(self, journal_config: dict[str, Any], message: str) -> None:
        device = {"name": "d", "task": [{"name": "t", "rate_hz": 10.0, "channels": ["a"]}]}
        with pytest.raises(UsageError, match=message.replace(".", r"\.")):
            config_from({"device": [device], "journal": journal_config})


class TestListing:
    def test_runs_tell_state_range_size_and_who_has_what(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20), sink("b", 7), sink("r", topics=("reading/",)))
        ((line,), _) = listing.run_lines(tmp_path)
        assert (line.state, line.first, line.head, line.duration_s) == ("ended", 0, 20, 0.19)
        assert [(share.name, share.position, share.lag) for share in line.sinks] == [("a", 20, 0), ("b", 7, 13)]
        register(tmp_path, sink("b", 20))
        prune(tmp_path, EVERYTHING, dry_run=False)
        ((line,), _) = listing.run_lines(tmp_path)
        assert (line.first, line.head, line.bytes, line.segments) == (20, 20, 0, 0)
        assert json.loads(listing.as_json([line]))[0]["head"] == 20
        assert "20..20" in listing.runs_text([line])[1]
        assert "a all" in listing.runs_text([line])[1]

    def test_runs_tell_of_which_only_summaries_are_stored(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20), summaries("lab", 20), summaries("raw", 7, blocks="samples"))
        lines, _ = listing.run_lines(tmp_path)
        assert [(share.name, share.has_samples) for share in lines[0].sinks] == [
            ("a", True),
            ("lab", False),
            ("raw", True),
        ]
        assert "a all, lab all (summaries), raw 7" in listing.runs_text(lines)[1]

    def test_an_empty_folder_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "journal").mkdir()
        assert listing.runs_text(listing.run_lines(tmp_path)[0]) == ["the journal holds no runs"]
        assert listing.sinks_text(listing.sink_lines(tmp_path)[0]) == ["no sink has registered here"]

    def test_sinks_tell_their_lag_over_all_runs(self, tmp_path: Path) -> None:
        journal(tmp_path)
        writer = RunWriter(tmp_path / "journal", OTHER)
        writer.append(reading(OTHER, 0))
        writer.close()
        register(tmp_path, sink("all", 15, seen_utc="2026-03-01T12:00:00+00:00"), sink("r", topics=("reading/",)))
        assert [(line.name, line.runs, line.lag) for line in listing.sink_lines(tmp_path)[0]] == [
            ("all", 2, 6),
            ("r", 1, 1),
        ]
        assert "never" in listing.sinks_text(listing.sink_lines(tmp_path)[0])[2]

    def test_a_forgotten_sink_holds_nothing_any_more(self, tmp_path: Path) -> None:
        journal(tmp_path)
        register(tmp_path, sink("a", 20), sink("gone", 1))
        with pytest.raises(UsageError, match="did you mean 'gone'"):
            listing.forget_sink(tmp_path, "gome")
        assert "19 records that it lacked stay in the journal no longer" in listing.forget_sink(tmp_path, "gone")[0]
        register(tmp_path, sink("done", 20), sink("nearly", 19))
        assert "it had all that the journal holds" in listing.forget_sink(tmp_path, "done")[0]
        assert "1 record that it lacked" in listing.forget_sink(tmp_path, "nearly")[0]
        prune(tmp_path, EVERYTHING, dry_run=False)
        assert segments(tmp_path) == []

    def test_a_running_gateway_does_not_bring_a_forgotten_sink_back_until_it_speaks(self, tmp_path: Path) -> None:
        journal(tmp_path)

        def names() -> list[str]:
            return [known.name for known in read_registrations(tmp_path)]

        with RunningGateway(tmp_path) as gateway, gateway.client() as worker, gateway.client() as other:
            worker.hello(worker="a", destination_id="d")
            eventually(lambda: names() == ["a"])
            worker.send(Ack("a", "dt9806", "vibration", RUN.run_id, 3))
            other.hello(worker="b", destination_id="e")  # answered after the Ack was taken, or close to it
            listing.forget_sink(tmp_path, "a")
            eventually(lambda: names() == ["b"])
            worker.send(Ack("a", "dt9806", "vibration", RUN.run_id, 5))
            answer = worker.next()
            assert isinstance(answer, Refused)
            assert answer.is_unregistered
            said = RunPosition("dt9806", "vibration", RUN.run_id, 5)
            worker.hello(worker="a", destination_id="d", positions=(said,))
            eventually(lambda: names() == ["a", "b"])
            assert read_registrations(tmp_path)[0].positions[RUN.run_id].position == 5
            listing.forget_sink(tmp_path, "a")
        assert names() == ["b"]


def test_heartbeats_tell_the_first_record_still_there(tmp_path: Path) -> None:
    writer = journal(tmp_path, close=False)
    register(tmp_path, sink("a", 20))
    newest = segments(tmp_path)[-1]
    is_newest: Callable[[Any], bool] = lambda m: isinstance(m, Heartbeat) and m.status.first == newest  # noqa: E731  # a name for it
    with RunningGateway(tmp_path) as gateway, gateway.subscriber("heartbeat/") as subscriber:
        prune(tmp_path, EVERYTHING, dry_run=False)
        subscriber.until(is_newest)
    writer.close()
