"""`dtolbus boards`: the kinds, whether each can be used here, what is connected."""

import json
import threading
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from tests.producer.looking import call

from dtolbus.errors import CannotStartError
from dtolbus_producer.boards import BOARDS, finding, sim
from dtolbus_producer.boards.finding import BoardFound, boards_text, find_kind
from dtolbus_producer.config import config_from
from dtolbus_producer.lookingcli import boards


def test_the_simulated_board_is_there_with_what_it_can_do_and_a_recording_has_nothing_to_connect(capsys):
    done = call(boards, [], capsys)
    assert (done.code, done.err) == (0, "")
    assert 'board = "sim": DT9806 (simulated)' in done.out
    assert "16 inputs; 16 bit; ranges ±10, ±1, ±0.1, ±0.02 V; gains 1, 10, 100, 500; 50,000 samples/s" in done.out
    assert "playback:PATH" in done.out
    assert "nothing is connected" not in done.out


def test_what_it_tells_of_the_simulated_board_holds(capsys):
    kinds = {kind["kind"]: kind for kind in json.loads(call(boards, ["--json"], capsys).out)}
    assert {"sim", "playback"} <= set(kinds)
    (board,) = kinds["sim"]["boards"]
    inputs = [{"name": f"c{n}", "physical": n} for n in range(board["inputs"])]
    for number, (gain, limit_v) in enumerate(zip(board["gains"], board["ranges_v"], strict=True)):
        inputs[number]["gain"] = gain
        inputs[number + 4]["range"] = limit_v
    task = {"name": "t", "rate_hz": board["throughput_hz"] / len(inputs), "channels": inputs}
    config = config_from({"device": [{"name": "d", "board": board["board"], "task": [task]}]})
    plan = sim.SimBoard(config.devices[0]).blocks(config.devices[0].tasks[0]).plan
    by_gain, by_range = plan.channels[:4], plan.channels[4:8]
    assert [channel.range for channel in by_gain] == [channel.range for channel in by_range]


def test_a_kind_of_another_package_is_listed_and_one_that_cannot_be_used_says_why(monkeypatch):
    class Away(sim.SimBoard):
        """A board far away."""

        @staticmethod
        def find() -> list[BoardFound]:
            raise CannotStartError("the SDK is not installed: get it from its maker")

    class Empty(sim.SimBoard):
        """A board for tests."""

        @staticmethod
        def find() -> list[BoardFound]:
            return []

    monkeypatch.setattr(sim, "Away", Away, raising=False)
    monkeypatch.setattr(sim, "Empty", Empty, raising=False)
    monkeypatch.setitem(BOARDS, "away", f"{sim.__name__}:Away")
    monkeypatch.setitem(BOARDS, "empty", f"{sim.__name__}:Empty")
    points = EntryPoints([EntryPoint("third", "third_party:Board", "dtolbus.boards")])
    monkeypatch.setattr(finding, "entry_points", lambda **_: points)

    assert finding.board_kinds() == [*BOARDS, "third"]
    assert boards_text([find_kind("away"), find_kind("empty")]) == [
        "away      cannot be used here: the SDK is not installed: get it from its maker",
        "empty     A board for tests.",
        "          nothing is connected",
    ]


def raising(error):
    def find():
        raise error

    return find


@pytest.mark.parametrize(
    ("find", "says"),
    [
        (raising(RuntimeError("odd\nthing")), r"find raised RuntimeError('odd\nthing')"),
        (raising(SystemExit(0)), "find raised SystemExit(0)"),
        (lambda: None, "find gave None, which is no list of BoardFound"),
        (lambda: [3], "find gave [3], which is no list of BoardFound"),
        (lambda: [BoardFound(board=3, model=None)], "which is no list of BoardFound"),
    ],
)
def test_a_package_that_misbehaves_is_a_line_and_costs_the_others_nothing(monkeypatch, find, says):
    monkeypatch.setattr(sim.SimBoard, "find", staticmethod(find))
    kinds = {kind.kind: kind for kind in finding.find_boards()}
    assert kinds["playback"].is_usable
    assert not kinds["sim"].is_usable
    assert kinds["sim"].about.startswith("the board 'sim' of dtolbus-producer: ")
    assert says in kinds["sim"].about


def test_a_package_that_hangs_is_a_line(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(finding, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(sim.SimBoard, "find", staticmethod(never.wait))
    found = find_kind("sim")
    assert not found.is_usable
    assert found.about == "the board 'sim' of dtolbus-producer does not say within 0.2 s what is connected"
    never.set()


@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_a_kind_that_cannot_be_loaded_is_told_not_raised(monkeypatch, kind):
    monkeypatch.setitem(BOARDS, "broken", "no_such_module_anywhere:Board")
    found = find_kind(kind)
    assert not found.is_usable
    assert kind in found.about
