"""The sequencer against a journal, whatever the live path drops, doubles, delays or reorders."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.protocol.specimens import block_run, event

from dtolbus.records import RunInfo, RunStatus
from dtolbus.sequencer import Arrived, Ended, Missing, Sequencer, Step
from dtolbus.wire import Done, Fetch, Heartbeat, Refused, RunGap, RunRecord, Welcome


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
    """Two runs on a bus that drops, doubles and reorders, and a catch-up path that may break off."""

    def __init__(self) -> None:
        super().__init__()
        self.journals = {key: Journal(block_run(key)) for key in ("a", "b")}
        self.sequencer = Sequencer(hold_bytes=12_000)
        self.asked: Fetch | None = None
        self.out: dict[str, list[int]] = {"a": [], "b": []}
        self.gaps: dict[str, set[int]] = {"a": set(), "b": set()}
        self.ended: list[str] = []
        self.on_the_way: list[RunRecord] = []

    @initialize(positions=st.integers(0, 3))
    def start(self, positions: int) -> None:
        self.sequencer = Sequencer({"a": positions}, hold_bytes=12_000)
        self.journals["a"].head = positions
        self.out["a"] = list(range(positions))

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
                    self.ended.append(key)
        if step.fetch is not None:
            assert self.asked is None, "two fetches at once"
            self.asked = step.fetch

    @rule(key=st.sampled_from("ab"), count=st.integers(1, 6), lost=st.booleans(), damaged=st.booleans())
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

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        if self.on_the_way:
            place = data.draw(st.integers(0, len(self.on_the_way) - 1))
            message = self.on_the_way[place]
            if data.draw(st.booleans()):
                del self.on_the_way[place]
            self.take(self.sequencer.heard(message))

    @rule(key=st.sampled_from("ab"))
    def heartbeat(self, key: str) -> None:
        self.take(self.sequencer.heard(Heartbeat(self.journals[key].status)))

    @rule(key=st.sampled_from("ab"))
    def end(self, key: str) -> None:
        self.journals[key].over = True

    @rule(limit=st.integers(0, 5), outcome=st.sampled_from(["done", "refused", "lost"]))
    def answer(self, limit: int, outcome: str) -> None:
        if self.asked is None:
            return
        asked, self.asked = self.asked, None
        end = min(asked.to_index, asked.from_index + limit, self.journals[asked.run_id].head)
        self.serve(asked, end)
        if outcome == "lost":
            self.take(self.sequencer.fetch_lost())
        elif outcome == "refused":
            self.take(self.sequencer.heard(Refused("busy", asked.run_id, asked.number), fetched=True))
        else:
            self.take(self.sequencer.heard(Done(asked.run_id, end, asked.number), fetched=True))

    def serve(self, asked: Fetch, end: int) -> None:
        journal = self.journals[asked.run_id]
        for index in range(asked.from_index, end):
            damaged = index in journal.damaged
            message = RunGap(asked.run_id, index, index + 1, "damaged") if damaged else journal.record(index)
            self.take(self.sequencer.heard(message, fetched=True))

    @invariant()
    def nothing_invented(self) -> None:
        for key, journal in self.journals.items():
            assert len(self.out[key]) <= max(journal.head, 3)
            assert self.gaps[key] <= journal.damaged

    def teardown(self) -> None:
        """When the faults stop, everything arrives."""
        for journal in self.journals.values():
            journal.over = True
        for _ in range(200):
            self.take(self.sequencer.heard(Welcome(tuple(j.status for j in self.journals.values()), 256, 1.0)))
            if self.asked is not None:
                asked, self.asked = self.asked, None
                self.serve(asked, asked.to_index)
                self.take(self.sequencer.heard(Done(asked.run_id, asked.to_index, asked.number), fetched=True))
        for key, journal in self.journals.items():
            assert self.out[key] == list(range(journal.head))
            assert self.gaps[key] == journal.damaged
        assert sorted(self.ended) == ["a", "b"]
        assert self.sequencer.complete()


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
