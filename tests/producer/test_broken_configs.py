"""`dtolbus check` on broken configurations: one line that names key, value and what is allowed, and exit code 2."""

import re

import numpy as np
import pytest
from tests.producer.looking import call

from dtolbus_producer.lookingcli import check

WHOLE = """\
data = "DATA"
[run]
operator = "Ada"
[[device]]
name = "rig"
[[device.task]]
name = "vibration"
rate_hz = 2000
channels = ["x", { name = "y", range = 2.5, unit = "g", sensitivity_v = 0.1 }]
[gateway]
pub_port = 0
catchup_port = 0
[journal]
sync_ms = 20
[[sink]]
kind = "csv"
[[sink]]
kind = "sqlite"
"""
TASK = "device[0].task[0]"

# what is replaced, what by, what the line must have: key, value, what is allowed
UNKNOWN_KEYS = [
    ('data = "DATA"', 'daat = "d"', ["daat: ", "did you mean 'data'?"]),
    ("[journal]", "[jurnal]", ["jurnal: ", "did you mean 'journal'?"]),
    ('name = "rig"', 'name = "rig"\nreconect_s = 3', ["device[0].reconect_s: ", "did you mean 'reconnect_s'?"]),
    ('name = "rig"', 'name = "rig"\noptions = { sped = 2 }', ["device[0].options.sped: ", "did you mean 'speed'?"]),
    ("rate_hz =", "rate =", [f"{TASK}.rate: ", "did you mean 'rate_hz'?"]),
    ("range = 2.5", "rnge = 2.5", [f"{TASK}.channels[1].rnge: ", "did you mean 'range'?"]),
    ("pub_port", "pubport", ["gateway.pubport: ", "did you mean 'pub_port'?"]),
    ('kind = "csv"', 'kynd = "csv"', ["sink[0].kynd: ", "did you mean 'kind'?"]),
    (
        'kind = "csv"',
        'kind = "csv"\noptions = { max_ag = 3 }',
        ["sink[0].options.max_ag: ", "did you mean 'max_age'?"],
    ),
    ('kind = "csv"', 'kind = "csv"\noptions = { out = "x" }', ["sink[0].options.out: ", "set path in the [[sink]]"]),
]
MEANT_OTHERWISE = [
    ("[[device]]", "[[devices]]", ["devices: write [[device]], not [[devices]]"]),
    ("[[device]]", "[devices]", ["devices: write [[device]], not [devices]"]),
    ("[[device.task]]", "[task]", ["task: write [[device.task]], not [task]"]),
    ("[[device.task]]", "[[task]]", ["task: write [[device.task]], not [[task]]"]),
    ("[[device.task]]", "[[device.tasks]]", ["device[0].tasks: write [[device.task]], not [[device.tasks]]"]),
    ("[[device.task]]", "[device.task]", ["device[0].task: write [[device.task]], not [device.task]"]),
    ('name = "rig"', 'name = "rig"\ndata = "d"', ["device[0].data: there is no such key here; data stands at the top"]),
    ("range = 2.5", 'coupling = "AC"', ["channels[1].coupling: ", 'in [device.options], ac_coupled = ["NAME"]']),
    ("range = 2.5", "iepe = true", ["channels[1].iepe: ", 'in [device.options], iepe = ["NAME"]']),
    (
        "sensitivity_v = 0.1",
        "sensitivity = 100",
        ["channels[1].sensitivity: ", "write sensitivity_v, the volts for one"],
    ),
    (
        'name = "rig"',
        'name = "rig"\noptions = { iepe = ["y"] }',
        ["options.iepe: it is an option of board = 'uldaq'; the simulator has no IEPE: leave it out for a rehearsal"],
    ),
    (
        'name = "rig"',
        'name = "rig"\nboard = "uldaq"\noptions = { trigger = "external" }',
        ["options.trigger: it is an option of board = 'dtollib'; 'uldaq' has none: leave it out; it has ac_coupled"],
    ),
]
WRONG_TYPES = [
    ("rate_hz = 2000", 'rate_hz = "2 kHz"', [f"{TASK}.rate_hz = '2 kHz': give a number"]),
    ("rate_hz = 2000", "rate_hz = true", [f"{TASK}.rate_hz = True: give a number"]),
    ("rate_hz = 2000", "rate_hz = 2000\nsamples = 1.5", [f"{TASK}.samples = 1.5: give a whole number"]),
    ('name = "rig"', "name = 7", ["device[0].name = 7: give a text in quotes"]),
    ('name = "rig"\n', "", ["device[0].name: it is missing: give one"]),
    ("[[device]]", "[device]", ["device: write [[device]], not [device]"]),
    ("[run]", "[[run]]", ["run: write [run], not [[run]]"]),
    ('["x", {', '["x", 7, {', [f"{TASK}.channels[1] = 7: give a text in quotes or a table"]),
    ('kind = "csv"', 'kind = "csv"\ntopics = "reading/"', ["sink[0].topics = 'reading/': give a list"]),
    (
        'name = "rig"',
        'name = "rig"\noptions = { speed = "fast" }',
        ["device[0].options.speed = 'fast': ", "'max', a number"],
    ),
    ("sync_ms = 20", "max_size = 200", ['journal.max_size = 200: give a text in quotes, such as "200 GB"']),
    ('name = "rig"', "name = 2026-02-11", ["device[0].name = 2026-02-11: give a text in quotes"]),
    ('kind = "csv"', 'kind = "csv"\noptions = { max_age = "x" }', ["sink[0].options.max_age: 'x': give a number"]),
]
CANNOT_BE = [
    (
        "rate_hz = 2000",
        "rate_hz = 200000",
        [f"{TASK}.rate_hz: 200000 Hz on 2 channels are 400000 samples/s", "at most 25000 Hz", "throughput_hz = 400000"],
    ),
    ('data = "DATA"', r'data = "C:\test\new"', ["data: 'C:\\test\\new' has a control character", "use single quotes"]),
    ('data = "DATA"', 'data = ""', ["data: '' is no path"]),
    ('data = "DATA"', 'data = "~nobody-has-this-name/rig"', ["data: '~nobody-has-this-name/rig': ", "Give the whole"]),
    (
        'kind = "csv"',
        r'kind = "csv"\npath = "C:\nights"'.replace(r"\npath", "\npath"),
        ["sink[0].path: ", "control char"],
    ),
    ('name = "rig"', 'name = "rig"\nboard = "playback:a\\tb.npz"', ["device[0].board: ", "has a control character"]),
    ("rate_hz = 2000", "rate_hz = -5", [f"{TASK}.rate_hz: -5: give a number above 0"]),
    ('channels = ["x", {', "channels = [] #", [f"{TASK}.channels: ", "has no channels: name at least one"]),
    ('["x", {', '["y", {', [f"{TASK}.channels[1].name: 'y' is the name of task[0].channels[0] too: rename one"]),
    (
        "range = 2.5",
        "range = 25",
        [f"{TASK}.channels[1].range: 25 V: the ranges of a DT9806 are 10, 1, 0.1, 0.02 V"],
    ),
    ("range = 2.5", "range = 2.5, gain = 4", [f"{TASK}.channels[1].gain: 4 beside range = 2.5: give the gain or"]),
    ("range = 2.5", "gain = 3", [f"{TASK}.channels[1].gain: 3: the gains of a DT9806 are 1, 10, 100, 500"]),
    ("range = 2.5", "physical = 16", [f"{TASK}.channels[1].physical: 16: a DT9806 has the inputs 0 to 15"]),
    (", sensitivity_v = 0.1", "", [f"{TASK}.channels[1].unit: 'g' from volts: give sensitivity_v"]),
    ("rate_hz = 2000", "rate_hz = 2000\nduration_s = -1", [f"{TASK}.duration_s: -1: give a number above 0"]),
    (
        "rate_hz = 2000",
        "rate_hz = 2000\nduration_s = 0.0001",
        [f"{TASK}.duration_s: 0.0001 is shorter than one sample"],
    ),
    ("rate_hz = 2000", "rate_hz = 2000\nsamples = 99999999999999999999", [f"{TASK}.samples: 1e+20: give 1 to 1e+15"]),
    ("rate_hz = 2000", "rate_hz = 2000\nduration_s = 1e18", [f"{TASK}.duration_s: 1e+18: give 1e-09 to 1e+10"]),
    ("rate_hz = 2000", "rate_hz = 1e-300", [f"{TASK}.rate_hz: 1e-300: give 1e-06 to 1e+09"]),
    ("rate_hz = 2000", 'kind = "readings"\nrate_hz = 1e9', [f"{TASK}.rate_hz: 1e+09: give 1e-06 to 10000"]),
    ('operator = "Ada"', "serial = 99999999999999999999", ["run.serial = 1e+20: ", "at most 64 bits"]),
    ('operator = "Ada"', "limits = [1, nan]", ["run.limits[1] = nan: give a finite number"]),
    (
        'name = "rig"',
        'name = "rig"\noptions = { drift_ppm = nan }',
        ["device[0].options.drift_ppm: nan: give -100000 to 100000"],
    ),
    ('unit = "g", ', "", [f"{TASK}.channels[1].unit: it is missing: say what sensitivity_v is the volts of"]),
    ('unit = "g"', 'unit = ""', [f"{TASK}.channels[1].unit: '' is no unit"]),
    ("sensitivity_v = 0.1", "sensitivity_v = 1e-310", [f"{TASK}.channels[1].sensitivity_v: 1e-310: give the volts"]),
    ('["x", {', '["x", { physical = 0,', [f"{TASK}.channels[1].physical: 0 is the input of 'x' too: give each"]),
    (
        'range = 2.5, unit = "g", sensitivity_v = 0.1',
        'thermocouple = "K", cold_junction = 298.15',
        [f"{TASK}.channels[1].cold_junction: 298.15 °C: a cold junction has -100 to 200 °C, not kelvin"],
    ),
    (
        "rate_hz = 2000",
        "rate_hz = 2000\nblock_samples = 9_000_000",
        [f"{TASK}.block_samples: ", "9000000", "2097152 samples are the most"],
    ),
    (
        "rate_hz = 2000",
        "rate_hz = 2000\nblock_s = 0.1\nblock_samples = 5",
        [f"{TASK}.block_s: 0.1 beside block_samples = 5"],
    ),
    (
        "rate_hz = 2000",
        'rate_hz = 2\nkind = "readings"\nblock_s = 2',
        [f"{TASK}.block_s: 2: the task 'vibration' is polled"],
    ),
    (
        "rate_hz = 2000",
        'rate_hz = 2000\nkind = "polled"',
        [f"{TASK}.kind = 'polled': allowed are 'blocks', 'readings'"],
    ),
    (
        'name = "rig"',
        'name = "rig"\nreconnect_s = -3',
        ["device[0].reconnect_s: -3: give a number of seconds, 0 or more"],
    ),
    ('name = "rig"', 'name = "rig"\nboard = "dt"', ["device[0].board: 'dt' is no board; there are sim, playback"]),
    (
        'name = "rig"',
        'name = "rig"\nboard = "playback:/nowhere.npz"',
        ["device[0].board: playback:/nowhere.npz: there is no such file"],
    ),
    (
        'name = "rig"',
        'name = "rig"\nboard = "playback:HERE/one.npz"',
        ["device[0].board: playback:", "one.npz", "it lacks channels, codes"],
    ),
    ('kind = "csv"', 'kind = "influx"', ["sink[0].kind = 'influx': allowed are 'parquet', 'sqlite'"]),
    ('kind = "csv"', 'kind = "sqlite"', ["sink[1].name: 'sqlite' is the name of sink[0] too: rename one"]),
    (
        'kind = "csv"',
        'kind = "csv"\npath = "HERE/p"\n[[sink]]\nkind = "csv"\nname = "b"\npath = "HERE/x/../p"',
        ["sink[1].path: ", "as sink[0] does: choose another path"],
    ),
    (
        'kind = "csv"',
        'kind = "csv"\npath = "DATA/journal/x"',
        ["sink[0].path: ", "is in 'journal', the data folder's own"],
    ),
    (
        'kind = "csv"',
        'kind = "csv"\nblocks = "both"',
        ["sink[0].blocks: 'both': a csv sink takes 'skip', 'summary', 'samples'"],
    ),
    (
        'kind = "csv"',
        'kind = "parquet"\nblocks = "summary"',
        ["sink[0].blocks: 'summary': a parquet sink stores every sample"],
    ),
    (
        'kind = "csv"',
        'kind = "csv"\ntopics = ["blocks/"]',
        ["sink[0].topics[0]: 'blocks/' is not like block/, reading/"],
    ),
    (
        'kind = "csv"',
        'kind = "csv"\ntopics = ["block/"]',
        ["sink[0].topics[0]: 'block/': ", "blocks = 'summary' or 'samples'"],
    ),
    ('kind = "csv"', 'kind = "postgres"', ["sink[0].dsn: a postgres sink needs one"]),
    (
        'kind = "csv"',
        'kind = "postgres"\ndsn = "mysql://ada:secret@h/d"',
        ["sink[0].dsn: 'mysql://…'", "postgresql://user@host"],
    ),
    (
        'kind = "csv"',
        'kind = "postgres"\ndsn = "postgresql://h/d"\n[[sink]]\nkind = "postgres"\nname = "p"\ndsn = "postgresql://h/e"',
        ["sink[1].dsn: another database than sink[0]'s"],
    ),
    (
        'kind = "csv"',
        'kind = "postgres"\ndsn = "postgresql://h/d"\n[[sink]]\nkind = "postgres"\nname = "p"\ndsn = "postgresql://h/d"',
        ["sink[1].options.schema: 'public' is where sink[0] stores too"],
    ),
    ("pub_port = 0", "pub_port = 70010", ["gateway.pub_port: 70010: a port is 1 to 65535"]),
    ("sync_ms = 20", 'max_size = "20 gigs"', ["journal.max_size: '20 gigs' is no size: give one like 200G"]),
    ("sync_ms = 20", 'max_size = "1M"', ["journal.max_size: '1M': give at least two segments"]),
    ("sync_ms = 20", 'min_free = "-1G"', ["journal.min_free: '-1G' is no size"]),
    ("sync_ms = 20", 'when_full = "delete"', ["journal.when_full = 'delete': allowed are 'stop', 'gap-oldest'"]),
]
Y = f"{TASK}.channels[1]"
CONVERSIONS = [  # in the place of the unit and the sensitivity of the channel y
    (
        "thermocouple = 'X', cold_junction = 25",
        f"{Y}.thermocouple = 'X': allowed are 'B', 'E', 'J', 'K', 'N', 'R', 'S', 'T'",
    ),
    (
        "thermocouple = 'K'",
        f"{Y}.thermocouple: 'K': without cold_junction the simulated board reads them in polled tasks only: "
        "give the task kind = 'readings' (left out it is 'blocks')",
    ),
    ("thermocouple = 'K', cold_junction = 'cjc'", f"{Y}.cold_junction: 'cjc': there is no such channel in this task"),
    ("thermocouple = 'K', cold_junction = 'x'", f"{Y}.cold_junction: 'x': that channel does not measure °C"),
    ("thermocouple = 'K', cold_junction = 'y'", f"{Y}.cold_junction: 'y': that channel does not measure °C"),
    ("thermocouple = 'B', cold_junction = -5", f"{Y}.cold_junction: cold_junction is -5.0: that is no temperature of"),
    ("thermocouple = 'K', cold_junction = true", f"{Y}.cold_junction = True: give a number or a text in quotes"),
    ("thermocouple = 'K', cold_junction = 25, unit = 'mV'", f"{Y}.unit: 'mV': out of thermocouple come °C"),
    ("thermocouple = 'K', cold_junction = 25, sensitivity_v = 2", f"{Y}.sensitivity_v: 2 beside thermocouple"),
    ("cold_junction = 25", f"{Y}.cold_junction: 25.0: only beside thermocouple"),
    ("polynomial = [0, 1], table = [[0, 0], [1, 1]], unit = 'bar'", f"{Y}.table: beside polynomial: a channel has one"),
    ("polynomial = [], unit = 'bar'", f"{Y}.polynomial: no coefficients: give at least"),
    ("polynomial = [0, inf], unit = 'bar'", f"{Y}.polynomial: coefficient 1 is inf: give a finite number"),
    ("polynomial = [0, 1]", f"{Y}.unit: it is missing: say what comes out of the polynomial"),
    ("table = [[0, 0], [0, 1]], unit = 'bar'", f"{Y}.table: x must strictly rise from row to row, but 0.0 follows 0.0"),
    ("table = [[0, 0]], unit = 'bar'", f"{Y}.table: a table needs as many x as y, at least two"),
    ("table = [[0, 0], [1]], unit = 'bar'", f"{Y}.table[1]: "),
    ("rtd = { r0_ohm = 100 }", f"{Y}.rtd.excitation_a: it is missing: give one"),
    ("rtd = { r0 = 100, excitation_a = 0.001 }", f"{Y}.rtd.r0: there is no such key; did you mean 'r0_ohm'?"),
    ("rtd = { r0_ohm = -1, excitation_a = 0.001 }", f"{Y}.rtd: r0_ohm is -1.0: give the resistance at 0 °C, above 0"),
    ("rtd = { r0_ohm = 100, excitation_a = 0 }", f"{Y}.rtd: excitation_a is 0.0: give the current"),
    ("rtd = { r0_ohm = 100, excitation_a = 0.001, curve = [1, 2, 3] }", f"{Y}.rtd: CallendarVanDusen(a=1.0"),
    (
        "bridge = { configuration = 'third', gauge_factor = 2, excitation_v = 5 }",
        f"{Y}.bridge.configuration = 'third': allowed are 'quarter', 'half_poisson'",
    ),
    (
        "bridge = { configuration = 'quarter', gauge_factor = 2, excitation_v = 0 }",
        f"{Y}.bridge: excitation_v is 0.0: give the volts across the bridge, not 0",
    ),
    (
        "bridge = { configuration = 'half_poisson', gauge_factor = 2, excitation_v = 5 }",
        f"{Y}.bridge: a half_poisson bridge needs poisson_ratio, about 0.3 for steel",
    ),
    (
        "bridge = { configuration = 'quarter', gauge_factor = 2, excitation_v = 5 }, unit = 'N'",
        f"{Y}.unit: 'N': a strain is in m/m, mm/m, µm/m, µε",
    ),
]
NO_TOML = [
    ('data = "DATA"', r'data = "C:\Users\ada"', ["line 1: ", "begins an escape: use single quotes, or /"]),
    (
        "channels = [",
        'channels = [{ name = "a",\n  physical = 3 },',
        ["line 9: 'channels = [{ name = \"a\",': a table in { } must end in the line it begins in: join the lines"],
    ),
    ("sensitivity_v = 0.1", "sensitivity_v = 0.1, ", ["line 9: ", "there is no comma before the }"]),
    ('operator = "Ada"', "operator = Ada", ["not a TOML file: line 3: 'operator = Ada': invalid value"]),
    ("rate_hz = 2000", "rate_hz = 2000\nrate_hz = 3", ["line 9: 'rate_hz = 3': this key, or a table of its name, is"]),
    ('operator = "Ada"', 'operator = "Ad\udce9"', ["line 3 is not UTF-8 (byte 0xe9)", "Adé", "save the file as UTF-8"]),
]
MEASURES = 'unit = "g", sensitivity_v = 0.1'
TABLE = [
    *UNKNOWN_KEYS,
    *MEANT_OTHERWISE,
    *WRONG_TYPES,
    *CANNOT_BE,
    *((MEASURES, keys, [says]) for keys, says in CONVERSIONS),
    *NO_TOML,
]


@pytest.mark.parametrize(("old", "new", "says"), TABLE, ids=[new.split("\n")[-1][:40] for _, new, _ in TABLE])
def test_a_broken_config_is_one_line_with_key_value_and_what_is_allowed(tmp_path, capsys, old, new, says):
    assert WHOLE.count(old) >= 1
    np.savez(tmp_path / "one.npz", something=np.zeros(3))
    text = WHOLE.replace(old, new, 1).replace("DATA", f"{tmp_path}/data").replace("HERE", str(tmp_path))
    path = tmp_path / "lab.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    done = call(check, ["--config", path], capsys)

    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"check: {path}: ") or done.err.startswith("check: options: ")
    assert done.err.count("\n") == 1
    for words in says:
        assert words in done.err
    assert "secret" not in done.err
    assert not (tmp_path / "data").exists()


def test_the_config_that_they_were_broken_from_is_whole(tmp_path, capsys):
    path = tmp_path / "lab.toml"
    path.write_text(WHOLE.replace("DATA", f"{tmp_path}/data"))
    done = call(check, ["--config", path], capsys)
    assert (done.code, done.err) == (0, "")


def test_every_option_that_a_sink_of_ours_takes_is_taken(tmp_path, capsys):
    options = 'since = "7d"\nmax_age = 3\nlog_level = "info"\nconnect = "tcp://127.0.0.1:7001"\n'
    path = tmp_path / "lab.toml"
    path.write_text(WHOLE.replace("DATA", f"{tmp_path}/data") + f"[sink.options]\n{options}")
    assert call(check, ["--config", path], capsys).code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('layout = "tall"', "sink.0..options.layout.*'tall'.*'long', 'wide'"),
        ('values = "codes"', "sink.0..options.values.*codes need the layout wide"),
        ('layout = "wide"\nvalues = "codes"', ""),
    ],
)
def test_the_layout_of_a_parquet_sink_is_held_against_its_worker(tmp_path, capsys, options, said):
    path = tmp_path / "lab.toml"
    device = '[[device]]\nname = "d"\n[[device.task]]\nname = "t"\nrate_hz = 10\nchannels = ["a"]\n'
    path.write_text(f'data = "{tmp_path}/data"\n{device}[[sink]]\nkind = "parquet"\n[sink.options]\n{options}\n')
    done = call(check, ["--config", path], capsys)
    assert done.code == (2 if said else 0)
    assert re.search(said, done.err)


def test_a_byte_order_mark_a_home_folder_and_an_edge_of_the_throughput_are_taken(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = tmp_path / "lab.toml"
    text = WHOLE.replace("DATA", "~/rig").replace("rate_hz = 2000", "rate_hz = 51200")
    text = text.replace('name = "rig"', 'name = "rig"\noptions = { throughput_hz = 102400 }')
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    done = call(check, ["--config", path], capsys)
    assert (done.code, done.err) == (0, "")
    assert str(tmp_path / "rig" / "journal") in done.out
