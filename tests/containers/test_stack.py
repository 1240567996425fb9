"""compose.yaml as it is deployed: started, stopped and verified; then everything goes wrong that may."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.composed import Stack, running
from tests.e2e import commands as command

pytestmark = pytest.mark.usefixtures("images")

SINKS = ("worker-parquet", "worker-sqlite", "worker-postgres", "worker-csv", "worker-jsonl")
SECRETS = {
    "producer": [],
    "gateway": [],
    "worker-parquet": ["parquet.key"],
    "worker-sqlite": ["sqlite.key"],
    "worker-postgres": ["dsn", "postgres.key"],
    "worker-csv": ["csv.key"],
    "worker-jsonl": ["jsonl.key"],
    "postgres": ["password"],
}
"""What each service has under /run/dtolbus."""
KILL = "kill -9 -1"  # all but PID 1, which the kernel lets nobody kill from within


def test_compose_says_nothing_of_its_files() -> None:
    for files in ((), ("deploy/compose/two-parquet.yaml",), ("deploy/compose/remote.yaml",)):
        said = Stack(files).run("--profile", "*", "config", "--quiet")
        assert (said.stdout, said.stderr) == ("", "")


def test_what_is_started_and_stopped_is_complete_and_no_secret_is_shown() -> None:
    with running() as stack:
        for service in ("producer", "gateway", *SINKS):
            stack.until_healthy(service)
        secrets = stack.run("exec", "--no-TTY", "worker-postgres", "cat", "/run/dtolbus/dsn").stdout
        password = secrets.split(":")[2].split("@")[0]
        config = stack.run("config").stdout
        told = stack.run("logs").stdout + stack.run("ps", "--all", "--no-trunc").stdout + config
        stack.run("stop")
        ended = {service: stack.ended(service) for service in ("producer", "gateway", *SINKS, "postgres")}
        verified = stack.verify()
    assert len(password) == 48
    assert password not in told
    assert set(ended.values()) == {("exited", 0)}, ended
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "COMPLETE: nothing is missing" in verified.stdout
    for kind in ("parquet", "sqlite", "postgres", "csv", "jsonl"):
        assert f"\n{kind} " in verified.stdout, verified.stdout


def test_each_service_has_its_own_secrets_alone_and_may_do_little() -> None:
    with running() as stack:
        for service in ("producer", "gateway", *SINKS, "postgres"):
            stack.until_healthy(service)
        for service, known in SECRETS.items():
            there = stack.within(service, "ls /run/dtolbus 2>/dev/null").stdout.split()
            assert (service, there) == (service, known)
        for service in SINKS:
            assert stack.within(service, "find /data -type f").stdout == "", f"{service} sees the journal, or keys"
        for service in ("producer", "gateway", *SINKS):
            assert stack.within(service, "id -u").stdout.strip() == "10001"
            refused = stack.within(service, "touch /opt/x").stderr
            assert "Read-only file system" in refused, service
            assert stack.within(service, "grep CapEff: /proc/self/status").stdout.split()[1] == "0" * 16
        assert stack.within("producer", "ls /data/keys").stdout == "", "the producer has the gateway's keys"


def test_other_boards_are_recorded_once_up_is_said_again_and_a_second_producer_is_refused(tmp_path: Path) -> None:
    rig = tmp_path / "rig.toml"
    rig.write_text('[[device]]\nname = "rig7"\n[[device.task]]\nname = "t"\nrate_hz = 1000\nchannels = ["a"]\n')
    tmp_path.chmod(0o755)  # another user reads it in the container
    with running() as stack:
        stack.until_healthy("producer")
        stack.set(DTOLBUS_CONFIG_FILE=str(rig))
        checked = stack.run("run", "--rm", "--no-TTY", "--no-deps", "dtolbus", "check", check=False).stdout
        assert "rig7" in checked
        assert "sim0" not in checked
        stack.run("up", "--detach")
        stack.until("the new board is told", lambda: "stream=rig7/t" in stack.run("logs", "producer").stdout)
        stack.run("up", "--detach", "--scale", "producer=2")
        refused = "device 'rig7' is recorded into /data already"
        stack.until("the second is refused", lambda: refused in stack.run("logs", "producer").stdout)
        runs = stack.run("run", "--rm", "--no-TTY", "--no-deps", "dtolbus", "runs").stdout
    assert runs.count("rig7/t") == 1, runs


def test_another_machine_gets_in_by_the_profile_lan_with_a_key_and_not_without(tmp_path: Path) -> None:
    with running(settings={"DTOLBUS_LAN_ADDRESS": "127.0.0.2", "COMPOSE_PROFILES": "lan"}) as stack:
        made = stack.run("run", "--rm", "--no-TTY", "dtolbus", "keys", "new", "laptop")
        assert "made and allowed: 'laptop', role read" in made.stdout
        read = ("run", "--rm", "--no-TTY", "--entrypoint", "cat", "dtolbus", "/data/keys/laptop.key")
        key = tmp_path / "laptop.key"
        key.touch(0o600)
        key.write_text(stack.run(*read).stdout)
        url = f"tcp://127.0.0.2:{stack.pub_port}"
        with command.running(
            "dtolbus", "listen", url, env={"DTOLBUS_KEY": str(key), "PYTHONUNBUFFERED": "1"}
        ) as listening:
            assert listening.stdout is not None
            assert any("samples/s" in line for line in listening.stdout)
        stranger = command.run("dtolbus", "listen", url)
    assert stranger.returncode == 3
    assert "key (give --key FILE" in stranger.stderr or "asks for a key" in stranger.stderr


@pytest.fixture(scope="module")
def troubled() -> Iterator[Stack]:
    files = ("deploy/compose/two-parquet.yaml", "tests/containers/chaos.yaml")
    with running(files, {"DTOLBUS_MORE_SINKS": "parquet-readings"}) as stack:
        yield stack


class TestChaos:
    """One stack, and one after another what happens to it; the certificate in the end."""

    def test_killed_containers_start_again(self, troubled: Stack) -> None:
        services = (*SINKS, "gateway")
        for service in services:
            troubled.until_healthy(service)
            before = troubled.restarts(service)
            troubled.within(service, KILL)
            troubled.until(
                f"{service} is started again",
                lambda service=service, before=before: troubled.restarts(service) > before,  # type: ignore[misc]
            )
        for service in services:
            troubled.until_healthy(service)

    def test_a_cut_network_a_full_volume_a_pause_and_a_database_that_restarts_all_at_once(
        self, troubled: Stack
    ) -> None:
        for network in ("bus", "watch"):  # the gateway is in both, and a worker finds another way to it
            troubled.network("disconnect", network, "worker-sqlite")
        fill = "head -c 8000000 /dev/zero >/sinks/csv/filler"
        troubled.within("holder", fill)
        troubled.run("pause", "worker-jsonl")
        troubled.run("restart", "postgres")
        troubled.until_unhealthy("worker-sqlite")
        troubled.until_unhealthy("worker-csv")
        for network in ("bus", "watch"):
            troubled.network("connect", network, "worker-sqlite")
        troubled.run("exec", "--no-TTY", "holder", "rm", "/sinks/csv/filler")
        troubled.run("unpause", "worker-jsonl")
        for service in ("postgres", *SINKS):
            troubled.until_healthy(service)

    def test_a_second_worker_on_one_destination_is_refused(self, troubled: Stack) -> None:
        second = troubled.run("run", "--rm", "--no-TTY", "--no-deps", "worker-sqlite", check=False)
        assert second.returncode == 3
        assert "is in use" in second.stdout + second.stderr, second.stdout + second.stderr

    def test_in_the_end_every_sink_has_everything(self, troubled: Stack) -> None:
        troubled.run("stop", "producer")
        certificate = troubled.until_complete()
        assert "COMPLETE:" in certificate
        streams = {
            (row[0], row[1]) for row in map(str.split, certificate.splitlines()) if len(row) > 5 and "/" in row[1]
        }
        assert ("parquet", "sim0/vibration") in streams
        assert ("parquet", "sim1/temperature") not in streams
        assert ("parquet-readings", "sim1/temperature") in streams
        assert ("parquet-readings", "sim0/vibration") not in streams
        assert {sink for sink, _ in streams} >= {"sqlite", "postgres", "csv", "jsonl"}
