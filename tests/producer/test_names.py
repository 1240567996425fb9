"""Names that break out of the data folder, collide in it, or cannot be passed on."""

from pathlib import Path

import numpy as np
import pytest

from dtolbus.errors import UsageError
from dtolbus_producer.config import Config, config_from
from dtolbus_producer.plan import UpOptions, place_of, resolve

DATA = Path("/data")


def config_with(*sinks: dict[str, str], device: str = "d", task: str = "t") -> Config:
    devices = [{"name": device, "task": [{"name": task, "rate_hz": 10.0, "channels": ["a"]}]}]
    return config_from({"device": devices, "sink": list(sinks)}, "lab.toml")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "sqlite"])
@pytest.mark.parametrize("name", ["..", "../c", "a/b", "a\\b", "/etc/x", "C:\\x", ".up.lock", "~", "con"])
def test_a_sinks_name_never_leads_out_of_the_data_folder(kind: str, name: str) -> None:
    (sink,) = config_with({"kind": kind, "name": name}).sinks
    place = Path(place_of(sink, DATA))
    assert sink.name == name
    assert place.parent == DATA
    assert place.name not in ("", ".", "..", ".up.lock", "con")
    assert "\\" not in place.name
    assert ":" not in place.name


@pytest.mark.parametrize("name", ["journal", "logs", "sinks", "keys", "postgres", "Journal"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "sqlite"])
def test_the_data_folders_own_names_are_refused(kind: str, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        config_with({"kind": "jsonl"}, {"kind": kind, "name": name})
    assert str(refused.value).startswith(f"lab.toml: sink[1].name: {name!r} is a folder of the data folder's own")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        ({"kind": "sqlite"}, {"kind": "sqlite", "name": "dtolbus"}, "dtolbus.sqlite"),
        ({"kind": "csv", "name": "p"}, {"kind": "parquet", "name": "P"}, "P"),
        ({"kind": "parquet"}, {"kind": "csv", "name": "Parquet"}, "Parquet"),
        ({"kind": "csv", "name": "x.sqlite"}, {"kind": "sqlite", "name": "x"}, "x.sqlite"),
    ],
)
def test_two_sinks_never_share_a_place(first: dict[str, str], second: dict[str, str], place: str) -> None:
    with pytest.raises(UsageError) as refused:
        config_with(first, second)
    assert str(refused.value).startswith(f"lab.toml: sink[1].name: {second['name']!r} would write to {place!r}")
    assert "sink[0]" in str(refused.value)


@pytest.mark.parametrize("key", ["name", "unit", "sensor"])
@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("a\0", r"'a\x00' has characters that cannot be shown: leave them out"),
        ("a\nb", r"'a\nb' has characters that cannot be shown"),
        ("\u202ea", r"'\u202ea' has characters that cannot be shown"),
        ("x" * 201, f"{'x' * 40!r}… has 201 characters: give at most 200"),
    ],
)
def test_a_channels_words_can_be_shown(key: str, word: str, says: str) -> None:
    channel = {"name": "a", "unit": "g", "sensitivity_v": 1.0, **{key: word}}
    with pytest.raises(UsageError) as refused:
        config_from({"device": [{"name": "d", "task": [{"name": "t", "channels": [channel]}]}]}, "lab.toml")
    assert str(refused.value).startswith(f"lab.toml: device[0].task[0].channels[0].{key}: {says}")


def test_a_sink_with_a_place_of_its_own_collides_with_nobody() -> None:
    config = config_with({"kind": "sqlite"}, {"kind": "sqlite", "name": "dtolbus", "path": "/else/where.sqlite"})
    assert place_of(config.sinks[1], DATA) == "/else/where.sqlite"


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[31m", "x" * 300, "µ" * 60])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    for config, key in [
        (lambda: config_with({"kind": "csv", "name": name}), "sink[0].name"),
        (lambda: config_with(device=name), "device[0].name"),
        (lambda: config_with(task=name), "device[0].task[0].name"),
    ]:
        with pytest.raises(UsageError) as refused:
            config()
        assert str(refused.value).startswith(f"lab.toml: {key}: {name!r} ")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("board", ["sim:foo", "sim:"])
def test_the_simulated_board_takes_nothing_behind_its_name(board: str) -> None:
    with pytest.raises(UsageError, match=f"board: '{board}': "):
        resolve(UpOptions(board=board))


def test_names_of_the_usual_kind_stay_as_they_are() -> None:
    kinds = ({"kind": "csv", "name": "oven 2"}, {"kind": "sqlite", "name": "lab"}, {"kind": "parquet"})
    assert [place_of(sink, DATA) for sink in config_with(*kinds).sinks] == [
        "/data/oven 2",
        "/data/lab.sqlite",
        "/data/parquet",
    ]


def test_a_recording_with_a_long_name_can_be_played(tmp_path: Path) -> None:
    path = tmp_path / f"{'Подшипник ' * 12}.npz"
    codes = np.zeros((1, 10), np.int16)
    np.savez(path, codes=codes, channels=["a"], unit="g", full_scale=1.0, rate_hz=10.0)
    (device,) = resolve(UpOptions(board=f"playback:{path}")).devices
    assert path.name.startswith(device.tasks[0].name)
