"""Fixtures of all tests, and which of them run with the soak tests alone."""

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from tests.workers import postgres

SOAK = (
    "e2e/test_catch_up.py::test_ctrl_c_ends_it_and_the_rest_comes_the_next_time",
    "e2e/test_catch_up.py::test_the_embedded_database_is_known",
    "e2e/test_config_option.py::test_commands_find_the_data_folder_of_the_config",
    "e2e/test_embedded.py::test_a_server_that_was_killed_is_there_again_for_the_certificate",
    "e2e/test_finite.py::test_a_board_for_which_its_process_gave_up_goes_on_for_the_rest_too",
    "e2e/test_finite.py::test_a_recording_goes_on_where_it_stopped",
    "e2e/test_finite.py::test_polls_that_were_had_or_missed_are_not_polled_again",
    "e2e/test_kill.py::test_all_workers_and_the_gateway_killed_at_once",
    "e2e/test_lan.py::test_without_keys_it_is_said_at_every_start",
    "e2e/test_layouts.py::test_float32_is_what_the_certificate_says",
    "e2e/test_looking.py::test_the_finite_example_ends_by_itself_with_all_that_was_asked_for",
    "e2e/test_looking.py::test_up_tells_of_a_data_folder_that_fell_into_the_metadata",
    "e2e/test_stalled.py::test_a_sink_that_is_long_in_opening_does_not_keep_the_boards_from_recording",
    "e2e/test_up.py::TestOptions::test_an_embedded_postgres_with_a_partition_for_each_month",
    "faults/test_same_ports.py::test_stacks_started_at_the_same_time_on_the_same_ports[3]",
    "TestLongFloat32::test_killed_at_each_step_of_a_commit",
    "TestPostgresByMonth::test_killed_at_each_step_of_a_commit",
    "TestSqliteBoth::test_killed_at_each_step_of_a_commit",
    "TestWideFloat32::test_killed_at_each_step_of_a_commit",
)
"""Further forms of what others show, each of some ten seconds: the usual run has to end within twenty minutes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those, before it is decided which run."""
    for item in items:
        if item.nodeid.endswith(SOAK):
            item.add_marker(pytest.mark.soak)


@pytest.fixture(autouse=True)
def _left_alone() -> Iterator[None]:
    """Fail the test that leaves this process as a command sets it up: whoever runs after it would find it so."""
    before = _set_up()
    yield
    assert _set_up() == before, "call a command by tests.producer.looking.call, which puts all back"


def _set_up() -> tuple[object, ...]:
    """Return what logs here, and what is told of an exception."""
    streams = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    return (*streams, sys.excepthook, threading.excepthook)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The DSN of a real server's administrator."""
    with postgres.server() as dsn:
        yield dsn


@pytest.fixture
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """The DSN of a fresh database."""
    with postgres.database(postgres_server) as dsn:
        yield dsn
