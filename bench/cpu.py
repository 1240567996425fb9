"""What a thread's time goes to: the limit behind a goal that Python does not reach."""

import time
from collections.abc import Callable, Mapping
from typing import Self


class Cpu:
    """Notes, each time it is entered, how long this thread works until it is left; for `times` pieces of work."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._began = 0.0
        self._noted: list[float] = []

    def __enter__(self) -> Self:
        self._began = time.thread_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._noted.append((time.thread_time() - self._began) / self._times * 1e6)

    @property
    def us(self) -> float:
        """For one piece of work, µs: the least that was noted, which other processes disturbed least."""
        return min(self._noted)


def cpu_us(run: Callable[[], object], times: int, tries: int = 5) -> float:
    """Return how long this thread works, µs, for each of the `times` that `run` does it."""
    noted = Cpu(times)
    for _ in range(tries):
        with noted:
            run()
    return noted.us


def shares(whole_us: float, parts: Mapping[str, float]) -> str:
    """Return in words what the whole goes to, the greatest part first, and what is left of it."""
    named = sorted(parts.items(), key=lambda part: -part[1])
    rest = max(0.0, whole_us - sum(parts.values()))
    return ", ".join([*(f"{name} {us:.1f}" for name, us in named), f"the rest {rest:.1f}"])
