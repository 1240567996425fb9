"""`python -m tests.fuzz NAME… [--seconds S] [--seed N]`: try decoders on inputs made from the corpus and valid ones.

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
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.corpus import CORPUS, inputs_of
from tests.fuzz.drivers import DECODERS, Decoder
from tests.fuzz.mutating import mutated

_SPARE_BYTES = 512 << 20
"""What an input may have allocated, beyond what the process has: a header that claims 4 GB must not get it."""
_LONGEST_S = 10


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


class Finds:
    """What failed: one input for each place in the code."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.places: dict[str, int] = {}

    def note(self, data: bytes, error: BaseException) -> None:
        """Keep the input, unless one that failed at the same place is known."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "tests/fuzz" not in f.filename and "/python3" not in f.filename] or frames
        place = f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        self.places[place] = self.places.get(place, 0) + 1
        if self.places[place] > 1:
            return
        path = CORPUS / self._name / hashlib.sha256(data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{self._name}: {place}: {str(error)[:200]} ({path.name}, {len(data)} bytes)", flush=True)
        traceback.print_exception(error, limit=-6)


def tried(decoder: Decoder, data: bytes, finds: Finds) -> None:
    """Try one input."""
    signal.alarm(_LONGEST_S)
    faulthandler.dump_traceback_later(6 * _LONGEST_S, exit=True)
    try:
        decoder.run(data)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever it is, it was found
        signal.alarm(0)
        finds.note(data, error)
    finally:
        signal.alarm(0)


def looped(name: str, seconds: float, seed: int) -> tuple[int, Finds]:
    """Try mutations of valid inputs and the corpus; return how many, and what was found."""
    decoder, finds = DECODERS[name], Finds(name)
    known = inputs_of(name)
    chance = random.Random(seed)
    end, count = time.monotonic() + seconds, 0
    with bounded():
        for data in known:
            tried(decoder, data, finds)
        while time.monotonic() < end:
            data = mutated(chance.choice(known), chance, known, in_parts=decoder.in_parts)
            tried(decoder, data, finds)
            count += 1
    return count, finds


def by_atheris(name: str, seconds: float, seed: int) -> None:
    """The same, led by what of our code an input reaches; ends the process."""
    import atheris  # an own dependency group: it is not for every machine

    decoder, finds = DECODERS[name], Finds(name)
    known = inputs_of(name)
    atheris.instrument_all()
    chance = random.Random(seed)
    count = 0

    def one(data: bytes) -> None:
        nonlocal count
        count += 1
        tried(decoder, data, finds)

    def mutator(data: bytes, most: int, number: int) -> bytes:
        chance.seed(number)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, most))[:most]
        return mutated(data, chance, known, in_parts=decoder.in_parts)[:most]

    found = CORPUS.parent / ".reached" / name
    found.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(known):
        (found / f"seed-{number}").write_bytes(data)
    words = [f"-max_total_time={int(seconds)}", f"-seed={seed or 1}", "-max_len=262144", "-rss_limit_mb=0", str(found)]
    atheris.Setup([sys.argv[0], *words], one, custom_mutator=mutator)
    import atexit

    atexit.register(lambda: print(_told(name, count, finds), flush=True))
    with bounded():
        atheris.Fuzz()


def _told(name: str, count: int, finds: Finds) -> str:
    what = "; ".join(f"{place} ({times})" for place, times in finds.places.items())
    return f"{name}: {count} executions, found: {what or 'nothing'}"


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DECODERS)}; none: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--atheris", action="store_true", help="led by coverage; one decoder")
    asked = parser.parse_args(words)
    for name in asked.names:
        if name not in DECODERS:
            parser.error(f"{name}: there are {', '.join(DECODERS)}")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    if asked.atheris:
        by_atheris(asked.names[0], asked.seconds, asked.seed)
    failed = False
    for name in asked.names or DECODERS:
        print(f"{name}: {asked.seconds:g} s, --seed {asked.seed}", flush=True)
        count, finds = looped(name, asked.seconds, asked.seed)
        print(_told(name, count, finds), flush=True)
        failed = failed or bool(finds.places)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
