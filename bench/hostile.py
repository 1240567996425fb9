"""What hostile peers do to a running stack: `python -m bench.hostile [NAME…] [--seconds S] [--json] [--keys]`.

A simulated board at 50 kS/s, the gateway, and three sinks run together: calm, under one attack after another, calm.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec
from tests.faults import hostile, hostile_keys

from bench.attacking import Campaign, Phase, attack_all
from bench.machine import machine
from bench.measuring import QUICK as PLAN
from bench.measuring import Case, Result, at_most, measure
from bench.report import Report, line
from bench.running import commit, failed, now, place

RATIO = 2.0
MEMORY_MB = 300.0


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice([*hostile.ATTACKS, *hostile_keys.ATTACKS]))
@click.option(
    "--seconds", type=click.FloatRange(1.0), default=10.0, show_default=True, help="Of each attack, and calm."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the machine; the lines go to stderr.")
@click.option("--keys", is_flag=True, help="The gateway asks for keys, and there are attacks on that.")
def main(names: tuple[str, ...], seconds: float, as_json: bool, keys: bool) -> None:
    """Attack a gateway, and say what acquisition feels of it. Ends with 1 where a goal is not met."""
    if not keys and (wrong := set(names) & hostile_keys.ATTACKS.keys()):
        raise click.UsageError(f"{min(wrong)} needs --keys")
    known = [*hostile.ATTACKS, *(hostile_keys.ATTACKS if keys else ())]
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-hostile-", dir=place()) as folder:
        for result in _results(Path(folder) / "data", names or known, seconds, keys=keys):
            click.echo(line(result), err=as_json)
            found.append(result)
    if as_json:
        report = Report(machine(place()), now(), commit(), seconds < 10, (), tuple(found))
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    sys.exit(0 if all(result.met for result in found) else 1)


def _results(data: Path, names: Sequence[str], seconds: float, *, keys: bool) -> Iterator[Result]:
    try:
        campaign = attack_all(data, names, seconds, require_keys=keys)
        for case in _cases(campaign):
            yield measure(case, PLAN)
    except Exception as error:
        yield failed("hostile", error)


def _cases(campaign: Campaign) -> Iterator[Case]:
    """Yield, for each attack, how late acquisition was, by the calm, and the gateway's memory."""
    calm = campaign.late.p99_ms(*(phase.span for phase in campaign.calm))
    alone = campaign.late.p99_ms(campaign.busy.span)
    for phase in campaign.attacks:
        late = campaign.late.p99_ms(phase.span)
        for number, what in enumerate(("in acquisition's hands", "durable")):
            said = f"{_cpu(phase)}; beside a process that only takes a core {alone[number]:.3g} ms"
            told = f"{phase.name}: a block's last sample → {what}, p99, against calm"
            yield _case(told, "ms", late[number], calm[number], RATIO, said)
        yield _case(f"{phase.name}: the gateway's peak RSS", "MB", phase.peak_mb, None, MEMORY_MB)
    wrong = "afterwards: exit code of `dtolbus verify`, all sinks against the journal"
    said = f"{len(campaign.late.over_ns)} records; {campaign.verdict}; a new subscriber was served"
    yield _case(wrong, "", campaign.wrong, None, 0, said)


def _case(what: str, unit: str, ours: float, reference: float | None, most: float, note: str = "") -> Case:
    """Return the case of what was measured already."""
    again = None if reference is None else lambda: reference
    return Case("hostile", what, unit, lambda: ours, again, at_most(most), trials=1, note=lambda: note)


def _cpu(phase: Phase) -> str:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in phase.cpu.items())
    return f"of one core: {shares}"


if __name__ == "__main__":
    main(prog_name="python -m bench.hostile")
