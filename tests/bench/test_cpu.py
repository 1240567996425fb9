"""What a bench says of a thread's time."""

from bench.cpu import Cpu, cpu_us, shares


def test_the_parts_stand_by_size_with_what_is_left() -> None:
    assert shares(10.0, {"small": 1.0, "large": 6.5}) == "large 6.5, small 1.0, the rest 2.5"


def test_parts_measured_apart_may_come_to_more_than_the_whole() -> None:
    assert shares(10.0, {"one": 11.0}) == "one 11.0, the rest 0.0"


def test_only_work_counts_divided_by_how_often_it_was_done() -> None:
    once = cpu_us(lambda: sum(range(100_000)), 1)
    assert cpu_us(lambda: sum(range(100_000)), 10) < once


def test_the_least_of_what_was_noted_is_told() -> None:
    noted = Cpu(1)
    for work in (range(1_000_000), range(10)):
        with noted:
            sum(work)
    least = noted.us
    with noted:
        sum(range(1_000_000))
    assert noted.us == least
