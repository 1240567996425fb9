"""The wide layout of Parquet from `dtolbus up` to `read_parquet`, as the README has it."""

import contextlib
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.e2e.commands import run
from tests.e2e.stacks import Up, assert_complete, runs
from tests.e2e.test_catch_up import RECORDS, RUN, journal

from dtolbus import DaqBlock, read_parquet
from dtolbus.registrations import read_registrations

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_codes_are_recorded_verified_read_and_kept_when_it_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Up(
        tmp_path / "data", "--duration", "1.5", "--sinks", "parquet", "--layout", "wide", "--values", "codes"
    ) as up:
        assert_complete(up, up.end())
    (folder,) = runs(up.data)["sim0"]
    blocks = [block for block in folder.records(0, folder.status().head) if isinstance(block, DaqBlock)]
    found = read_parquet(up.data / "parquet")
    np.testing.assert_array_equal(found.data, np.concatenate([block.data for block in blocks], axis=1))
    np.testing.assert_array_equal(found.sample_index, np.arange(found.data.shape[1]))
    assert found.gaps == ()
    parts = sorted((up.data / "parquet" / "sim0").glob("*/*/part-*.parquet"))
    assert pq.read_schema(parts[0]).names == ["sample_index", "t_utc", "ai0", "ai1", "ai2", "ai3"]

    (example,) = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "read_parquet(" in text]
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, {})  # as a reader of the README does
    assert re.search(r"\(2, \d+\) \('V', 'V'\)", printed.getvalue())

    journal(tmp_path / "data")
    with Up(tmp_path / "data", "--catch-up") as again:
        assert_complete(again, again.end())
    (sink,) = read_registrations(up.data)
    assert (sink.options["layout"], sink.options["values"]) == ("wide", "codes")
    assert sink.positions[RUN.run_id].position == RECORDS
    late = read_parquet(up.data / "parquet", run_id=RUN.run_id, channels=RUN.channel_names[:1])
    assert late.data.shape == (1, RECORDS * 1000)
    late_part = next((up.data / "parquet").glob(f"*/*/{RUN.run_id}/part-*.parquet"))
    assert "value" not in pq.read_schema(late_part).names


def test_float32_is_what_the_certificate_says(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "0.5", "--sinks", "parquet", "--values", "float32") as up:
        assert_complete(up, up.end())
    assert re.search(r"parquet +sim0/vibration .* \d+ values as float32 equal", up.output)
    assert re.search(r"parquet +sim1/temperature .* \d+ values equal", up.output)
    shutil.rmtree(up.data / "parquet")
    assert run("dtolbus", "verify", "--data", str(up.data)).returncode == 1


@pytest.mark.parametrize(
    "words",
    [
        ("dtolbus-parquet", "--out", "out", "--values", "codes"),
        ("dtolbus", "up", "--sinks", "parquet", "--values", "codes", "--data", "data"),
    ],
)
def test_codes_in_the_long_layout_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = run(*words)
    assert refused.returncode == 2
    assert "codes need the layout wide" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
