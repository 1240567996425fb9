"""Trigger thresholds that an input can never pass are refused, with what it takes."""

import pytest

from dtolbus_producer.boards.dtchannels import DtOptions, Entry, check_threshold
from dtolbus_producer.tasks import ChannelConfig, WrongKeyError

ENTRIES = [Entry(ChannelConfig("a", physical=0), 1.0), Entry(ChannelConfig("b", physical=1), 10.0)]


def check(threshold_v: float, watched: int, lowest_v: float = -10.0) -> None:
    options = DtOptions(trigger="rising", threshold_input=watched, threshold_v=threshold_v)
    check_threshold(options, ENTRIES, lowest_v, 10.0)


@pytest.mark.parametrize(("threshold_v", "watched"), [(9.9, 0), (-9.9, 0), (0.9, 1), (-0.9, 1), (5.0, 2)])
def test_what_lies_within_the_range_is_taken(threshold_v, watched):
    check(threshold_v, watched)


@pytest.mark.parametrize(
    ("threshold_v", "watched", "lowest_v", "says"),
    [
        (12.0, 0, -10.0, "12 V: the input 0 at gain 1 takes -10 to 10 V: give what lies between"),
        (10.0, 0, -10.0, "10 V: the input 0 at gain 1 takes -10 to 10 V"),
        (-10.0, 0, -10.0, "-10 V: the input 0 at gain 1 takes -10 to 10 V"),
        (5.0, 1, -10.0, "5 V: the input 1 at gain 10 takes -1 to 1 V"),
        (-2.0, 0, 0.0, "-2 V: the input 0 at gain 1 takes 0 to 10 V"),
        (11.0, 7, -10.0, "11 V: the input 7 at gain 1 takes -10 to 10 V"),
    ],
)
def test_what_no_signal_ever_passes_is_refused(threshold_v, watched, lowest_v, says):
    with pytest.raises(WrongKeyError) as refused:
        check(threshold_v, watched, lowest_v)
    assert str(refused.value).startswith(f"options.threshold_v: {says}")


def test_without_a_threshold_there_is_nothing_to_refuse():
    check_threshold(DtOptions(), ENTRIES, -10.0, 10.0)
