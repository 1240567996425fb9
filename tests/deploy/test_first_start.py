"""`deploy/compose/keys.sh`: what the containers let themselves in with is whole, wherever a first start was killed."""

import re
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "compose" / "keys.sh"
SINKS = ("parquet", "postgres", "csv")
PATIENCE_S = 60.0
KILLED = -9

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("bash") is None, reason="bash counts the commands after which it is killed"
)


def run(place: Path, kill_before: int | None = None) -> int:
    """Run it on folders here, for few sinks; killed before a command, by its number. Return its exit code."""
    script = SCRIPT.read_text().replace("parquet sqlite postgres csv jsonl", " ".join(SINKS))
    script = re.sub(r"/(secrets|data|import)\b", rf"{place}/\1", script)
    trap = f"n=0; trap '[ $((n+=1)) = {kill_before} ] && kill -9 $$' DEBUG\n" if kill_before else ""
    command = ["bash", "--posix", "-T", "-c", trap + script]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False).returncode


def whole_or_none(file: Path, pattern: str) -> bool:
    return not file.exists() or re.fullmatch(pattern, file.read_text()) is not None


def test_a_start_that_is_killed_before_any_command_is_mended_by_the_next(tmp_path: Path) -> None:
    secrets, keys = tmp_path / "secrets", tmp_path / "data" / "keys"
    (tmp_path / "data").mkdir()
    seen: set[str] = set()
    for number in count(1):
        code = run(tmp_path, number)
        password, dsn = secrets / "database" / "password", secrets / "postgres" / "dsn"
        assert whole_or_none(password, "[0-9a-f]{48}")
        assert whole_or_none(dsn, "postgresql://dtolbus:[0-9a-f]{48}@postgres/dtolbus\n")
        seen |= {file.read_text() for file in (password,) if file.exists()}
        if code == 0:
            break
        assert code == KILLED
    assert number > 30
    assert len(seen) == 1, "the database keeps the first password that it was told"
    assert dsn.read_text() == f"postgresql://dtolbus:{password.read_text()}@postgres/dtolbus\n"
    for sink in SINKS:
        key = secrets / sink / f"{sink}.key"
        assert key.read_bytes() == (keys / f"{sink}.key").read_bytes()
        assert key.stat().st_mode & 0o077 == 0
        assert (keys / "allowed" / sink).exists()


def test_what_a_power_cut_left_half_made_is_mended(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert run(tmp_path) == 0
    allowed, dsn = tmp_path / "data" / "keys" / "allowed" / "csv", tmp_path / "secrets" / "postgres" / "dsn"
    was = dsn.read_text()
    allowed.unlink()  # as where `keys new` is killed between the pair and the list
    dsn.write_text("")
    assert run(tmp_path) == 0
    assert allowed.exists()
    assert dsn.read_text() == was
