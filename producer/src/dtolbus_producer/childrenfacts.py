"""What a process that starts others tells of itself: which of them run, and how often it had to start them again."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dtolbus.errors import CannotStartError, UsageError
from dtolbus.metrics import Metric, counter, gauge
from dtolbus.metricsoptions import MOST_PORT, MetricsPlace
from dtolbus_producer.children import Child
from dtolbus_producer.ports import port_problem
from dtolbus_start.health import ask

_ASK_S = 1.0
_AT_ONCE = 8
_NONE: Mapping[int, str] = {}


def give_places(children: Sequence[Child], first: MetricsPlace | None, others: Mapping[int, str] = _NONE) -> list[str]:
    """Have each child, not started yet, tell of itself at the next port; return what tells people where.

    Raises UsageError where there are not so many ports, or one of them is among the `others`, which say whose it is;
    CannotStartError where one is taken.
    """
    if first is None:
        return []
    if first.port + len(children) > MOST_PORT:
        raise UsageError(f"--metrics-port {first.port}: this one and the {len(children)} behind it are needed")
    last = first.port + len(children)
    for port, whose in others.items():
        if first.port <= port <= last:
            raise UsageError(f"--metrics-port {first.port}: ports {first.port} to {last} are needed; {port} is {whose}")
    lines = [f"metrics  http://{first.host}:{first.port}/metrics, and /health"]
    for number, child in enumerate(children, 1):
        place = first.after(number)
        problem = port_problem(place.host, place.port)
        if problem is not None:
            raise CannotStartError(
                f"port {place.port} is {problem}, or choose another --metrics-port: {child.spec.name} tells of itself "
                f"there, the first of {len(children) + 1} being {first.port}"
            )
        child.spec = replace(child.spec, environment={**child.spec.environment, **place.environment()})
        lines.append(f"         {place.port} {child.spec.name}")
    return [", ".join([lines[0], *(line.strip() for line in lines[1:])])]


class ChildrenFacts:
    """Of these children, which are tended elsewhere."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def problems(self) -> list[str]:
        """Return which of them do not run although they should, and what those say that are not healthy."""
        found, running = [], []
        for child in self._children:
            if child.failure is not None:
                found.append(f"{child.spec.name} has ended: {child.failure}")
            elif not child.is_done and child.pid is None:
                found.append(f"{child.spec.name} does not run")
            elif child.pid is not None and "DTOLBUS_METRICS_PORT" in child.spec.environment:
                running.append(child)
        return found + _told_by(running)

    def facts(self) -> list[str]:
        """Return how many run."""
        running = sum(child.pid is not None for child in self._children)
        return [f"{running} parts run; {sum(child.restarts for child in self._children)} restarts"]

    def metrics(self) -> Iterable[Metric]:
        """Yield all of it; a part's name is that of its log."""
        restarts = [({"child": child.spec.name}, float(child.restarts)) for child in self._children]
        yield counter("dtolbus_restarts_total", "Times that a part died and was started again.", restarts)
        running = [({"child": child.spec.name}, float(child.pid is not None)) for child in self._children]
        yield gauge("dtolbus_running", "1 while a part runs.", running)


def _told_by(children: Sequence[Child]) -> list[str]:
    """Return what those say that are not healthy, and which do not answer; asks several at once."""
    if not children:
        return []

    def asked(child: Child) -> str:
        given = child.spec.environment
        is_healthy, told = ask(given["DTOLBUS_METRICS_HOST"], int(given["DTOLBUS_METRICS_PORT"]), _ASK_S)
        return "" if is_healthy else f"{child.spec.name}: {told}"

    with ThreadPoolExecutor(min(_AT_ONCE, len(children)), thread_name_prefix="health") as asking:
        return [told for told in asking.map(asked, children) if told]
