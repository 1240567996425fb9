"""`python -m tests.fuzz [NAME…] [--seconds S] [--seed N]`: try decoders on inputs made from the corpus and valid ones.

By atheris where it is installed (`uv run --group fuzz …`), else by a loop of mutations. What is found is kept in
`tests/fuzz/corpus/NAME/`, where the tests try it ever after; the exit code is 1 then.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import logging
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # an own dependency group: it is not for every machine
    atheris: Any = None  # type: ignore[no-redef]

_OURS = ["dtolbus", "dtolbus_workers", "dtolbus_producer"]

with atheris.instrument_imports(include=_OURS) if atheris else contextlib.nullcontext():
    from tests.fuzz.corpus import CORPUS, inputs_of
    from tests.fuzz.drivers import DECODERS, Decoder
    from tests.fuzz.mutating import mutated

_SPARE_BYTES = 512 << 20
"""What an input may have allocated, beyond what the process has: a header that claims 4 GB must not get it."""
_LONGEST_S = 10
_LONGEST_INPUT = 1 << 18
_TOLD_EVERY_S = 60.0


class Hang(BaseException):
    """An input took too long; no decoder catches it."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Have an input that takes too long, or too much memory, fail."""

    def over(number: int, frame: object) -> None:
        raise Hang(f"over {_LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, over)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _SPARE_BYTES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


class Trial:
    """One decoder, and what failed of it: one input for each place in the code."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.decoder: Decoder = DECODERS[name]
        self.known = inputs_of(name)
        self.count = 0
        self.places: dict[str, int] = {}

    def one(self, data: bytes) -> None:
        """Try an input."""
        self.count += 1
        signal.alarm(_LONGEST_S)
        faulthandler.dump_traceback_later(6 * _LONGEST_S, exit=True)
        try:
            self.decoder.run(data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it was found
            signal.alarm(0)
            self._note(data, error)
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()

    def mutated(self, data: bytes, chance: random.Random) -> bytes:
        return mutated(data, chance, self.known, in_parts=self.decoder.in_parts)

    def told(self) -> str:
        what = "; ".join(f"{place} ({times})" for place, times in self.places.items())
        return f"{self.name}: {self.count} executions, found: {what or 'nothing'}"

    def _note(self, data: bytes, error: BaseException) -> None:
        """Keep the input, unless one that failed at the same place is known."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/tests/" not in f.filename and "/python3" not in f.filename] or frames
        place = f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        self.places[place] = self.places.get(place, 0) + 1
        if self.places[place] > 1:
            return
        path = CORPUS / self.name / hashlib.sha256(data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{self.name}: {place}: {str(error)[:200]} ({path.name}, {len(data)} bytes)", flush=True)
        traceback.print_exception(error, limit=-6)


def looped(name: str, seconds: float, seed: int) -> Trial:
    """Try mutations of valid inputs and the corpus."""
    trial, chance = Trial(name), random.Random(seed)
    end = time.monotonic() + seconds
    with bounded():
        for data in trial.known:
            trial.one(data)
        while time.monotonic() < end:
            trial.one(trial.mutated(chance.choice(trial.known), chance))
    return trial


def led_by_coverage(name: str, seconds: float, seed: int) -> None:
    """The same, led by what of our code an input reaches; ends the process."""
    trial, chance = Trial(name), random.Random(seed)
    told_at = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal told_at
        trial.one(data)
        if time.monotonic() - told_at > _TOLD_EVERY_S:
            told_at = time.monotonic()
            print(trial.told(), flush=True)

    def changed(data: bytes, most: int, number: int) -> bytes:
        chance.seed(number)
        if chance.random() < 0.7:
            with contextlib.suppress(MemoryError):  # parts of parts may come to more than there is
                return trial.mutated(bytes(data), chance)[:most]
        return bytes(atheris.Mutate(data, max(1, len(data))))[:most]  # which aborts where there may be nothing at all

    with tempfile.TemporaryDirectory() as reached:
        for number, data in enumerate(trial.known):
            (Path(reached) / f"known-{number}").write_bytes(data)
        words = [f"-max_total_time={int(seconds)}", f"-seed={seed or 1}", f"-max_len={_LONGEST_INPUT}", "-timeout=60"]
        atheris.Setup(
            [sys.argv[0], *words, "-rss_limit_mb=0", f"-artifact_prefix={reached}/", reached],
            one,
            custom_mutator=changed,
        )
        with bounded():
            atheris.Fuzz()


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DECODERS)}; none: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 1 << 31))
    parser.add_argument("--loop", action="store_true", help="the loop, also where atheris is installed")
    parser.add_argument("--led", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(words)
    for name in asked.names:
        if name not in DECODERS:
            parser.error(f"{name}: there are {', '.join(DECODERS)}")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if asked.led:
        led_by_coverage(asked.names[0], asked.seconds, asked.seed)
    failed = False
    for name in asked.names or DECODERS:
        how = "the loop" if asked.loop or not atheris else "atheris"
        print(f"{name}: {asked.seconds:g} s by {how}, --seed {asked.seed}", flush=True)
        failed |= tried(name, asked) if how == "atheris" else told(looped(name, asked.seconds, asked.seed))
    return int(failed)


def told(trial: Trial) -> bool:
    """Say what came of it; return whether anything was found."""
    print(trial.told(), flush=True)
    return bool(trial.places)


def tried(name: str, asked: argparse.Namespace) -> bool:
    """Run a process for the decoder, which atheris ends; return whether anything was found."""
    before = set((CORPUS / name).glob("*"))
    options = ["--led", "--seconds", str(asked.seconds), "--seed", str(asked.seed)]
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", name, *options], check=False)
    return done.returncode != 0 or set((CORPUS / name).glob("*")) != before


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
