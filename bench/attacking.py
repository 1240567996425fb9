"""A stack that is attacked while it records: what was measured in each phase."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.faults.hostile import Target, attacking, nothing_but_work

from bench.acquiring import journaled
from bench.lateness import HeadWatch, Lateness, lateness
from bench.stack import Stack, cpu_s, stack, wait_until
from dtolbus.records import DaqBlock, RunInfo
from dtolbus.runs import list_runs
from dtolbus.subscriber import Subscriber

DEVICE, TASK = "sim0", "vibration"
RATE_HZ, CHANNELS, BLOCK_SAMPLES = 10_000.0, 5, 100
"""50 kS/s in all, a hundred blocks a second."""
SINKS = {"sqlite": ("--blocks", "samples"), "parquet": (), "csv": ("--blocks", "summary")}
_WARM_S = 2.0
_REST_S = 1.0
"""After an attack, before the next phase."""
_PATIENCE_S = 120.0


class Phase(NamedTuple):
    """What was measured while one thing happened."""

    name: str
    span: tuple[int, int]
    """Monotonic ns."""
    peak_mb: float
    """Of the gateway's RSS."""
    cpu: dict[str, float]
    """By process, share of one core."""


class Attack(NamedTuple):
    """An attack, and what was calm right before and after it: what else the machine does changes within minutes."""

    phase: Phase
    before: Phase
    after: Phase


class Campaign(NamedTuple):
    """All of it."""

    late: Lateness
    busy: Phase
    """A process that takes a core and attacks nobody."""
    attacks: list[Attack]
    wrong: int
    """Exit code of `dtolbus verify`."""
    verdict: str


def attack_all(data: Path, names: Sequence[str], seconds: float, *, rounds: int, require_keys: bool) -> Campaign:
    """Record, attack with each so often, and verify.

    Raises RuntimeError where a process ends, or what comes afterwards is not served.
    """
    with stack(data, require_keys=require_keys) as made:
        made.start_gateway()
        for kind, options in SINKS.items():
            place = data / "bus.sqlite" if kind == "sqlite" else data / kind
            made.start_worker(kind, "--out", str(place), *options)
        _start_board(made)
        wait_until(lambda: journaled(made) > 0, _PATIENCE_S, "the board begins")
        run = list_runs(data / "journal")[0].info
        target = _target(made, run)
        with HeadWatch(data / "journal" / DEVICE / TASK / run.run_id) as watch:
            time.sleep(_WARM_S)
            busy = _phase(made, nothing_but_work.__name__, target, seconds)
            phases = [_phase(made, "calm", None, seconds)]
            for name in [*names] * rounds:
                phases += [_phase(made, name, target, seconds), _phase(made, "calm", None, seconds)]
            _served(made)
            made.end("producer")
        wait_until(lambda: _is_stored(made), _PATIENCE_S, "the sinks have everything", every_s=0.2)
        with list_runs(data / "journal")[0] as folder:
            late = lateness(folder, watch)
        done = _verified(data)
    verdict = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
    attacks = [Attack(*found) for found in zip(phases[1::2], phases[::2], phases[2::2], strict=False)]
    return Campaign(late, busy, attacks, done.returncode, verdict)


def _start_board(made: Stack) -> None:
    task = {
        "name": TASK,
        "rate_hz": RATE_HZ,
        "block_samples": BLOCK_SAMPLES,
        "channels": [f"ch{place}" for place in range(CHANNELS)],
    }
    # callbacks in time: what is late is this machine's
    device = {"name": DEVICE, "board": "sim", "task": [task], "options": {"lateness_ms": 0.0, "drift_ppm": 0.0}}
    config = made.data / "bench.json"
    config.write_bytes(msgspec.json.encode({"device": [device]}))
    made.start("producer", "dtolbus-producer", "run", "--config", str(config), "--data", str(made.data))


def _target(made: Stack, run: RunInfo) -> Target:
    live, catchup = (int(url.rpartition(":")[2]) for url in made.urls)
    server = "" if made.ring is None else made.ring.made_server().public
    return Target(live, catchup, run.device, run.task, run.run_id, server)


def _phase(made: Stack, name: str, target: Target | None, seconds: float) -> Phase:
    """Let the stack run for so long, attacked or not."""
    pids = {kind: made.children[kind].pid for kind in ("producer", "gateway")}
    _forget_peak(pids["gateway"])
    before, start = {kind: cpu_s(pid) for kind, pid in pids.items()}, time.perf_counter_ns()
    worked_s = 0.0
    if target is None:
        time.sleep(seconds)
    else:
        worked_s = _attacked(name, target, seconds)
    end = time.perf_counter_ns()
    made.check()
    took_s = (end - start) / 1e9
    cpu = {kind: (cpu_s(pid) - before[kind]) / took_s for kind, pid in pids.items()}
    phase = Phase(name, (start, end), _peak_mb(pids["gateway"]), {"attacker": worked_s / seconds, **cpu})
    time.sleep(_REST_S)
    return phase


def _attacked(name: str, target: Target, seconds: float) -> float:
    """Attack by a process of its own, and return how long that worked, s."""
    with attacking(name, target, seconds) as attacker:
        said, errors = attacker.communicate()
    if attacker.returncode != 0:
        raise RuntimeError(f"the attack {name} failed: {(errors.strip().splitlines() or ['no word why'])[-1]}")
    return float(said)


def _served(made: Stack) -> None:
    """Have a new subscriber hear the run from its beginning to what comes now. Raises RuntimeError."""
    live, catchup = made.urls
    key = None if made.ring is None else made.key_of("bench")
    until, end = journaled(made), time.monotonic() + _PATIENCE_S
    with Subscriber(live, catchup=catchup, key=key) as subscriber:
        for record in subscriber:
            if isinstance(record, DaqBlock) and record.block_index > until:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"a new subscriber got {record} last")


def _is_stored(made: Stack) -> bool:
    made.check()
    return all(made.stored(kind) >= journaled(made) for kind in SINKS)


def _verified(data: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "dtolbus", "verify", "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # a list of arguments, no shell


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000
