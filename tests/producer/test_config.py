import pytest

from dtolbus.errors import UsageError
from dtolbus_producer.config import config_from, default_config, dump_config, load_config, with_duration

WHOLE = """
data = "somewhere"

[run]
operator = "Ada"
specimen = { id = 7, material = "steel" }

[[device]]
name = "rig"
board = "sim"
[device.options]
seed = 3
[[device.task]]
name = "vibration"
rate_hz = 2_000
block_s = 0.05
channels = ["x", { name = "y", physical = 5, range = 2.5, sensor = "352C33 SN 12" }]
duration_s = 1.5

[[device]]
name = "oven"
[[device.task]]
name = "temperature"
kind = "readings"
rate_hz = 2
channels = [{ name = "tc", thermocouple = "K" }]

[gateway]
pub_port = 7001
catchup_port = 7002

[journal]
sync_ms = 0

[[sink]]
kind = "postgres"
dsn = "postgresql://localhost/lab"
blocks = "samples"
[[sink]]
name = "second"
kind = "csv"
topics = ["reading/"]
"""


def refused(tmp_path, text):
    path = tmp_path / "dtolbus.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_whole_config_is_read_and_goes_to_another_process_unchanged(tmp_path):
    path = tmp_path / "dtolbus.toml"
    path.write_text(WHOLE, encoding="utf-8")
    config = load_config(path)

    task = config.device("rig").tasks[0]
    assert [(c.name, c.physical, c.range) for c in task.channel_configs] == [("x", 0, None), ("y", 5, 2.5)]
    assert (task.samples_in_block(2000.0), task.samples_asked(2000.0)) == (100, 3000)
    assert config.run == {"operator": "Ada", "specimen": {"id": 7, "material": "steel"}}
    assert [sink.name for sink in config.sinks] == ["postgres", "second"]
    assert config.journal.sync_ms == 0

    copy = tmp_path / "copy.json"
    copy.write_bytes(dump_config(config))
    assert load_config(copy) == config


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "rate_hz = 2_000",
            "rat_hz = 2_000",
            "device[0].task[0].rat_hz: there is no such key; did you mean 'rate_hz'?",
        ),
        ("seed = 3", "sead = 3", "device[0].options.sead: there is no such key; did you mean 'seed'?"),
        ("pub_port", "pubport", "gateway.pubport: there is no such key; did you mean 'pub_port'?"),
        ("[journal]", "[jurnal]", "jurnal: there is no such key; did you mean 'journal'?"),
        ("physical = 5", "phys = 5", "device[0].task[0].channels[1].phys: there is no such key"),
        ("rate_hz = 2_000", 'rate_hz = "fast"', "device[0].task[0].rate_hz = 'fast': give a number"),
        ("seed = 3", 'seed = "x"', "device[0].options.seed = 'x': give a whole number"),
        ('kind = "csv"', 'kind = "mysql"', "sink[1].kind = 'mysql': allowed are 'parquet', 'sqlite', 'postgres'"),
        ('kind = "readings"', 'kind = "polls"', "device[1].task[0].kind = 'polls': allowed are 'blocks', 'readings'"),
        ("rate_hz = 2_000", "rate_hz = 40_000", "device[0].task[0].rate_hz: 40000 Hz on 2 channels"),
        ("rate_hz = 2_000", "rate_hz = -1", "device[0].task[0].rate_hz: -1: give a number above 0"),
        ("rate_hz = 2_000", "rate_hz = nan", "device[0].task[0].rate_hz: nan"),
        ("block_s = 0.05", "block_samples = 0", "device[0].task[0].block_samples: 0: give a number above 0"),
        ("block_s = 0.05", "block_s = 2000", "block_s: a block of 4000000 samples of 2 channels: 2097152 samples are"),
        ('name = "y"', 'name = "x"', "device[0].task[0].channels[1].name: 'x' is the name of"),
        ('name = "oven"', 'name = "rig"', "device[1].name: 'rig' is the name of device[0] too"),
        ('name = "oven"', 'name = ""', "device[1].name: '' is no name"),
        ('name = "second"', 'name = "postgres"', "sink[1].name: 'postgres' is the name of sink[0] too"),
        ('board = "sim"', 'board = "dt9806"', "device[0].board: 'dt9806' is no board; there are sim, sim-fast"),
        ("catchup_port = 7002", "catchup_port = 7001", "gateway.catchup_port: 7001 is pub_port too"),
        ("pub_port = 7001", "pub_port = 70010", "gateway.pub_port: 70010"),
        ("catchup_port = 7002", "catchup_mb_s = 0", "gateway.catchup_mb_s: 0: give a number of at least 0.1"),
        ("sync_ms = 0", "sync_ms = -3", "journal.sync_ms: -3"),
        ('dsn = "postgresql://localhost/lab"', "", "sink[0].dsn: a postgres sink needs one"),
        ('data = "somewhere"', "data = ", "not a TOML file: line 2: 'data =': invalid value"),
    ],
)
def test_whatever_is_wrong_is_one_line_that_names_key_value_and_what_is_allowed(tmp_path, old, new, says):
    assert old in WHOLE
    assert says in refused(tmp_path, WHOLE.replace(old, new, 1))


def test_a_config_without_devices_or_tasks_is_refused(tmp_path):
    assert "add a [[device]]" in refused(tmp_path, 'data = "x"')
    assert "device[0].task: the device 'a' has no task" in refused(tmp_path, '[[device]]\nname = "a"')


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_config(tmp_path / "missing.toml")


def test_an_unknown_device_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no device 'sim9'; the config has 'sim0', 'sim1'"):
        default_config().device("sim9")


def test_the_stack_without_a_file_has_two_boards_and_four_sinks():
    config = default_config(duration_s=10, meta={"operator": "Ada"})
    fast, slow = (device.tasks[0] for device in config.devices)

    assert [device.name for device in config.devices] == ["sim0", "sim1"]
    assert (fast.name, fast.kind, fast.rate_hz, len(fast.channels)) == ("vibration", "blocks", 10_000.0, 4)
    assert (slow.name, slow.kind, slow.rate_hz, len(slow.channels)) == ("temperature", "readings", 5.0, 3)
    assert (fast.samples_asked(10_000.0), slow.samples_asked(5.0)) == (100_000, 50)
    assert {sink.kind: sink.topics for sink in config.sinks} == {
        "parquet": None,
        "sqlite": None,
        "csv": ("reading/",),
        "jsonl": ("reading/",),
    }


def test_any_rate_can_be_had_on_request():
    assert default_config(rate_hz=5e6).devices[0].tasks[0].rate_hz == 5e6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"board": "dt"}, "'dt' is no board"),
        ({"rate_hz": 0.0}, "rate_hz: 0"),
        ({"sinks": ["parquet", "influx"]}, "no sink 'influx'; there are parquet, sqlite, postgres, csv, jsonl"),
        ({"sinks": ["postgres"]}, "needs one"),
        ({"duration_s": -1.0}, "duration_s: -1"),
        ({"speed": 0.0}, "speed"),
        ({"board": "playback"}, "playback:PATH"),
        ({"board": "playback:/nowhere.npz"}, "there is no such file"),
    ],
)
def test_a_wrong_option_of_up_is_one_line(options, says):
    with pytest.raises(UsageError) as error:
        default_config(**options)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_duration_shortens_what_is_longer_and_leaves_counts_alone():
    raw = {
        "device": [
            {"name": name, "task": [{"name": "t", "rate_hz": 100.0, "channels": ["a"], **ends}]}
            for name, ends in [
                ("a", {}),
                ("b", {"duration_s": 5.0}),
                ("c", {"duration_s": 50.0}),
                ("d", {"samples": 7}),
            ]
        ]
    }
    config = with_duration(config_from(raw), 10.0)
    assert [device.tasks[0].samples_asked(100.0) for device in config.devices] == [1000, 500, 1000, 7]
