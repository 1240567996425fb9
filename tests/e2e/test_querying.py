"""What docs/querying.md shows runs, and finds the tone that the simulated board has."""

import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.stacks import Up, assert_complete

PAGE = (Path(__file__).parents[2] / "docs" / "querying.md").read_text("utf-8")


def test_the_spectrum_finds_the_tone(tmp_path: Path) -> None:
    with Up(tmp_path / "data", "--duration", "4", "--sinks", "parquet") as up:
        assert_complete(up, up.end())
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    found = re.match(r"fs = (\d+\.\d+) Hz, strongest at (\d+\.\d+) Hz: (0\.\d+)\n", done.stdout)
    assert found, done.stderr
    fs, frequency, amplitude = map(float, found.groups())
    assert abs(fs / 10_000 - 1) < 0.01
    assert abs(frequency - 29.5) < 0.5
    assert 0.6 < amplitude < 0.8
