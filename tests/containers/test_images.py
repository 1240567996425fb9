"""What the images are like."""

import json
from typing import Any

import pytest
from tests.containers.engine import docker

pytestmark = pytest.mark.usefixtures("images")

SERVICES = ("producer", "gateway", "worker-parquet", "worker-sqlite", "worker-postgres", "worker-text")
LIMITS_MB = {"producer": 110, "worker-sqlite": 110, "worker-parquet": 270}
"""Above the base image."""


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image).stdout)[0]
    return found


@pytest.mark.parametrize("service", LIMITS_MB)
def test_an_image_is_small(service: str) -> None:
    size = inspected(f"dtolbus-{service}")["Size"] - inspected("python:3.11-slim")["Size"]
    assert size / 1e6 <= LIMITS_MB[service]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_not_root_ends_by_sigterm_and_tells_its_health(service: str) -> None:
    config = inspected(f"dtolbus-{service}")["Config"]
    assert config["User"] == "10001:10001"
    assert config.get("StopSignal") in (None, "SIGTERM")
    assert config["Healthcheck"]["Test"][-1] == "health"


@pytest.mark.parametrize(
    ("service", "absent"),
    [
        ("producer", "asyncpg pyarrow dtolbus_workers"),
        ("gateway", "asyncpg pyarrow dtolbus_workers"),
        ("worker-parquet", "asyncpg rich dtolbus_producer"),
        ("worker-sqlite", "asyncpg pyarrow rich dtolbus_producer"),
        ("worker-postgres", "pyarrow rich dtolbus_producer"),
        ("worker-text", "asyncpg pyarrow rich dtolbus_producer"),
    ],
)
def test_an_image_holds_only_what_its_service_needs(service: str, absent: str) -> None:
    found = "import importlib.util, sys; print([name for name in sys.argv[1:] if importlib.util.find_spec(name)])"
    run = docker(
        "run", "--rm", "--entrypoint", "python3", f"dtolbus-{service}", "-c", found, *absent.split(), "msgspec"
    )
    assert run.stdout.strip() == "['msgspec']"
