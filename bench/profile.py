"""Where the processes spend their time at 20 MB/s: `python -m bench.profile [--seconds S]`, by py-spy.

A board, the gateway and a worker of each kind run together; each process is looked at 100 times a second, one after
another. Needs py-spy on the PATH: `uv tool install py-spy`.
"""

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from tests.faults.own_postgres import own_postgres

from bench.acquiring import Stream, journaled, start_board
from bench.stack import Stack, cpu_s, stack, wait_until

BOARD = Stream(1_250_000.0, channels=8, block_samples=12_500)
WORKERS = {
    "parquet": ("--layout", "wide", "--values", "codes"),
    "sqlite": ("--blocks", "summary"),
    "csv": ("--blocks", "summary"),
    "jsonl": ("--blocks", "summary"),
}
_TOP = 8


@click.command()
@click.option("--seconds", type=click.FloatRange(1.0), default=10.0, show_default=True, help="Of each process.")
def main(seconds: float) -> None:
    """Print for each process its share of a core, and the functions in which it is most of that time."""
    if shutil.which("py-spy") is None:
        raise click.UsageError("py-spy is not on the PATH: uv tool install py-spy")
    with tempfile.TemporaryDirectory(prefix="bench-profile-") as folder, stack(Path(folder) / "data") as made:
        for line in _profiles(made, seconds):
            click.echo(line)


def _profiles(made: Stack, seconds: float) -> Iterator[str]:
    with own_postgres() as server:
        yield from _with_workers(made, server.dsn, seconds)


def _with_workers(made: Stack, dsn: str, seconds: float) -> Iterator[str]:
    made.start_gateway()
    made.start_worker("postgres", env={"DTOLBUS_DSN": dsn})
    for kind, options in WORKERS.items():
        made.start_worker(kind, "--out", str(made.data / kind), *options)
    start_board(made, BOARD, None)
    wait_until(lambda: journaled(made) > 0, 30.0, "the board begins")
    for name, child in made.children.items():
        before = cpu_s(child.pid)
        samples = _looked_at(child.pid, made.data / f"{name}.stacks", seconds)
        yield f"{name}: {100 * (cpu_s(child.pid) - before) / seconds:.0f} % of a core; of its working time:"
        for function, count in samples.most_common(_TOP):
            yield f"    {100 * count / samples.total():3.0f} %  {function}"
        made.check()


def _looked_at(pid: int, path: Path, seconds: float) -> Counter[str]:
    """Return how often the process was seen working in each function, system calls counted to their caller."""
    command = ["py-spy", "record", "--pid", str(pid), "--duration", str(round(seconds)), "--format", "raw"]
    subprocess.run([*command, "--output", str(path)], check=True, capture_output=True)  # noqa: S603  # a list of arguments, no shell
    found: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stacked, _, count = line.rpartition(" ")
        found[stacked.rpartition(";")[2]] += int(count)
    return found


if __name__ == "__main__":
    main()
