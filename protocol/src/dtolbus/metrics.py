"""What a process tells of itself: plain numbers, read when somebody asks. Pure; `metricsserver` serves them.

Whatever records, publishes or stores only counts up numbers of its own; reading them waits for nobody.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Labels = Mapping[str, str]

MOST_SAMPLES = 200
"""Label sets of one metric; what is beyond is added up as `others`, however many streams there are."""
OTHERS = "others"


@dataclass(frozen=True)
class Metric:
    """One quantity with its values, by labels; named as Prometheus has it: base units, `_total` at a count's end."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    samples: Sequence[tuple[Labels, float]]


@dataclass(frozen=True)
class Histogram:
    """How often something took how long."""

    name: str
    about: str
    series: "Sequence[Series]"


class Series(NamedTuple):
    """What was counted under one set of labels."""

    labels: Labels
    buckets: Sequence[tuple[str, float]]
    """Upper bound, s, and how many took at most so long; the last is +Inf."""
    sum: float
    """Of all, s."""


class Told(Protocol):
    """What of a process is told. Asked on threads of their own, several at a time; neither may wait for anything."""

    def metrics(self) -> Iterable[Metric | Histogram]:
        """Return how things are."""

    def problems(self) -> list[str]:
        """Return why the process does not do what it is there for; nothing where it does."""

    def facts(self) -> list[str]:
        """Return what it does, in a few words."""


@dataclass
class Durations:
    """Counts how long something took; for one thread that counts, any that read."""

    bounds_s: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)
    counts: list[int] = field(default_factory=lambda: [0] * 6)
    sum_s: float = 0.0

    def add(self, took_s: float) -> None:
        """Count one."""
        self.sum_s += took_s
        self.counts[sum(took_s > bound for bound in self.bounds_s)] += 1

    def series(self, labels: Labels) -> Series:
        """Return what was counted."""
        buckets, total = [], 0
        for bound, count in zip((*map(str, self.bounds_s), "+Inf"), list(self.counts), strict=True):
            total += count
            buckets.append((bound, float(total)))
        return Series(labels, buckets, self.sum_s)


def counter(name: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    """Return a count that only grows while the process lives."""
    return Metric(name, "counter", about, bounded(samples))


def gauge(name: str, about: str, samples: Iterable[tuple[Labels, float]]) -> Metric:
    """Return a value that comes and goes."""
    return Metric(name, "gauge", about, bounded(samples))


def by_stream(values: Mapping[str, float], **labels: str) -> list[tuple[Labels, float]]:
    """Return a value for each stream, labelled so; runs come and go, streams stay."""
    return [({**labels, "stream": stream}, value) for stream, value in sorted(values.items())]


def bounded(samples: Iterable[tuple[Labels, float]]) -> list[tuple[Labels, float]]:
    """Return as many as may be told, one for each set of labels; the rest is added up, labelled `others`."""
    found: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, value in samples:
        key = tuple(labels.items())
        if key and key not in found and len(found) >= MOST_SAMPLES:
            key = (*key[:-1], (key[-1][0], OTHERS))
        found[key] = found.get(key, 0.0) + value
    return [(dict(key), value) for key, value in found.items()]


def since_epoch(monotonic_s: float) -> float:
    """Return when an instant of the monotonic clock was, s since 1970."""
    return time.time() - (time.monotonic() - monotonic_s)
