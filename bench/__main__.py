"""`python -m bench`: measures, and says which goals are met."""

import difflib
import sys

import click
import msgspec

from bench.machine import machine
from bench.registry import BENCHES, LONG, about
from bench.report import Report, line
from bench.running import commit, now, place, results


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the machine; the lines go to stderr.")
@click.option("--quick", is_flag=True, help="Fewer and shorter trials: whether it runs, not how fast.")
@click.option("--list", "as_list", is_flag=True, help="Say what there is.")
def main(names: tuple[str, ...], as_json: bool, quick: bool, as_list: bool) -> None:
    """Measure our paths against their references, all or those named. Ends with 1 where a goal is not met."""
    if as_list:
        for name in BENCHES:
            click.echo(f"{name}: {about(name)}")
        return
    for name in names:
        _check(name)
    left_out = tuple(name for name in BENCHES if quick and not names and name in LONG)
    found = []
    for result in results([name for name in names or BENCHES if name not in left_out], quick=quick):
        click.echo(line(result), err=as_json)
        found.append(result)
    if left_out:
        click.echo(f"left out, because they need minutes: {', '.join(left_out)}", err=as_json)
    if as_json:
        report = Report(machine(place()), now(), commit(), quick, left_out, tuple(found))
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    sys.exit(0 if all(result.met for result in found) else 1)


def _check(name: str) -> None:
    if name not in BENCHES:
        near = difflib.get_close_matches(name, BENCHES, n=1, cutoff=0.3)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise click.UsageError(f"there is no bench {name!r}: {meant}There are {', '.join(BENCHES)}.")


if __name__ == "__main__":
    main(prog_name="python -m bench")
