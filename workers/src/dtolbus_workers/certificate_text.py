"""The certificate as text: for people, and as JSON for machines. Pure."""

import json
from dataclasses import asdict
from typing import Any

import msgspec

from dtolbus.manifest import DELETED
from dtolbus.ranges import in_words
from dtolbus_workers.certificate import Certificate, Line


def as_json(certificate: Certificate) -> str:
    """Return the certificate for machines."""
    body: dict[str, Any] = {
        "complete": certificate.complete,
        "runs": certificate.runs,
        "left_out": certificate.left_out,
        "losses": certificate.losses,
        "failures": certificate.failures,
        "remarks": certificate.remarks,
        "sinks": [
            {**asdict(line), "gaps": [msgspec.structs.asdict(gap) for gap in line.gaps], "complete": line.complete}
            for line in certificate.lines
        ],
    }
    return json.dumps(body, indent=2)


def as_text(certificate: Certificate) -> list[str]:
    """Return the certificate for people, a line each."""
    lines = _table([_HEADINGS, *(_cells(line) for line in certificate.lines)]) if certificate.lines else []
    for line in certificate.lines:
        where = f"{line.sink} {line.stream} {line.run_id}"
        lines += [f"  {where}: gap {in_words(gap.from_index, gap.to_index)}: {gap.cause}" for gap in line.gaps]
        lines += [f"  {where}: {remark}" for remark in line.remarks]
        if line.mending:
            lines.append(f"  {where}: {line.missing} records missing, {line.different} differ; {line.mending}")
        elif line.missing > line.gone:
            room = "make room first, then " if line.has_no_room else ""
            count = line.missing - line.gone
            how = f"{room}`dtolbus up --catch-up`, or the start of its worker, fills them in"
            lines.append(f"  {where}: {count} records missing; {how}")
        if line.gone:
            lines.append(f"  {where}: {line.gone} records missing for good: the journal does not have them any more")
        if line.behind:
            lines.append(f"  {where}: {line.behind} records behind; the run is still recorded")
        if line.put_aside:
            lines.append(f"  {where}: {line.put_aside} records put aside; `put_aside` says why")
    lines += [f"  {text}" for text in (*certificate.failures, *certificate.losses, *certificate.remarks)]
    if not certificate.lines and not certificate.failures:
        lines.append("nothing to compare: no run here" if not certificate.runs else "nothing to compare: no sink here")
    return [*lines, _verdict(certificate)]


def verifying(what: str, percent: int) -> str:
    """Return the line that tells how far it is; `dtolbus up` knows it by its beginning and its end."""
    return f"verifying {what}: {percent} %"


def _verdict(certificate: Certificate) -> str:
    if not certificate.complete:
        return "INCOMPLETE"
    if certificate.losses:
        return "COMPLETE: every sink has what the journal has; what is missing in the journal itself stands above"
    if certificate.left_out:
        count = certificate.left_out
        others = "1 other run" if count == 1 else f"{count} other runs"
        return f"COMPLETE: nothing is missing in what was recorded now; `dtolbus verify` checks {others} too"
    return "COMPLETE: nothing is missing"


_HEADINGS = ("sink", "stream", "run", "expected", "stored", "backfilled", "gaps", "twice", "compared with the journal")
_NUMBERS = range(3, 8)


def _cells(line: Line) -> tuple[str, ...]:
    numbers = (line.expected, line.stored, line.backfilled, len(line.gaps), line.duplicates)
    return line.sink, line.stream, line.run_id, *map(str, numbers), _compared(line)


def _compared(line: Line) -> str:
    if line.different:
        return f"{line.different} records DIFFER"
    form = " as float32" if line.float32 else ""
    equal = [
        f"{line.samples} values{form}" if line.samples else "",
        f"{line.summaries} summaries" if line.summaries else "",
    ]
    text = " and ".join(filter(None, equal))
    words = [f"{text} equal" if text else ""]
    words.append(f"{line.not_compared} not compared: {DELETED}" if line.not_compared else "")
    words.append(f"{line.unreadable} not compared: damaged in the journal" if line.unreadable else "")
    compared = ", ".join(filter(None, words)) or "nothing to compare"
    return compared if line.complete else f"{compared}, INCOMPLETE"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
