"""What the README shows is what there is."""

import re
import subprocess
import sys
from pathlib import Path

from dtolbus_producer.config import load_config
from dtolbus_producer.journalconfig import JournalConfig

ROOT = Path(__file__).parents[2]
COMMANDS = ("up", "check", "boards", "doctor", "verify", "listen", "prune", "recalibrate", "run", "serve")
README = (ROOT / "README.md").read_text("utf-8")


def test_its_configuration_is_valid_and_means_what_it_says(tmp_path: Path) -> None:
    text, channels, journal = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "dtolbus.toml"
    path.write_text(text + journal, "utf-8")
    config = load_config(path)
    assert [device.name for device in config.devices] == ["sim0", "sim1"]
    assert config.run == {"operator": "A. Meyer", "specimen": "bearing 6205, inner race"}
    assert [sink.kind for sink in config.sinks] == ["parquet", "sqlite"]
    assert (config.journal.max_bytes, config.journal.min_free_bytes) == (200 << 30, 1 << 30)
    usual = JournalConfig(max_size=config.journal.max_size, min_free=config.journal.min_free)
    assert config.journal == usual  # the rest are the defaults
    path.write_text(f'[[device]]\nname = "d"\n[[device.task]]\nname = "t"\n{channels}', "utf-8")
    (task,) = load_config(path).devices[0].tasks
    assert [channel.name for channel in task.channel_configs] == ["oven", "terminals", "strain"]


def test_its_commands_exist_with_the_options_it_names() -> None:
    lines = re.findall(r"uv run (dtolbus[\w-]*(?: [^\n`#]*)?)", README)
    assert len(lines) >= 8
    for line in set(lines):
        words = line.split()
        known = [word for word in words[1:2] if not word.startswith("-")] if words[0] == "dtolbus" else words[1:2]
        command = [words[0], *(word for word in known if word in COMMANDS)]
        script = Path(sys.executable).parent / command[0]
        helped = subprocess.run([script, *command[1:], "--help"], capture_output=True, text=True, timeout=60)
        assert helped.returncode == 0, line
        for option in re.findall(r"--[\w-]+", line):
            assert option in helped.stdout, line
