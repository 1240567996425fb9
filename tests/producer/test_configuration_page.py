"""docs/configuration.md lists every key there is, with its default, and none that is not; its examples are taken."""

import math
import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from dtolbus_producer.boards import BOARDS, board_class
from dtolbus_producer.boards.simoptions import OpenThermocouple
from dtolbus_producer.config import Config, GatewayConfig, config_from
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_producer.sensorconfig import BridgeConfig, RtdConfig
from dtolbus_producer.sinkconfig import SINK_KINDS, SinkConfig
from dtolbus_producer.sinkoptions import options_of_sink
from dtolbus_producer.tasks import ChannelConfig, DeviceConfig, TaskConfig

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text("utf-8")
STRUCTS = {
    "The whole file": [Config],
    "`[[device]]`": [DeviceConfig],
    "`[[device.task]]`": [TaskConfig],
    "Channels": [ChannelConfig],
    "`rtd`": [RtdConfig],
    "`bridge`": [BridgeConfig],
    "`[journal]`": [JournalConfig],
    "`[gateway]`": [GatewayConfig],
    "`[[sink]]`": [SinkConfig],
    **{f"`[device.options]` of `{kind}`": [board_class(kind).options_type] for kind in BOARDS},
}
STRUCTS["`[device.options]` of `sim`"].append(OpenThermocouple)
ROW = re.compile(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", re.MULTILINE)


def listed(section: str) -> list[tuple[str, str]]:
    """The keys and defaults in a section's tables."""
    _, found, rest = PAGE.partition(f"# {section}\n")
    assert found, f"there is no section {section}"
    return ROW.findall(re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0])


@pytest.mark.parametrize("section", STRUCTS)
def test_each_key_is_listed_with_its_default_and_no_other(section: str) -> None:
    fields = [field for struct in STRUCTS[section] for field in msgspec.structs.fields(struct)]
    rows = listed(section)
    assert [key for key, _ in rows] == [field.encode_name for field in fields]
    for (key, told), field in zip(rows, fields, strict=True):
        if field.required:
            assert told == "required", key
        elif isinstance(field.default, bool | int | float | str) and field.default != math.inf:
            assert tomllib.loads(f"x = {told.strip('`')}")["x"] == field.default, key
        else:
            assert told == "none", key


def test_each_option_of_a_sink_is_listed_and_no_other() -> None:
    options = {name: option for kind in SINK_KINDS for name, option in options_of_sink(kind).items()}
    rows = dict(listed("`[sink.options]`"))
    assert set(rows) == set(options)
    assert rows["schema"].strip('`"') == options["schema"].get_default(click.Context(click.Command("x")))


def test_its_examples_are_configurations() -> None:
    examples = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    for text in examples:
        config_from(tomllib.loads(text))
