"""What every command line shares: one line for what is wrong, exit codes, stopping."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tests.e2e.commands import TIMEOUT_S, command, environment, run

from dtolbus.cli import topic_prefix

STOPPING = """
import sys, time
from dtolbus.cli import stop_event
stop = stop_event()
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
sys.stdin.readline()
print("ended", flush=True)
"""
HUNG_UP = """
import sys
from dtolbus.cli import stop_event
stop = stop_event()
print("ready", flush=True)
sys.stdin.readline()
print(stop.wait(1.0))
"""
IN_THE_MIDST_OF_A_WAIT = """
import signal
from dtolbus.cli import stop_event
stop = stop_event()
with stop._cond:  # as `wait` holds it when it looks
    signal.raise_signal(signal.SIGTERM)
print(stop.wait(20.0))
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["dtolbus", "lisen"], 2, "No such command 'lisen'"),
        (["dtolbus", "listen"], 2, "say where the gateway is: tcp://127.0.0.1:5601, or --config dtolbus.toml"),
        (
            ["dtolbus", "listen", "tcp://127.0.0.1:9", "--duration", "soon"],
            2,
            "'soon': give a time above 0, such as 10,",
        ),
        (["dtolbus", "listen", "daq-pc"], 2, "'daq-pc' is not an address like tcp://daq-pc:5601"),
        (["dtolbus", "listen", "tcp://127.0.0.1:9", "--duration", "0.3"], 3, "nothing heard from tcp://127.0.0.1:9"),
        (["dtolbus", "listen", "tcp://127.0.0.1:9", "--topic", "blok/"], 2, "'blok/' is not like block/, reading/"),
        (["dtolbus", "verify", "--data", "/nowhere"], 2, "/nowhere holds no journal"),
        (["dtolbus-csv"], 2, "Missing option '--out'"),
        (["dtolbus-csv", "--out", "x", "--since", "99999999999d"], 2, "'99999999999d' is neither an instant"),
        (["dtolbus-csv", "--out", "x", "--since", "²d"], 2, "'²d' is neither an instant"),
        (["dtolbus-csv", "--out", "x", "--topic", "block/"], 2, "--blocks summary or samples"),
        (["dtolbus-postgres"], 2, "no database: give --dsn"),
        (["dtolbus-postgres", "--dsn", "postgresql://u:s3cret@127.0.0.1:1/lab"], 3, "start the server"),
    ],
)
def test_one_line_and_the_exit_code(words: list[str], code: int, said: str) -> None:
    failed = run(*words)
    assert failed.returncode == code, failed.stderr
    assert said.casefold() in failed.stderr.casefold()
    assert failed.stderr.count("\n") == 1
    assert "s3cret" not in failed.stderr


def test_options_come_from_the_environment() -> None:
    failed = run("dtolbus-csv", env={"DTOLBUS_OUT": "x", "DTOLBUS_TOPIC": "block/", "DTOLBUS_CONNECT": "tcp://a:1"})
    assert "--topic block/ asks for blocks" in failed.stderr


def test_a_traceback_only_with_debug() -> None:
    assert "Traceback" in run("dtolbus", "verify", "--data", "/nowhere", "--debug").stderr


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("block/", "block/"),
        ("reading", "reading"),
        ("block/Motor-Prüfstand/", "block/Motor-Pr%C3%BCfstand/"),
        ("block/Motor-Pr%C3%BCfstand/a b/", "block/Motor-Pr%C3%BCfstand/a b/"),
    ],
)
def test_topics_are_given_as_names_or_as_they_are_on_the_wire(given: str, prefix: str) -> None:
    assert topic_prefix(given) == prefix


def test_a_topic_that_matches_nothing_is_refused() -> None:
    with pytest.raises(click.BadParameter):
        topic_prefix("blocks/sim0/")


def test_a_signal_that_interrupts_a_wait_stops_too() -> None:
    done = subprocess.run([sys.executable, "-c", IN_THE_MIDST_OF_A_WAIT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
@pytest.mark.parametrize(("is_ignored", "said"), [(False, "True\n"), (True, "False\n")])
def test_the_end_of_the_terminal_stops_unless_it_is_ignored(is_ignored: bool, said: str) -> None:
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" if is_ignored else ""
    with subprocess.Popen(
        [sys.executable, "-c", ignore + HUNG_UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == said
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT as a terminal does")
def test_a_doubled_ctrl_c_is_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STOPPING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ended\n"
    assert process.returncode == 0


STILL_LOADING = """
import sys
print("loading", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process alone")
@pytest.mark.parametrize(
    "words", [["dtolbus", "runs"], ["dtolbus-csv", "--out", "x"], ["dtolbus-gateway", "serve", "x"]]
)
@pytest.mark.parametrize("module", ["msgspec", "click"])
def test_ctrl_c_while_a_command_loads_is_one_line(tmp_path: Path, words: list[str], module: str) -> None:
    (tmp_path / f"{module}.py").write_text(STILL_LOADING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command(*words), env=environment({"PYTHONPATH": path}), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, errors) == (130, f"{words[0]}: interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "words",
    [
        [b"dtolbus", b"up", b"--duration", b"1", b"--data", b"d\xff"],
        [b"dtolbus", b"up", b"--duration", b"1", b"--meta", b"operator=\xff"],
        [b"dtolbus", b"verify", b"--data", b"d\xff"],
        [b"dtolbus-csv", b"--out", b"d\xff"],
    ],
)
def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, words: list[bytes], locale: str) -> None:
    script, *rest = words
    failed = subprocess.run(
        [os.fsencode(command(script.decode())[0]), *rest], cwd=tmp_path, env=environment({"LC_ALL": locale}),
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "\\udcff' is not UTF-8" in failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="names are Unicode there")
def test_up_in_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    here = os.path.join(os.fsencode(tmp_path), b"d\xff")
    os.mkdir(here)
    failed = subprocess.run(
        command("dtolbus", "up", "--duration", "1"), cwd=here, env=environment(), capture_output=True, text=True
    )
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    assert "is not UTF-8" in failed.stderr
    assert os.listdir(here) == []


class TestLinesForMachines:
    LOGGING = """
import logging, sys
from dtolbus import logs
logs.set_up("info", "json")
log = logging.getLogger("rig")
facts = {"run": "r-1", "n": 3, "share": float("nan"), "rate": 0.5, "at": sys.version_info[:0], "who": {"a": 1}}
log.info("two\\nlines", extra={**facts, "time": "never", "level": "none"})
log.warning("postgresql://ada:s3cret@db/lab", extra={"cause": 'password=s3"cret'})
try:
    1 / 0
except ZeroDivisionError:
    log.exception("odd")
"""

    def test_each_fact_is_one_object(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-c", self.LOGGING], capture_output=True, text=True, env=environment(), timeout=TIMEOUT_S
        )
        first, second, third = map(json.loads, ended.stderr.splitlines())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
        assert first == {
            **{"level": "info", "logger": "rig", "message": "two\nlines", "level_": "none", "time_": "never"},
            **{"run": "r-1", "n": 3, "share": "nan", "rate": 0.5, "at": [], "who": "{'a': 1}"},
        }
        assert "s3cret" not in ended.stderr
        assert (second["level"], second["message"]) == ("warning", "postgresql://ada:…@db/lab")
        assert third["traceback"].endswith("ZeroDivisionError: division by zero")

    @pytest.mark.parametrize(
        ("words", "code"), [(["dtolbus-csv"], 2), (["dtolbus-gateway", "serve", "/nowhere"], 3), (["dtolbus", "up"], 2)]
    )
    def test_why_a_command_ends_is_one_too(self, words: list[str], code: int) -> None:
        env = {"DTOLBUS_LOG_FORMAT": "json", "DTOLBUS_CONFIG": "/nowhere.toml"}
        ended = run(*words, env=env)
        assert ended.returncode == code
        (line,) = ended.stderr.splitlines()
        told = json.loads(line)
        assert (told["level"], told["logger"], told["exit_code"]) == ("error", words[0], code) or words[1:] == ["up"]
        assert told["message"]
