"""`dtolbus up`: gateway, sinks and acquisitions as child processes; then drain, stop, verify."""

import json
import logging
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from dtolbus import files
from dtolbus.cli import check_text
from dtolbus.errors import CannotStartError
from dtolbus.metricsoptions import MetricsPlace, telling
from dtolbus_producer.boards.sharing import refuse_shared
from dtolbus_producer.certifying import Certificate
from dtolbus_producer.children import Child, end_all
from dtolbus_producer.childrenfacts import ChildrenFacts, give_places
from dtolbus_producer.config import Config
from dtolbus_producer.journalfacts import journal_of
from dtolbus_producer.locking import locked
from dtolbus_producer.outside import registered_outside, sinks_besides
from dtolbus_producer.parts import (
    OVERTIME_S,
    Parts,
    check_ports,
    first_screen,
    gateway_answers,
    key_files,
    with_ports,
)
from dtolbus_producer.plan import batch_age_s
from dtolbus_producer.postgres_embedded import EMBEDDED, EmbeddedPostgres
from dtolbus_producer.progress import Rates
from dtolbus_producer.recovery import recover_device
from dtolbus_producer.remarking import RemarksWatch
from dtolbus_producer.shortfall import shortfalls
from dtolbus_producer.silences import Silences
from dtolbus_producer.stalls import LogTail, Stalls
from dtolbus_producer.table import Display, View, make_display, say
from dtolbus_producer.tasks import DeviceConfig
from dtolbus_producer.troubles import Troubles
from dtolbus_producer.watching import Watch

log = logging.getLogger(__name__)

LOCK_FILE = ".up.lock"
PIDS_FILE = "pids.json"
_TURN_S = 0.1
_GATEWAY_S = 90.0
"""How long the gateway may take to answer: a machine with much else to do starts it slowly."""
_SLOW_S = 10.0
"""How soon it is said that it takes long."""
_SINKS_S = 40.0
"""How long the boards wait for the sinks to open: longer than a worker waits for a schema that is in use, 30 s."""
_END_S = 20.0
_HURRY_S = 2.0
_NO_PROGRESS_S = 30.0


def run_up(config: Config, duration_s: float | None, stop: threading.Event, metrics: MetricsPlace | None = None) -> int:
    """Run the stack until its boards end, the time is over or `stop` is set; return the certificate's exit code.

    Without devices: until every sink has all that the journal holds; then the whole folder is verified.
    With `metrics` it tells of itself, and each part at the next port.

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
        keys = key_files(config, data)
        refuse_shared(config.devices)
        dsn = next((sink.dsn for sink in config.sinks if sink.kind == "postgres"), None)
        server = held.enter_context(EmbeddedPostgres(data)) if dsn == EMBEDDED else None
        dsn = dsn if server is None else server.dsn
        for line in first_screen(config, data):
            say(line)
        tell = held.enter_context(telling(metrics, "up"))
        for name, what in registered_outside(config, data):
            say(f"the sink {name!r} is {what}", err=True)
        parts = Parts(config, data, dsn=dsn, duration_s=duration_s, key_files=keys)
        served = {config.gateway.pub_port: "--pub-port", config.gateway.catchup_port: "--catchup-port"}
        for line in give_places(parts.all(), metrics, served):
            say(line)
        tell(ChildrenFacts(parts.all()))
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
            return _certified(config, session, certificate, dsn)


def _certified(config: Config, session: "Session", certificate: Certificate, dsn: str | None) -> int:
    """Compare what was recorded with what the sinks have, say what was not recorded, and return the exit code."""
    for line in session.troubles.at_the_end():
        certificate.fault(line)
    for device, log_path in session.silent_devices().items():
        certificate.fault(f"{device} acquired nothing{session.why_nothing()}; see {log_path}")
    if not config.devices:
        return certificate.verify([], [], dsn)
    for why in session.stopped.values():
        certificate.note(why)
    runs = [run.info.run_id for run in session.watch.new_runs()]
    sinks = session.troubles.registered_sinks()
    if not runs or not sinks:
        certificate.note("no run was recorded: nothing to compare" if sinks else "no sink: nothing to compare")
        return 1
    code = certificate.verify(runs, sinks, dsn)
    recorded = [status.info for status in session.watch.new_runs()]
    if others := sinks_besides(Path(config.data), [sink.name for sink in config.sinks], recorded):
        all_sinks = f"`dtolbus verify --data {Path(config.data).absolute()}` compares every sink"
        certificate.remark(f"not compared: {', '.join(others)}, which this stack does not run; {all_sinks}")
    for stream, told in session.watch.silent().items():
        certificate.remark(f"but not everything was recorded: {stream}: {told}, to its end")
        code = code or 1
    lacking = "; ".join(shortfalls(session.unfinished(config), session.watch.had()))
    if lacking and session.was_asked_to_stop:
        certificate.remark(f"stopped before its end: {lacking}")
    elif lacking:
        certificate.remark(f"but not everything was recorded: {lacking}")
        return code or 1
    return code


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
        self._acquired_s: float | None = None
        """How long the boards ran until then; None: they were not started."""
        self._pids: dict[str, int | None] = {}
        self._is_pids_problem_told = False
        self.watch = Watch(data, parts.sinks)
        self._silences = Silences(self.watch.backwards)
        self._rates = Rates()
        self._remarks = RemarksWatch(data / "journal")
        self._ages_s = {sink.name: batch_age_s(sink) for sink in config.sinks}
        logs = {name: LogTail(child.log) for name, child in parts.sinks.items()}
        for log_tail in logs.values():
            log_tail.mark()
        self._stalls = Stalls(self._ages_s, logs)
        self.troubles = Troubles(config.sinks, data, parts.sinks, self.watch, logs)
        self._display: Display | None = None
        self.stopped: dict[str, str] = {}
        """By device whose recording ended early, for want of room: what was said of it."""
        self.was_asked_to_stop = False
        """Whether the recording ended because somebody asked, not by itself."""

    def run(self, stop: threading.Event) -> None:
        """Start everything in order, watch it, and drain."""
        parts = self._parts
        self._start([parts.gateway, *parts.sinks.values()])
        self._await_gateway(stop)
        self._await_sinks(stop)
        if stop.is_set():
            self.was_asked_to_stop = True
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

    def silent_devices(self) -> dict[str, Path]:
        """Return the devices of which this session has no record, each with its log."""
        runs = (*self.watch.new_runs(), *self.watch.gone())
        heard = {status.info.device for status in runs if status.head}
        return {name: child.log for name, child in self._parts.acquisitions.items() if name not in heard}

    def unfinished(self, config: Config) -> list[DeviceConfig]:
        """Return the devices whose acquisition did not say itself that all was done."""
        return [device for device in config.devices if not self._parts.acquisitions[device.name].has_finished]

    def why_nothing(self) -> str:
        """Return why a device may have delivered nothing, where the reason is the end itself."""
        if not self.was_asked_to_stop:
            return ""
        if self._acquired_s is None:
            return ": stopped before the boards were started"
        return f": stopped {self._acquired_s:.1f} s after its board was started, before that delivered anything"

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
        self.watch.update()
        self._recover()  # the run of an acquisition that had to be killed
        self.watch.close()

    def _acquire(self, stop: threading.Event) -> None:
        """Watch until all acquisitions have ended; tell them to when the time is over or `stop` is set."""
        acquisitions = list(self._parts.acquisitions.values())
        while not all(child.is_done for child in acquisitions):
            self._turn("acquiring" if self._has_records() else "starting the boards")
            if stop.wait(_TURN_S) or self._is_overdue():
                break
        self.was_asked_to_stop = stop.is_set()
        self._acquired_s = time.monotonic() - self._acquiring_since
        self._turn("stopping the boards")
        end_all(acquisitions, _END_S)

    def _has_records(self) -> bool:
        return any(status.head for status in self.watch.new_runs())

    def _recover(self) -> None:
        """End the runs that nobody writes any more: they are to be stored too."""
        for device in self.watch.left_running():
            recover_device(self._parts.logs.parent / "journal", device)

    def _drain(self, stop: threading.Event) -> None:
        """Wait until every sink has all of every run, or `stop` is set; give up where none gets anything for 30 s."""
        most, moved_at = -1, time.monotonic()
        while not stop.is_set():
            self._turn("draining")
            behind = self.watch.behind(self._parts.acquisitions, besides=self.troubles.away())
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

    def _turn(self, phase: str, tended: Iterable[Child] | None = None) -> None:
        """Tend the children, all or those given, read how far everything is, show it."""
        now = time.monotonic()
        for child in self._parts.all() if tended is None else tended:
            child.tend(now)
        if self._server is not None and (told := self._server.tend(now)) is not None:
            say(told, err=True)
        self._note_pids()
        self._tell_stopped()
        self.watch.update()
        for line in self.troubles.news():
            say(line, err=True)
        started = {status.info.device for status in (*self.watch.new_runs(), *self.watch.gone())}
        for device, child in self._parts.acquisitions.items():
            child.is_settled = child.is_settled or device in started
        if self._display is not None:
            seen = self.watch.snapshot(now)
            self._rates.add(seen)
            known = {name: progress for name, progress in seen.sinks.items() if name not in self.troubles.away()}
            lines = [*self._stalls.note(now, known), *self._silences.note(now, self.watch.new_runs())]
            for line in lines:
                say(line, err=True)
            restarts = {child.spec.name: child.restarts for child in self._parts.all()}
            since_s, remarks = now - self._acquiring_since, self._remarks.lines(self.watch.new_runs())
            self._display.show(View(since_s, phase, seen, self._rates, restarts, self._ages_s, remarks))

    def _tell_stopped(self) -> None:
        for device, child in self._parts.acquisitions.items():
            if child.failure is not None and device not in self.stopped:
                self.stopped[device] = f"{device} records no more: {child.failure}"
                say(self.stopped[device], err=True)

    def _await_gateway(self, stop: threading.Event) -> None:
        """Wait for our own gateway: why it cannot start is the reason, whatever sinks say of who has its ports."""
        gateway, began, is_told = self._parts.gateway, time.monotonic(), False
        config, keys = self._gateway_config, self._parts.keys
        while not stop.is_set() and not gateway_answers(config, self._parts.identity, keys):
            self._turn("starting the gateway", [gateway])
            waited_s = time.monotonic() - began
            if waited_s > _GATEWAY_S:
                raise CannotStartError(f"the gateway does not answer after {_GATEWAY_S:.0f} s; see {gateway.log}")
            if waited_s > _SLOW_S and not is_told:
                is_told = True
                say(f"the gateway is still starting; it has {_GATEWAY_S:.0f} s, see {gateway.log}", err=True)
            stop.wait(_TURN_S / 2)
        gateway.is_settled = True

    def _await_sinks(self, stop: threading.Event) -> None:
        """Wait for the sinks to open; those that take long do not keep the boards waiting: the journal keeps all."""
        end = time.monotonic() + _SINKS_S
        while not stop.is_set() and not self._sinks_are_there():
            self._turn("starting the sinks")
            if time.monotonic() > end:
                for name, child in self._parts.sinks.items():
                    if not child.is_settled and child.failure is None:
                        child.is_settled = True  # when it ends it is started again; the recording goes on
                        say(f"{name} is still opening what it has; it stores later what comes meanwhile", err=True)
                return
            stop.wait(_TURN_S / 2)

    def _sinks_are_there(self) -> bool:
        failed, refused = self.troubles.failed(), self.troubles.refused()
        for name, child in self._parts.sinks.items():
            child.is_settled = child.is_settled or self.watch.was_heard(name) or name in refused
        if failed and len(failed) == len(self._parts.sinks):
            raise CannotStartError("; ".join(failed.values()))
        return all(child.is_settled or name in failed for name, child in self._parts.sinks.items())

    def _is_overdue(self) -> bool:
        late_s = time.monotonic() - self._acquiring_since - OVERTIME_S
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
