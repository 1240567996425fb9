"""What comes from a clocked source, as far as it can be: told where it cannot."""

import time
from collections.abc import Callable

from dtolbus.errors import BoardError
from dtolbus_producer.arriving import Times, arrival_problem, count_problem
from dtolbus_producer.boards import Buffer, End, Fault, TaskPlan
from dtolbus_producer.boards.guarding import GuardedBlocks

_READ_TIMEOUT_S = 0.1
_AT_ONCE_NS = 1_000_000


class Reception:
    """Reads one run's source. `heard` is called for whatever comes, `tell` with what is odd, once for each cause."""

    def __init__(
        self,
        plan: TaskPlan,
        started_mono_ns: tuple[int, int],
        heard: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._times = Times(started_mono_ns[0], started_mono_ns[1], started_mono_ns[0], started_mono_ns[1])
        self._heard = heard
        self._tell = tell
        self._told: set[str] = set()

    def read(self, source: GuardedBlocks, over: int) -> Buffer | Fault | End | None:
        """Return what came, None where nothing did; `over` are the samples before it."""
        asked_ns = time.perf_counter_ns()
        try:
            found = source.read(_READ_TIMEOUT_S)
        except BoardError as error:
            found = Fault("sdk_error", str(error), fatal=True)
        now_ns = time.perf_counter_ns()
        if isinstance(found, Buffer) and not found.codes.shape[1]:
            self.tell_once("empty", f"{self._plan.board}: the board gives buffers without samples, which are left out")
            found = None
        if found is None and now_ns - asked_ns < _AT_ONCE_NS:
            time.sleep(_AT_ONCE_NS / 1e9)  # it did not wait
        if isinstance(found, Buffer):
            found = self._possible(found, over, now_ns)
        if isinstance(found, Buffer | Fault):
            self._heard()
        return found

    def tell_once(self, what: str, message: str) -> None:
        """Tell of an odd thing, of each kind once."""
        if what not in self._told:
            self._told.add(what)
            self._tell(message)

    def _possible(self, buffer: Buffer, over: int, now_ns: int) -> Buffer | Fault:
        """Return the buffer, with this instant where it cannot have come when the board says; else a fatal fault."""
        plan, times = self._plan, self._times._replace(now_ns=now_ns)
        problem = count_problem(buffer, over, plan, times)
        if problem is not None:
            return Fault("sdk_error", f"{plan.board}: the board gave {problem}", fatal=True)
        arrived_ns = buffer.arrived_mono_ns
        problem = arrival_problem(buffer, over + buffer.codes.shape[1], plan, times)
        if problem is not None:
            self.tell_once("arrival", f"{plan.board}: the board gave {problem}: when they were read counts instead")
            arrived_ns = now_ns
        else:
            times = times._replace(last_arrived_ns=max(arrived_ns, times.last_arrived_ns))
        self._times = times._replace(last_ns=now_ns)
        return buffer._replace(arrived_mono_ns=arrived_ns, asked_mono_ns=min(buffer.asked_mono_ns, arrived_ns))
