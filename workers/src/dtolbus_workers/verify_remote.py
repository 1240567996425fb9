"""`dtolbus verify --catchup`: sinks on this machine against a journal on another, read through its gateway."""

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from dtolbus.dsn import dsn_of
from dtolbus.errors import UsageError
from dtolbus.keys import Keys
from dtolbus.registrations import Registration
from dtolbus.remote import RemoteJournal
from dtolbus.runs import whole_run_id
from dtolbus_workers.certificate import Certificate
from dtolbus_workers.registry import SINKS
from dtolbus_workers.settling import settle
from dtolbus_workers.verify import Tell, certified, unheard

_READINGS_ONLY = ("csv", "jsonl")


def verify_remote(
    url: str,
    sinks: Collection[Registration],
    run_ids: Collection[str] = (),
    tell: Tell = unheard,
    keys: Keys | None = None,
) -> Certificate:
    """Compare the sinks with every run that the gateway at `url` serves, or with those named; `tell` as in `verify`.

    `keys` are those of this machine, where the gateway asks for some. Raises CannotStartError where no
    gateway answers, or lets them in, UsageError where it has no such run.
    """
    with RemoteJournal(url, keys=keys) as journal:
        settle(journal)
        run_ids = {whole_run_id(given, [run.info.run_id for run in journal.runs]) for given in run_ids}
        runs = [run for run in journal.runs if not run_ids or run.info.run_id in run_ids]
        unknown = run_ids - {run.info.run_id for run in runs}
        if unknown:
            raise UsageError(f"there is no run {min(unknown)} at {url}")
        return certified(sorted(runs, key=lambda run: (run.info.device, run.info.task, run.info.run_id)), sinks, tell)


def sinks_at(
    places: Collection[str],
    *,
    topics: tuple[str, ...] = (),
    blocks: str | None = None,
    schema: str = "public",
    environment: Mapping[str, str] = os.environ,
) -> list[Registration]:
    """Return the sinks that texts like `sqlite=/data/lab.sqlite` name. Raises UsageError.

    `blocks` is what they store of a block: CSV and JSONL take none where it is not told. `postgres` alone means the
    database of DTOLBUS_DSN, or DTOLBUS_DSN_FILE.
    """
    found = []
    kinds = Counter(place.partition("=")[0] for place in places)
    for text in places:
        kind, _, place = text.partition("=")
        if kind not in SINKS:
            raise UsageError(f"--at {kind}: {kind!r} is not a sink; there are {', '.join(SINKS)}")
        if kind == "postgres":
            place = place or dsn_of(environment) or ""
        if not place:
            raise UsageError(f"--at {kind}: say where it is, like --at sqlite=/data/lab.sqlite")
        if kind != "postgres" and not Path(place).exists():
            raise UsageError(f"--at {kind}={place}: there is no such file or folder")
        takes_blocks = kind not in _READINGS_ONLY or blocks not in (None, "skip")
        found.append(
            Registration(
                name=kind if kinds[kind] == 1 or kind == "postgres" else f"{kind} {place}",
                sink=kind,
                place=place,
                destination_id="",
                topics=topics or (() if takes_blocks else ("reading/",)),
                options={"schema": schema, **({} if blocks is None else {"blocks": blocks})},
            )
        )
    return found
