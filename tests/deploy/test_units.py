"""The units for systemd: what they call exists, and they are what `deploy/systemd/README.md` says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.deploy.units import (
    DROP_INS,
    FOLDER,
    INSTALLED,
    UNITS,
    command_line,
    environment,
    environment_file,
    faults,
    settings,
    values,
)

FILES = sorted(set(UNITS.values()))
LOCKED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes",
    "UMask": "0077",
    "Restart": "on-failure",
    "KillMode": "mixed",
}


def systemd_version() -> int:
    if shutil.which("systemd-analyze") is None:
        return 0
    done = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, timeout=60)
    found = re.match(r"systemd (\d+)", done.stdout)
    return int(found[1]) if found else 0


needs_systemd = pytest.mark.skipif(
    systemd_version() < 250, reason="systemd-analyze of systemd 250 or newer is not here"
)
EXPOSURE = 2.0
"""Of 10, as `systemd-analyze security` counts; a unit without a sandbox has 9.6."""


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_calls_a_command_with_options_that_there_are(unit: str) -> None:
    words = command_line(unit)
    assert words[0].startswith(INSTALLED + "/")
    assert list(faults(words, environment(unit))) == []


@pytest.mark.parametrize(
    ("words", "given", "fault"),
    [
        ("dtolbus up --confg x", {}, "No such option"),
        ("dtolbus-gateway serve a b", {}, "'b' is nothing"),
        ("dtolbus-gateway serve", {}, "data is missing"),
        ("dtolbus-parquet", {}, "out is missing"),
        ("dtolbus-parquet", {"DTOLBUS_OUT": "x", "DTOLBUS_LAYOUT": "tall"}, "DTOLBUS_LAYOUT=tall"),
        ("dtolbus-parquet", {"DTOLBUS_OUT": "x", "DTOLBUS_OLD": "1"}, "no option is DTOLBUS_OLD"),
    ],
)
def test_what_has_drifted_is_noticed(words: str, given: dict[str, str], fault: str) -> None:
    (told,) = faults(words.split(), given)
    assert fault in told


def test_every_file_belongs_to_a_unit() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.service")) == FILES
    assert {path.stem for path in (FOLDER / "drop-ins").iterdir()} == set(DROP_INS)
    read = {Path(one).name for unit, file in UNITS.items() for one in values(FOLDER / file, unit, "EnvironmentFile")}
    for path in (FOLDER / "env").iterdir():
        assert path.name in read
        assert environment_file(path)


@pytest.mark.parametrize("file", FILES)
def test_every_unit_has_the_sandbox(file: str) -> None:
    found = dict(settings(FOLDER / file, file))
    assert {key: found.get(key) for key in LOCKED} == LOCKED
    assert "2" in found["RestartPreventExitStatus"].split()
    assert found.get("PrivateNetwork") == "yes" or found["IPAddressDeny"] == "any"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.*")), ids=lambda path: path.name)
def test_no_secret_stands_where_everybody_reads(path: Path) -> None:
    assert re.findall(r"^[^#\n]*(?:DTOLBUS_DSN|PGPASSWORD)=", path.read_text(), re.MULTILINE) == []


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as installed, with every drop-in that fits, of an installation that is there."""
    for unit, file in UNITS.items():
        text = (FOLDER / file).read_text()
        (tmp_path / file).write_text(text.replace(INSTALLED, str(Path(sys.executable).parent)))
        for drop_in, fits in DROP_INS.items():
            if unit in fits:
                folder = tmp_path / f"{unit}.d"
                folder.mkdir(exist_ok=True)
                shutil.copy(FOLDER / "drop-ins" / f"{drop_in}.conf", folder)
    for unit, file in UNITS.items():
        if unit != file:
            (tmp_path / unit).symlink_to(file)
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=120)


@needs_systemd
def test_systemd_finds_nothing_wrong(units: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", *(str(units / unit) for unit in UNITS))
    ours = [line for line in done.stderr.splitlines() if "dtolbus" in line]
    assert (done.returncode, ours) == (0, [])


@needs_systemd
def test_systemd_would_find_a_wrong_key(units: Path) -> None:
    broken = units / "dtolbus-up.service.d" / "usb.conf"
    broken.write_text("[Service]\nProtectSystme=yes\n")
    assert "ProtectSystme" in analyze("verify", "--man=no", str(units / "dtolbus-up.service")).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [unit for unit in UNITS if "@" not in unit or "@parquet" in unit])
def test_little_is_left_open(units: Path, unit: str) -> None:
    shutil.rmtree(units / f"{unit}.d")
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}", "--no-pager", str(units / unit))
    assert done.returncode == 0, done.stdout
