"""`dtolbus up` at an address that others can reach: with keys, which it makes for its own sinks; and without."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.e2e.commands import command, environment, run, running
from tests.e2e.stacks import Up, assert_complete
from tests.producer.bus import free_ports

from dtolbus.errors import CannotStartError
from dtolbus.keyring import AllowedKeys, KeyRing
from dtolbus.keys import load_keys
from dtolbus_producer.addresses import bind_address, protection, reached_at

EVERY = "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "required", "insecure", "expected"),
    [
        ("127.0.0.1", False, False, "loopback"),
        ("127.3.2.1", False, True, "loopback"),
        ("localhost", False, False, "loopback"),
        ("localhost", True, False, "keys"),
        (EVERY, False, False, "keys"),
        ("192.168.1.20", False, False, "keys"),
        ("192.168.1.20", False, True, "none"),
        (EVERY, True, True, "keys"),
    ],
)
def test_what_keeps_strangers_out(host: str, required: bool, insecure: bool, expected: str) -> None:
    assert protection(host, require_keys=required, insecure_lan=insecure) == expected


def test_what_is_an_address() -> None:
    assert (reached_at(EVERY), reached_at("192.168.1.20"), bind_address("localhost")) == (
        *("127.0.0.1", "192.168.1.20"),
        "127.0.0.1",
    )
    for host in ("daq-pc", "::1", "1.2.3", ""):
        with pytest.raises(CannotStartError, match="give an IPv4 address"):
            bind_address(host)


def secrets(data: Path) -> list[str]:
    ring = KeyRing(data)
    own = ring.server()
    assert own is not None
    pairs = [load_keys(path) for path in ring.folder.glob("*.key") if path != ring.server_file]
    return [keys.secret.reveal() for keys in (own, *pairs)]


def test_a_stack_that_others_can_reach_makes_the_keys_of_its_sinks(tmp_path: Path) -> None:
    data, (pub, catchup) = tmp_path / "data", free_ports()
    reader = KeyRing(data).new("laptop", "read")
    with Up(data, "--host", EVERY, "--sinks", "sqlite,csv", ports=(pub, catchup)) as up:
        up.wait_for_pids("gateway", "sink-sqlite", "sink-csv", "acquisition-sim0")
        assert {name: key.role for name, key in AllowedKeys(KeyRing(data).allowed_folder).read().items()} == {
            "sqlite": "sink",
            "csv": "sink",
            "laptop": "read",
        }
        up.wait_for_positions(10, ("sqlite", "csv"))
        url = f"tcp://127.0.0.1:{pub}"
        with running("dtolbus", "listen", url, env={"DTOLBUS_KEY": str(reader), "PYTHONUNBUFFERED": "1"}) as listening:
            assert listening.stdout is not None
            assert "samples/s" in listening.stdout.readline()
        alone = run("dtolbus", "listen", url)
        assert (alone.returncode, alone.stdout) == (3, "")
        assert "give --key FILE" in alone.stderr
        assert alone.stderr.count("\n") == 1
        known = secrets(data)
        if os.path.isdir("/proc"):
            for pid in (*up.pids().values(), up.process.pid):
                for told in ("cmdline", "environ"):
                    said = Path(f"/proc/{pid}/{told}").read_bytes().decode(errors="replace")
                    assert not any(secret in said for secret in known)
        up.process.send_signal(signal.SIGINT)
        assert_complete(up, up.end())
        assert f"`dtolbus keys new NAME --data {data}` makes one for another machine" in up.output
        written = [path.read_text(errors="replace") for path in (data / "logs").iterdir() if path.is_file()]
        assert len(written) > 3
        assert not any(secret in text for secret in known for text in (*written, up.output, up.errors))
    before = {path.name: path.read_bytes() for path in KeyRing(data).folder.glob("*.key")}
    with Up(data, "--host", EVERY, "--catch-up", ports=(pub, catchup)) as up:
        assert_complete(up, up.end())
    assert {path.name: path.read_bytes() for path in KeyRing(data).folder.glob("*.key")} == before


def test_keys_on_the_loopback_where_that_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "dtolbus.toml"
    config.write_text(
        '[gateway]\nrequire_keys = true\n[[device]]\nname = "d"\nboard = "sim"\n[[device.task]]\nname = "t"\n'
        'rate_hz = 1000\nchannels = ["a"]\nsamples = 500\n[[sink]]\nkind = "sqlite"\nname = "Prüfstand"\n'
    )
    with Up(tmp_path / "data", "--config", str(config)) as up:
        assert_complete(up, up.end())
    assert list(AllowedKeys(KeyRing(tmp_path / "data").allowed_folder).read()) == ["Prüfstand"]


def test_without_keys_it_is_said_at_every_start(tmp_path: Path) -> None:
    data, where = tmp_path / "data", ["--host", EVERY, "--insecure-lan"]
    for _ in range(2):
        with Up(data, *where, "--duration", "1", "--sinks", "csv") as up:
            assert_complete(up, up.end())
        assert "WARNING  served without keys at 0.0.0.0 (--insecure-lan)" in up.output
        assert not (data / "keys").exists()
    assert (data / "logs" / "gateway.log").read_text().count(
        "WARNING dtolbus_producer.gateway: served without keys"
    ) == 2
    with Up(data, *where, "--require-keys", "--duration", "1") as up:
        assert up.end() == 2
        assert "with keys or without" in up.errors


def test_a_gateway_that_others_can_reach_does_not_start_without_keys(tmp_path: Path) -> None:
    ports = [word for option, port in zip(("--pub-port", "--catchup-port"), free_ports(), strict=True)
             for word in (option, str(port))]  # fmt: skip
    told = run("dtolbus-gateway", "serve", str(tmp_path), "--host", EVERY, *ports)
    assert (told.returncode, told.stderr.count("\n")) == (3, 1), told.stderr
    assert f"`dtolbus keys new NAME --data {tmp_path}`" in told.stderr
    told = run("dtolbus-gateway", "serve", str(tmp_path), "--host", "198.51.100.1", "--insecure-lan", *ports)
    assert (told.returncode, told.stderr.count("\n")) == (3, 1), told.stderr
    assert "this machine has no such address" in told.stderr
    KeyRing(tmp_path).new("laptop", "read")
    words = command("dtolbus-gateway", "serve", str(tmp_path), "--host", EVERY, *ports, "--log-level", "info")
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as gateway:
        assert gateway.stderr is not None
        assert "serving" in gateway.stderr.readline()
        gateway.send_signal(signal.SIGINT)
        assert gateway.wait(60) == 0
