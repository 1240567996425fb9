"""`python -m bench.hostile` as one runs it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_attack_on_keys_needs_them() -> None:
    command = [sys.executable, "-m", "bench.hostile", "unknown_keys"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 2
    assert "unknown_keys needs --keys" in done.stderr
