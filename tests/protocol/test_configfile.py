"""What a command takes from `--config`, and how times are written on a command line."""

from pathlib import Path

import click
import pytest

from dtolbus.configfile import data_folder, gateway_urls
from dtolbus.errors import UsageError
from dtolbus.seconds import Seconds


@pytest.fixture
def config(tmp_path):
    return tmp_path / "lab.toml"


def test_the_data_folder_is_that_of_the_config_unless_one_is_given(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    for text, folder in (('data = "rig"', "rig"), ('data = "~/rig"', "/home/ada/rig"), ('[run]\ndata = "m"', "data")):
        config.write_text(text)
        assert data_folder(config, None) == Path(folder)
    assert data_folder(config, Path("mine")) == Path("mine")
    assert data_folder(None, None) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data = 7", "data = 7: give a text in quotes"),
        ("data = [", "not a TOML file: line 1"),
        (None, "cannot be read"),
    ],
)
def test_a_config_that_names_none_is_one_line(config, text, says):
    if text is not None:
        config.write_text(text)
    with pytest.raises(UsageError, match=says):
        data_folder(config, None)


def test_the_gateway_is_that_of_the_config(config):
    config.write_text("[gateway]\npub_port = 7001\n")
    assert gateway_urls(config) == ("tcp://127.0.0.1:7001", "tcp://127.0.0.1:5602")
    config.write_text("[gateway]\npub_port = 0\n")
    with pytest.raises(UsageError, match="any free one"):
        gateway_urls(config)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("10", 10),
        ("0.5", 0.5),
        ("10s", 10),
        ("10 s", 10),
        ("5min", 300),
        ("5m", 300),
        ("2h", 7200),
        ("1.5h", 5400),
        ("7d", 604_800),
    ],
)
def test_a_time_may_have_its_unit(written, seconds):
    assert Seconds().convert(written, None, None) == seconds


@pytest.mark.parametrize("written", ["0", "-1", "nan", "inf", "ten", "5 weeks", "", "1e999"])
def test_what_is_no_time_gets_examples(written):
    with pytest.raises(click.BadParameter, match="give a time above 0, such as 10, 10s, 5min, 2h or 7d"):
        Seconds().convert(written, None, None)
