"""Tests of containers run wherever a Docker engine answers."""

import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.composed import ROOT
from tests.containers.engine import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them where there is none, and say so."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skipif(bool(missing()), reason=missing()))


@pytest.fixture(scope="session")
def images() -> None:
    """All images, of this tree."""
    built = subprocess.run(
        ["docker", "compose", "--profile", "*", "build", "--quiet"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The DSN of the administrator of a server in a container, whatever else is here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not ours to mend
        from testcontainers.postgres import PostgresContainer

        container = PostgresContainer("postgres:17", driver=None).start()
    try:
        yield container.get_connection_url()
    finally:
        container.stop()
