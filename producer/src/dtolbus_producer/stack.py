"""`dtolbus up`: gateway, sinks and acquisitions as child processes; then drain, stop, verify."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.cli import check_text
from dtolbus.errors import CannotStartError
from dtolbus.records import RunStatus
from dtolbus.registrations import Registration
from dtolbus_producer.certifying import Certificate
from dtolbus_producer.children import Child, end_all
from dtolbus_producer.config import Config
from dtolbus_producer.journalfacts import journal_of
from dtolbus_producer.locking import locked
from dtolbus_producer.parts import Parts, check_ports, first_screen, gateway_answers, with_ports
from dtolbus_producer.plan import batch_age_s
from dtolbus_producer.postgres_embedded import EMBEDDED, EmbeddedPostgres
from dtolbus_producer.progress import (
    JournalWatch,
    Rates,
    SinkProgress,
    SinkWatch,
    sink_progress,
    snapshot,
    what_is_behind,
)
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.stalls import LogTail, Stalls
from dtolbus_producer.table import Display, View, make_display, say
from dtolbus_producer.troubles import Troubles

log = logging.getLogger(__name__)

LOCK_FILE = ".up.lock"
PIDS_FILE = "pids.json"
_TURN_S = 0.1
_GATEWAY_S = 20.0
_SINKS_S = 40.0
"""How long the boards wait for the sinks to open: longer than a worker waits for a schema that is in use, 30 s."""
_OVERTIME_S = 15.0
"""How much longer than asked an acquisition may take before it is told to stop."""
_END_S = 20.0
_HURRY_S = 2.0
_NO_PROGRESS_S = 30.0


def run_up(config: Config, duration_s: float | None, stop: threading.Event) -> int:
    """Run the stack until its boards end, the time is over or `stop` is set; return the certificate's exit code.

    Without devices: until every sink has all that the journal holds; then the whole folder is verified.

    Raises UsageError and CannotStartError where a part can never start; everything is stopped then.
    """
    data = Path(config.data).absolute()
    check_text(str(data))
    if not config.devices:
        journal_of(data)
    config = msgspec.structs.replace(config, gateway=with_ports(config.gateway))
    with ExitStack() as held:
        taken = f"{data} has a `dtolbus up` already: stop it, or choose another folder with --data"
        held.enter_context(locked(data / LOCK_FILE, taken))
        check_ports(config.gateway)
        dsn = next((sink.dsn for sink in config.sinks if sink.kind == "postgres"), None)
        server = held.enter_context(EmbeddedPostgres(data)) if dsn == EMBEDDED else None
        dsn = dsn if server is None else server.dsn
        for line in first_screen(config, data):
            say(line)
        parts = Parts(config, data, dsn=dsn, duration_s=duration_s)
        session = Session(config, data, parts, duration_s, server)
        with Certificate(data) as certificate:
            grace_s = _END_S
            try:
                session.run(stop)
            except KeyboardInterrupt:  # a second Ctrl-C: whoever sent it does not want to wait
                grace_s = _HURRY_S
                raise
            finally:
                session.close(grace_s)
            if server is not None and (told := server.revive()) is not None:
                say(told, err=True)
            for line in session.troubles.at_the_end():
                certificate.fault(line)
            for device, log_path in session.silent_devices().items():
                certificate.fault(f"{device} acquired nothing; see {log_path}")
            if not config.devices:
                return certificate.verify([], [], dsn)
            for why in session.stopped.values():
                certificate.note(why)
            sinks = [name for name in parts.sinks if name not in session.troubles.unregistered()]
            if not session.new_runs() or not sinks:
                certificate.note("no run was recorded: nothing to compare" if sinks else "no sink: nothing to compare")
                return 1
            return certificate.verify(session.new_runs(), sinks, dsn)


class Session:
    """One `up`: its children, and what they have achieved."""

    def __init__(
        self, config: Config, data: Path, parts: Parts, duration_s: float | None, server: EmbeddedPostgres | None
    ) -> None:
        self._server = server
        self._gateway_config = config.gateway
        self._parts = parts
        self._duration_s = duration_s
        self._acquiring_since = time.monotonic()
        self._pids: dict[str, int | None] = {}
        self._is_pids_problem_told = False
        self._journal = JournalWatch(data / "journal")
        self._journal.update()
        self._before = set(self._journal.statuses)
        self._stored_before: set[str] = set()
        """Runs of earlier sessions that every sink has: nothing more to watch."""
        self._caught_up: dict[str, int] | None = None
        """By sink: records of such runs that were not stored everywhere when the boards started."""
        self._registered = SinkWatch(data, parts.sinks)
        self._rates = Rates()
        ages_s = {sink.name: batch_age_s(sink) for sink in config.sinks}
        logs = {name: LogTail(child.log) for name, child in parts.sinks.items()}
        for log_tail in logs.values():
            log_tail.mark()
        self._stalls = Stalls(ages_s, logs)
        self.troubles = Troubles(data, config.sinks, parts.sinks, logs, self._journal, self._registered)
        self._display: Display | None = None
        self.stopped: dict[str, str] = {}
        """By device whose recording ended early, for want of room: what was said of it."""

    def run(self, stop: threading.Event) -> None:
        """Start everything in order, watch it, and drain."""
        parts = self._parts
        self._start([parts.gateway, *parts.sinks.values()])
        self._await("starting the gateway", lambda: gateway_answers(self._gateway_config), _GATEWAY_S, stop)
        parts.gateway.is_settled = True
        self._await_sinks(stop)
        if stop.is_set():
            return
        self._display = make_display()
        self._acquiring_since = time.monotonic()
        self._start(parts.acquisitions.values())
        if parts.acquisitions:
            self._acquire(stop)
            self._drain(threading.Event())
        else:
            self._recover()
            self._drain(stop)

    def new_runs(self) -> list[str]:
        """Return the ids of the runs of this session."""
        return sorted(set(self._journal.statuses) - self._before - self._journal.gone)

    def silent_devices(self) -> dict[str, Path]:
        """Return the devices of which this session has no record, each with its log."""
        runs = [status for run_id, status in self._journal.statuses.items() if run_id not in self._before]
        heard = {status.info.device for status in runs if status.head}
        return {name: child.log for name, child in self._parts.acquisitions.items() if name not in heard}

    def close(self, grace_s: float) -> None:
        """Stop everything: acquisitions, then sinks, then the gateway; kill what has not ended after `grace_s`."""
        parts = self._parts
        try:
            if self._display is not None:
                self._display.close()
                self._display = None
            for children in (parts.acquisitions.values(), parts.sinks.values(), [parts.gateway]):
                for child in end_all(list(children), grace_s):
                    say(f"{child.spec.name} did not end within {grace_s:.0f} s and was killed", err=True)
        finally:  # whatever interrupts this, nothing is left behind
            for child in parts.all():
                child.kill()
        self._journal.update()
        self._recover()  # the run of an acquisition that had to be killed
        self._journal.close()

    def _acquire(self, stop: threading.Event) -> None:
        """Watch until all acquisitions have ended; tell them to when the time is over or `stop` is set."""
        acquisitions = list(self._parts.acquisitions.values())
        while not all(child.is_done for child in acquisitions):
            self._turn("acquiring")
            if stop.wait(_TURN_S) or self._is_overdue():
                break
        self._turn("stopping the boards")
        end_all(acquisitions, _END_S)

    def _recover(self) -> None:
        """End the runs that nobody writes any more: they are to be stored too."""
        for device in {status.info.device for status in self._watched() if status.state == "running"}:
            recover_device(self._parts.logs.parent / "journal", device)

    def _drain(self, stop: threading.Event) -> None:
        """Wait until every sink has all of every run, or `stop` is set; give up where none gets anything for 30 s."""
        most, moved_at = -1, time.monotonic()
        while not stop.is_set():
            self._turn("draining")
            behind = self._behind()
            if not behind:
                return
            stored, now = sum(progress.position for progress in behind.values()), time.monotonic()
            if stored != most:
                most, moved_at = stored, now
            if now - moved_at > _NO_PROGRESS_S:
                for name, progress in behind.items():
                    lag = f"{progress.lag} records are not acknowledged"
                    say(f"{name} makes no progress: {lag}; see {self._parts.sinks[name].log}", err=True)
                return
            time.sleep(_TURN_S)

    def _behind(self) -> dict[str, SinkProgress]:
        """Return the sinks that lack something of the runs that are over, or are ours."""
        ours = self._parts.acquisitions
        runs = [status for status in self._watched() if status.state != "running" or status.info.device in ours]
        away = self.troubles.away()
        sinks = {name: known for name, known in self._registrations().items() if name not in away}
        return what_is_behind(sinks, runs)

    def _registrations(self) -> dict[str, Registration | None]:
        return {name: self._registered.registrations.get(name) for name in self._parts.sinks}

    def _watched(self) -> list[RunStatus]:
        left_out = self._stored_before | self._journal.gone
        return [status for run_id, status in self._journal.statuses.items() if run_id not in left_out]

    def _leave_out_what_is_stored(self) -> None:
        registrations = self._registrations()
        caught_up = dict.fromkeys(registrations, 0) if self._caught_up is None else self._caught_up
        for status in self._watched():
            if status.info.run_id in self._before and not what_is_behind(registrations, [status]):
                self._stored_before.add(status.info.run_id)
                for name, registration in registrations.items():
                    if self._caught_up is not None:
                        caught_up[name] += sink_progress(registration, [status]).position
        self._caught_up = caught_up

    def _turn(self, phase: str) -> None:
        """Tend the children, read how far everything is, show it."""
        now = time.monotonic()
        for child in self._parts.all():
            child.tend(now)
        if self._server is not None and (told := self._server.tend(now)) is not None:
            say(told, err=True)
        self._note_pids()
        self._tell_stopped()
        self._journal.update()
        for line in self.troubles.losses():
            say(line, err=True)
        self._registered.update()
        started = {status.info.device for run, status in self._journal.statuses.items() if run not in self._before}
        for device, child in self._parts.acquisitions.items():
            child.is_settled = child.is_settled or device in started
        if self._display is not None:
            self._leave_out_what_is_stored()
            seen = snapshot(now, self._watched(), self._registrations(), self._before, self._caught_up or {})
            self._rates.add(seen)
            away = self.troubles.away()
            known = {name: progress for name, progress in seen.sinks.items() if name not in away}
            for line in self._stalls.note(now, known):
                say(line, err=True)
            restarts = {child.spec.name: child.restarts for child in self._parts.all()}
            self._display.show(View(now - self._acquiring_since, phase, seen, self._rates, restarts))

    def _tell_stopped(self) -> None:
        for device, child in self._parts.acquisitions.items():
            if child.failure is not None and device not in self.stopped:
                self.stopped[device] = f"{device} records no more: {child.failure}"
                say(self.stopped[device], err=True)

    def _await(self, phase: str, is_there: Callable[[], bool], timeout_s: float, stop: threading.Event) -> None:
        end = time.monotonic() + timeout_s
        while not stop.is_set() and not is_there():
            self._turn(phase)
            if time.monotonic() > end:
                raise CannotStartError(f"{phase}: nothing for {timeout_s:.0f} s; see {self._parts.logs}")
            stop.wait(_TURN_S / 2)

    def _await_sinks(self, stop: threading.Event) -> None:
        """Wait for the sinks to open; those that take long do not keep the boards waiting: the journal keeps all."""
        end = time.monotonic() + _SINKS_S
        while not stop.is_set() and not self._sinks_are_there():
            self._turn("starting the sinks")
            if time.monotonic() > end:
                for name, child in self._parts.sinks.items():
                    if not child.is_settled:
                        child.is_settled = True  # when it ends it is started again; the recording goes on
                        say(f"{name} is still opening what it has; it stores later what comes meanwhile", err=True)
                return
            stop.wait(_TURN_S / 2)

    def _sinks_are_there(self) -> bool:
        for line in self.troubles.refusals():
            say(line, err=True)
        failed, away = self.troubles.failed(), self.troubles.away()
        for name, child in self._parts.sinks.items():
            child.is_settled = child.is_settled or self._registered.was_heard(name) or name in away
        if failed and len(failed) == len(self._parts.sinks):
            raise CannotStartError("; ".join(failed.values()))
        return all(child.is_settled for child in self._parts.sinks.values())

    def _is_overdue(self) -> bool:
        late_s = time.monotonic() - self._acquiring_since - _OVERTIME_S
        return self._duration_s is not None and late_s > self._duration_s

    def _start(self, children: Iterable[Child]) -> None:
        now = time.monotonic()
        for child in children:
            child.start(now)

    def _note_pids(self) -> None:
        """Keep `logs/pids.json` as things are: which process is which, for people and tests."""
        pids = {child.spec.name: child.pid for child in self._parts.all()}
        if pids != self._pids:
            self._pids = pids
            try:
                files.replace(self._parts.logs / PIDS_FILE, json.dumps(pids, indent=2).encode())
            except OSError as error:  # nothing depends on it, least of all the recording
                if not self._is_pids_problem_told:
                    self._is_pids_problem_told = True
                    log.warning("pids not written", extra={"folder": str(self._parts.logs), "cause": str(error)})
