"""Sample rows as text, against the standard library's writers."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from bench.items import SMALL, block, codes, run_info
from bench.measuring import Case, Goal, Repeated, at_least
from bench.registry import Setting
from dtolbus.records import DaqBlock, utc_from_ns
from dtolbus_workers.columns import SAMPLE_COLUMNS
from dtolbus_workers.text_format import CsvFormat, JsonlFormat, TextFormat


def csv_cases(setting: Setting) -> Iterator[Case]:
    """CSV rows of a block, against csv.writer."""
    yield _case(setting, "csv", "csv.writer", CsvFormat(), _by_csv_writer, at_least(5))


def jsonl_cases(setting: Setting) -> Iterator[Case]:
    """JSON lines of a block, against json.dumps for each row."""
    yield _case(setting, "jsonl", "json.dumps per row", JsonlFormat(), _by_json_dumps, at_least(8))


def _case(
    setting: Setting, name: str, against: str, text: TextFormat, by_hand: Callable[[DaqBlock], str], goal: Goal
) -> Case:
    run = run_info(SMALL)
    made = [block(run, index, codes(SMALL, first_sample=index * SMALL)) for index in range(8)]
    rows = sum(one.data.size for one in made)  # volts are computed once, for both

    def ours(times: int) -> None:
        for _ in range(times):
            for one in made:
                text.block_rows(one)

    def reference(times: int) -> None:
        for _ in range(times):
            for one in made:
                by_hand(one).encode()

    what = f"sample rows of blocks of 8 × {SMALL}, against {against}"
    trial_s = setting.plan.trial_s
    return Case(name, what, "rows/s", Repeated(ours, rows, trial_s), Repeated(reference, rows, trial_s), goal)


def _rows(block: DaqBlock) -> Iterator[tuple[Any, ...]]:
    """Yield the rows as one writes them by hand: what all channels share is made once."""
    offsets = block.sample_offsets_ns().tolist()
    indexes = range(block.first_sample_index, block.end_sample_index)
    monos = [block.t_mono_ns + offset for offset in offsets]
    utcs = [utc_from_ns(block.t_utc_ns + offset).isoformat() for offset in offsets]
    for channel, values in zip(block.channels, block.data.tolist(), strict=True):
        unit = block.units[channel]
        for index, mono, utc, value in zip(indexes, monos, utcs, values, strict=True):
            yield (
                block.run_id,
                block.device,
                block.task,
                channel,
                block.block_index,
                index,
                mono,
                utc,
                value,
                unit,
                None,
                None,
                None,
            )


def _by_csv_writer(block: DaqBlock) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(_rows(block))
    return out.getvalue()


def _by_json_dumps(block: DaqBlock) -> str:
    return "".join([json.dumps(dict(zip(SAMPLE_COLUMNS, row, strict=True))) + "\n" for row in _rows(block)])
