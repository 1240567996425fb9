"""The sequencer against a journal, whatever the live path drops, doubles, delays or reorders."""

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.protocol.specimens import block_run, event

from dtolbus.records import RunInfo, RunStatus
from dtolbus.sequencer import Arrived, Ended, Missing, Sequencer, Step, size_of
from dtolbus.wire import Done, Fetch, Heartbeat, Message, Refused, RunGap, RunRecord, Welcome

KEYS = ("a", "b", "c")


@dataclass
class Journal:
    """One run as the gateway has it."""

    info: RunInfo
    head: int = 0
    over: bool = False
    damaged: set[int] = field(default_factory=set)

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.info, "ended" if self.over else "running", 0, self.head)

    def record(self, index: int) -> RunRecord:
        return RunRecord(self.info, event(self.info, index))


class Delivery(RuleBasedStateMachine):
    """Three runs of three streams, which may begin and end while the worker is away; it starts again at any time.

    The bus drops, doubles and reorders; the catch-up path breaks off, and its old answers may still come.
    """

    def __init__(self) -> None:
        super().__init__()
        self.journals = {key: Journal(block_run(key, task=f"task-{key}")) for key in KEYS}
        self.sequencer = Sequencer(hold_bytes=12_000)
        self.asked: Fetch | None = None
        self.out: dict[str, list[int]] = {key: [] for key in KEYS}
        self.gaps: dict[str, set[int]] = {key: set() for key in KEYS}
        self.ended: list[str] = []
        self.on_the_way: list[RunRecord | Heartbeat] = []
        self.old_answers: list[Message] = []

    @initialize(positions=st.integers(0, 3))
    def start(self, positions: int) -> None:
        self.journals["a"].head = positions
        self.out["a"] = list(range(positions))
        self.restart()

    def take(self, step: Step) -> None:
        for item in step.ready:
            key = item.run.run_id
            match item:
                case Arrived(record=record):
                    assert record.index == len(self.out[key]), "out of order, doubled or skipped"
                    self.out[key].append(record.index)
                case Missing(gap=gap):
                    assert gap.from_index == len(self.out[key])
                    self.gaps[key] |= set(range(gap.from_index, gap.to_index))
                    self.out[key] += range(gap.from_index, gap.to_index)
                case Ended(final=final):
                    assert final == len(self.out[key])
                    assert key not in self.ended, "ended twice"
                    self.ended.append(key)
        if step.fetch is not None:
            assert self.asked is None, "two fetches at once"
            assert step.fetch.from_index == len(self.out[step.fetch.run_id])
            self.asked = step.fetch

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 6), lost=st.booleans(), damaged=st.booleans())
    def produce(self, key: str, count: int, lost: bool, damaged: bool) -> None:
        journal = self.journals[key]
        if journal.over:
            return
        for index in range(journal.head, journal.head + count):
            journal.head += 1
            if damaged and lost:
                journal.damaged.add(index)
            elif not lost:
                self.on_the_way.append(journal.record(index))
        self.on_the_way.append(Heartbeat(journal.status))

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        if self.on_the_way:
            place = data.draw(st.integers(0, len(self.on_the_way) - 1))
            message = self.on_the_way[place]
            if data.draw(st.booleans()):
                del self.on_the_way[place]
            self.take(self.sequencer.heard(message))

    @rule(key=st.sampled_from(KEYS))
    def heartbeat(self, key: str) -> None:
        self.take(self.sequencer.heard(Heartbeat(self.journals[key].status)))

    @rule()
    def welcome(self) -> None:
        """All runs, in parts."""
        for journal in self.journals.values():
            self.take(self.sequencer.heard(Welcome((journal.status,), 256, 1.0, more=True), fetched=True))

    @rule(key=st.sampled_from(KEYS))
    def end(self, key: str) -> None:
        self.journals[key].over = True

    @rule()
    def restart(self) -> None:
        """The worker is killed and starts again with what it has; ends are told anew."""
        positions = {key: len(out) for key, out in self.out.items() if out}
        self.sequencer = Sequencer({**positions, "of another stack": 7}, hold_bytes=12_000)
        self.asked = None
        self.old_answers = []
        self.ended = []

    @rule(
        limit=st.integers(0, 5),
        outcome=st.sampled_from(["done", "refused", "lost"]),
        hurt=st.sets(st.integers(0, 4), max_size=2),
    )
    def answer(self, limit: int, outcome: str, hurt: set[int]) -> None:
        if self.asked is None:
            return
        asked, self.asked = self.asked, None
        end = min(asked.to_index, asked.from_index + limit, self.journals[asked.run_id].head)
        answers = [*self.served(asked, end), Done(asked.run_id, end, asked.number)]
        if outcome == "lost":
            self.old_answers = answers
            self.take(self.sequencer.fetch_lost())
            return
        if outcome == "refused":
            answers[-1] = Refused("busy", asked.run_id, asked.number)
        for place, message in enumerate(answers):
            if place not in hurt or message is answers[-1]:
                self.take(self.sequencer.heard(message, fetched=True))

    @rule()
    def answer_late(self) -> None:
        """What an older connection asked for comes after all."""
        for message in self.old_answers:
            self.take(self.sequencer.heard(message, fetched=True))
        self.old_answers = []

    def served(self, asked: Fetch, end: int) -> list[Message]:
        journal = self.journals[asked.run_id]
        return [
            RunGap(asked.run_id, index, index + 1, "damaged", number=asked.number)
            if index in journal.damaged
            else journal.record(index)
            for index in range(asked.from_index, end)
        ]

    @invariant()
    def nothing_invented(self) -> None:
        for key, journal in self.journals.items():
            assert len(self.out[key]) <= max(journal.head, 3)
            assert self.gaps[key] <= journal.damaged

    @invariant()
    def what_is_held_is_bounded_and_accounted_for(self) -> None:
        held = [run.held for run in self.sequencer._runs.values() if run is not None]
        assert self.sequencer.held_bytes == sum(size_of(record) for one in held for record, _ in one.values())
        assert self.sequencer.held_bytes <= 12_000
        assert not any(key in self.sequencer._runs for key in self.ended), "a complete run is kept"

    def teardown(self) -> None:
        """When the faults stop, everything arrives."""
        for journal in self.journals.values():
            journal.over = True
        for _ in range(200):
            self.welcome()
            if self.asked is not None:
                asked, self.asked = self.asked, None
                for message in (*self.served(asked, asked.to_index), Done(asked.run_id, asked.to_index, asked.number)):
                    self.take(self.sequencer.heard(message, fetched=True))
        for key, journal in self.journals.items():
            assert self.out[key] == list(range(journal.head))
            assert self.gaps[key] == journal.damaged
        assert sorted(self.ended) == list(KEYS)
        assert self.sequencer.complete()
        assert self.asked is None, "it asks for ever"


Delivery.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDelivery = Delivery.TestCase


@given(heard=st.lists(st.integers(0, 30), min_size=1))
def test_live_only_nothing_is_asked_and_every_hole_is_told_once(heard: list[int]) -> None:
    journal = Journal(block_run("a"))
    sequencer = Sequencer(can_fetch=False)
    covered: list[int] = []
    for index in heard:
        step = sequencer.heard(journal.record(index))
        assert step.fetch is None
        for item in step.ready:
            match item:
                case Arrived(record=record):
                    covered.append(record.index)
                case Missing(gap=gap):
                    covered += range(gap.from_index, gap.to_index)
    assert covered == list(range(heard[0], max(heard[0], *heard) + 1))


def test_a_run_that_is_not_wanted_is_never_given_out_nor_fetched() -> None:
    journal = Journal(block_run("a"), head=9)
    sequencer = Sequencer(wanted=lambda run: False)
    assert sequencer.heard(Heartbeat(journal.status)) == Step()
    assert sequencer.heard(journal.record(0)) == Step()
    assert sequencer.complete()


def test_records_held_beyond_a_hole_stay_within_their_bound() -> None:
    journal = Journal(block_run("a"))
    sequencer = Sequencer(hold_bytes=10_000)
    for index in range(1, 1000):
        sequencer.heard(journal.record(index))
    assert len(sequencer._runs["a"].held) == 5  # type: ignore[union-attr]


def test_a_journal_that_was_rolled_back_is_told_of_once_and_asked_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(block_run("a"), head=5, over=True)
    sequencer = Sequencer({"a": 9})
    for _ in range(3):
        for message in (Welcome((journal.status,), 256, 1.0), Heartbeat(journal.status)):
            step = sequencer.heard(message)
            assert step.fetch is None
            assert all(isinstance(item, Ended) for item in step.ready)
    assert sum("rolled back" in record.message for record in caplog.records) == 1
    assert sequencer.complete()


def test_records_that_a_journal_lost_while_it_was_written_are_not_waited_for() -> None:
    journal = Journal(block_run("a"), head=5)
    sequencer = Sequencer()
    for index in (0, 1, 2, 8):
        step = sequencer.heard(journal.record(index))
    assert step.fetch is not None
    assert (step.fetch.from_index, step.fetch.to_index) == (3, 8)
    for index in (3, 4):
        sequencer.heard(journal.record(index), fetched=True)
    again = sequencer.heard(Done("a", 5, step.fetch.number), fetched=True).fetch
    assert again is not None
    assert sequencer.heard(Refused("the head is 5", "a", again.number), fetched=True).fetch is None
    assert sequencer.is_stuck
    for _ in range(3):
        assert sequencer.heard(Heartbeat(journal.status)).fetch is None
    journal.over = True
    assert sequencer.heard(Heartbeat(journal.status)).ready == [Ended(journal.info, 5)]
    assert sequencer.held_bytes == 0
    assert sequencer.heard(journal.record(8)) == Step()


def test_an_old_run_played_again_gives_nothing() -> None:
    journal = Journal(block_run("a"), head=5, over=True)
    sequencer = Sequencer()
    for index in range(5):
        sequencer.heard(journal.record(index))
    assert sequencer.heard(Heartbeat(journal.status)).ready == [Ended(journal.info, 5)]
    journal.over = False
    for index in range(5):
        assert sequencer.heard(journal.record(index)) == Step()
        assert sequencer.heard(Heartbeat(RunStatus(journal.info, "running", 0, index))) == Step()
    assert sequencer.heard(Heartbeat(RunStatus(journal.info, "ended", 0, 5))) == Step()


def test_a_run_that_goes_on_after_its_end_is_taken_too() -> None:
    journal = Journal(block_run("a"), head=5, over=True)
    sequencer = Sequencer({"a": 5})
    assert sequencer.heard(Heartbeat(journal.status)).ready == [Ended(journal.info, 5)]
    journal.head = 7
    fetch = sequencer.heard(Heartbeat(journal.status)).fetch
    assert fetch is not None
    assert (fetch.from_index, fetch.to_index) == (5, 7)
    assert not sequencer.complete()
    ready = [item for index in (5, 6) for item in sequencer.heard(journal.record(index), fetched=True).ready]
    assert [item.record.index for item in ready if isinstance(item, Arrived)] == [5, 6]
    assert sequencer.complete()


def test_a_refused_fetch_is_logged_once_and_asked_again_with_the_next_word(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(block_run("a"), head=5, over=True)
    sequencer = Sequencer()
    for _ in range(4):
        fetch = sequencer.heard(Heartbeat(journal.status)).fetch
        assert fetch is not None
        assert sequencer.heard(Refused("the disk is away", "a", fetch.number), fetched=True).fetch is None
        assert sequencer.is_stuck
    assert sum("refused" in record.message for record in caplog.records) == 1


def test_a_fetch_of_which_nothing_arrived_whole_is_asked_again_at_once_but_only_the_first_time() -> None:
    journal = Journal(block_run("a"), head=2, over=True)
    sequencer = Sequencer()
    asked = sequencer.heard(Welcome((journal.status,), 256, 1.0), fetched=True).fetch
    assert asked is not None
    again = sequencer.heard(Done("a", 2, asked.number), fetched=True).fetch
    assert again is not None
    assert (again.from_index, again.to_index) == (0, 2)
    assert sequencer.heard(Done("a", 2, again.number), fetched=True).fetch is None
    assert sequencer.is_stuck
    assert sequencer.heard(Welcome((journal.status,), 256, 1.0), fetched=True).fetch is not None


def test_ten_thousand_old_runs_leave_next_to_nothing_behind() -> None:
    runs = [Journal(block_run(f"run-{n:05d}"), head=3, over=True) for n in range(10_000)]
    sequencer = Sequencer({run.info.run_id: 3 for run in runs[:9_000]})
    asked: list[Fetch] = []
    ended = 0
    for start in range(0, len(runs), 200):
        part = Welcome(tuple(run.status for run in runs[start : start + 200]), 256, 1.0, more=True)
        step = sequencer.heard(part, fetched=True)
        ended += len(step.ready)
        asked += [step.fetch] if step.fetch else []
    by_id = {run.info.run_id: run for run in runs}
    while asked:
        fetch = asked.pop()
        answers = [*(by_id[fetch.run_id].record(n) for n in range(3)), Done(fetch.run_id, 3, fetch.number)]
        for message in answers:
            step = sequencer.heard(message, fetched=True)
            ended += sum(isinstance(item, Ended) for item in step.ready)
            asked += [step.fetch] if step.fetch else []
    assert ended == 10_000
    assert sequencer.complete()
    assert sequencer._runs == {}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["record", "record", "record", "heartbeat", "end", "gap", "done"]),
            st.sampled_from("ab"),
            st.integers(0, 8),
            st.booleans(),
        ),
        max_size=40,
    ),
    st.booleans(),
)
@settings(deadline=None)
@example(told=[("record", "a", 1, False), ("record", "a", 0, False)], can_fetch=True)
def test_the_short_way_of_live_records_gives_what_the_long_one_does(told, can_fetch: bool) -> None:
    long, short = Sequencer(can_fetch=can_fetch), Sequencer(can_fetch=can_fetch)
    infos = {key: block_run(key, task=f"task-{key}") for key in "ab"}

    for kind, key, index, fetched in told:
        info = infos[key]
        message: Message = RunRecord(info, event(info, index))
        if kind in ("heartbeat", "end"):
            message = Heartbeat(RunStatus(info, "running" if kind == "heartbeat" else "ended", 0, index))
        elif kind == "gap":
            message = RunGap(key, index, index + 2, "lost")
        elif kind == "done" and long.fetching is not None:
            message = Done(long.fetching.run_id, long.fetching.to_index, long.fetching.number)
        expected = long.heard(message, fetched=fetched)
        arrived = short.in_order(message) if isinstance(message, RunRecord) and not fetched else None
        found = Step([arrived]) if arrived is not None else short.heard(message, fetched=fetched)

        assert found == expected
        assert short.fetching == long.fetching
        assert (short.complete(), short.held_bytes, short.is_stuck) == (long.complete(), long.held_bytes, long.is_stuck)
