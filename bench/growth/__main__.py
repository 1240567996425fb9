"""`python -m bench.growth`: measures at several sizes, and says how each cost grows."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec

from bench.growth import length, runs, segment, wire
from bench.growth.fits import Growth, Series
from bench.growth.table import text
from bench.machine import machine
from bench.measuring import FULL, QUICK
from bench.registry import Setting
from bench.running import commit, now, place

SERIES: dict[str, Callable[[Setting], Iterator[Series]]] = {
    "channels": wire.channels_of_fixed_blocks,
    "channels-samples": wire.channels_of_fixed_samples,
    "block-size": wire.block_sizes,
    "subscribers": wire.subscribers,
    "runs": runs.old_runs,
    "length": length.run_lengths,
    "segment": segment.segments,
}


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(list(SERIES)))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the machine; the tables go to stderr.")
@click.option("--quick", is_flag=True, help="Fewer sizes and shorter trials: whether it runs, not how fast.")
def main(names: tuple[str, ...], as_json: bool, quick: bool) -> None:
    """Measure how cost grows, all or what is named. Ends with 1 where a cost grows worse than linearly."""
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-growth-", dir=place()) as folder:
        setting = Setting(QUICK if quick else FULL, Path(folder), quick)
        for name in names or SERIES:
            for series in SERIES[name](setting):
                click.echo(f"{text(series)}\n", err=as_json)
                found.append(series)
    if as_json:
        growth = Growth(machine(place()), now(), commit(), quick, tuple(found))
        click.echo(msgspec.json.format(msgspec.json.encode(growth)))
    sys.exit(0 if all(series.is_met for series in found) else 1)


if __name__ == "__main__":
    main(prog_name="python -m bench.growth")
