"""What hostile peers do to a running stack: `python -m bench.hostile [NAME…] [--seconds S] [--rounds N] [--keys]`.

A simulated board at 50 kS/s, the gateway, and three sinks run together: calm and under attack by turns.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import click
import msgspec
from tests.faults import hostile, hostile_keys

from bench.attacking import Attack, Campaign, attack_all
from bench.machine import machine
from bench.measuring import Case, Pair, Result, at_most, summary
from bench.report import Report, line
from bench.running import commit, failed, now, place

RATIO = 2.0
MEMORY_MB = 300.0


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice([*hostile.ATTACKS, *hostile_keys.ATTACKS]))
@click.option(
    "--seconds", type=click.FloatRange(1.0), default=10.0, show_default=True, help="Of each attack, and calm."
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Attacks of each kind.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the machine; the lines go to stderr.")
@click.option("--keys", is_flag=True, help="The gateway asks for keys, and there are attacks on that.")
def main(names: tuple[str, ...], seconds: float, rounds: int, as_json: bool, keys: bool) -> None:
    """Attack a gateway, and say what acquisition feels of it. Ends with 1 where a goal is not met."""
    if not keys and (wrong := set(names) & hostile_keys.ATTACKS.keys()):
        raise click.UsageError(f"{min(wrong)} needs --keys")
    known = [*hostile.ATTACKS, *(hostile_keys.ATTACKS if keys else ())]
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-hostile-", dir=place()) as folder:
        for result in _results(Path(folder) / "data", names or known, seconds, rounds, keys=keys):
            click.echo(line(result), err=as_json)
            found.append(result)
    if as_json:
        report = Report(machine(place()), now(), commit(), seconds < 10, (), tuple(found))
        click.echo(msgspec.json.format(msgspec.json.encode(report)))
    sys.exit(0 if all(result.met for result in found) else 1)


def _results(data: Path, names: Sequence[str], seconds: float, rounds: int, *, keys: bool) -> Iterator[Result]:
    try:
        yield from _found(attack_all(data, names, seconds, rounds=rounds, require_keys=keys))
    except Exception as error:
        yield failed("hostile", error)


def _found(campaign: Campaign) -> Iterator[Result]:
    """Yield, for each kind of attack, how late acquisition was, by the calm beside it, and the gateway's memory."""
    busy = campaign.late.p99_ms(campaign.busy.span)
    for name in dict.fromkeys(attack.phase.name for attack in campaign.attacks):
        attacks = [attack for attack in campaign.attacks if attack.phase.name == name]
        late = [campaign.late.p99_ms(attack.phase.span) for attack in attacks]
        calm = [campaign.late.p99_ms(attack.before.span, attack.after.span) for attack in attacks]
        for number, what in enumerate(("in acquisition's hands", "durable")):
            said = f"{_cpu(attacks)}; beside a process that only takes a core {busy[number]:.3g} ms"
            pairs = [Pair(ours[number], by[number]) for ours, by in zip(late, calm, strict=True)]
            told = f"{name}: a block's last sample → {what}, p99, against calm"
            yield summary(_case(told, "ms", RATIO), pairs, said)
        peak = max(attack.phase.peak_mb for attack in attacks)
        yield summary(_case(f"{name}: the gateway's peak RSS", "MB", MEMORY_MB), [Pair(peak, None)])
    wrong = "afterwards: exit code of `dtolbus verify`, all sinks against the journal"
    said = f"{len(campaign.late.over_ns)} records; {campaign.verdict}; a new subscriber was served"
    yield summary(_case(wrong, "", 0), [Pair(campaign.wrong, None)], said)


def _case(what: str, unit: str, most: float) -> Case:
    """Return the case of what was measured already."""
    return Case("hostile", what, unit, lambda: float("nan"), None, at_most(most))


def _cpu(attacks: Sequence[Attack]) -> str:
    shares = {kind: median(attack.phase.cpu[kind] for attack in attacks) for kind in attacks[0].phase.cpu}
    return "of one core: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())


if __name__ == "__main__":
    main(prog_name="python -m bench.hostile")
