"""A stack of compose.yaml with a name, ports and settings of its own."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testcontainers.compose import DockerCompose
from tests.containers.engine import docker
from tests.producer.bus import free_ports

ROOT = Path(__file__).parents[2]
_WAIT_S = 180.0


class Stack:
    """Runs `docker compose` for one stack; `files` come behind compose.yaml."""

    def __init__(self, files: Sequence[str] = (), settings: Mapping[str, str] | None = None) -> None:
        self.name = f"dtolbus-test-{uuid.uuid4().hex[:8]}"
        pub, catchup = free_ports()
        self.pub_port = pub
        self._environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.name,
            "DTOLBUS_PUB_PORT": str(pub),
            "DTOLBUS_CATCHUP_PORT": str(catchup),
            **(settings or {}),
        }
        compose = DockerCompose(ROOT, compose_file_name=["compose.yaml", *files])
        self._command = compose.compose_command_property

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose …`. Raises AssertionError with what it said where it fails."""
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def set(self, **settings: str) -> None:
        """Change what .env would say, for what is run from now on."""
        self._environment.update(settings)

    def verify(self) -> "subprocess.CompletedProcess[str]":
        return self.run("run", "--rm", "--no-TTY", "dtolbus", "verify", check=False)

    def within(self, service: str, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a line of shell in the service's container."""
        return self.run("exec", "--no-TTY", service, "sh", "-c", script, check=False)

    def container(self, service: str) -> str:
        """Return the id of the service's container."""
        return self.run("ps", "--all", "--quiet", service).stdout.strip()

    def inspected(self, service: str) -> dict[str, Any]:
        """Return what Docker knows of its container."""
        found: dict[str, Any] = json.loads(docker("inspect", self.container(service)).stdout)[0]
        return found

    def ended(self, service: str) -> tuple[str, int]:
        """Return its container's status and exit code."""
        state = self.inspected(service)["State"]
        return state["Status"], state["ExitCode"]

    def health(self, service: str) -> str:
        return str(self.inspected(service)["State"].get("Health", {}).get("Status", ""))

    def restarts(self, service: str) -> int:
        return int(self.inspected(service)["RestartCount"])

    def network(self, verb: str, network: str, service: str) -> None:
        """Connect the service's container to a network, or disconnect it."""
        docker("network", verb, f"{self.name}_{network}", self.container(service))

    def until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait until it is so. Raises AssertionError with the stack's logs after three minutes."""
        end = time.monotonic() + _WAIT_S
        while not is_so():
            assert time.monotonic() < end, f"not {what}\n{self.run('ps', '--all').stdout}\n{self.logs()}"
            time.sleep(0.2)

    def until_healthy(self, service: str) -> None:
        self.until(f"{service} is healthy", lambda: self.health(service) == "healthy")

    def until_unhealthy(self, service: str) -> None:
        self.until(f"{service} is unhealthy", lambda: self.health(service) == "unhealthy")

    def until_complete(self) -> str:
        """Wait until every sink has what the journal holds; return the certificate."""
        self.until("complete", lambda: self.verify().returncode == 0)
        return self.verify().stdout

    def logs(self) -> str:
        return self.run("logs", "--no-color", "--tail", "30", check=False).stdout


@contextmanager
def running(files: Sequence[str] = (), settings: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """Start a stack whose images are built; in the end nothing of it is left."""
    stack = Stack(files, settings)
    try:
        stack.run("up", "--detach")
        yield stack
    finally:
        stack.run("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "2")
