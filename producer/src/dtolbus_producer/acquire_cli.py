"""The command that acquires one device."""

from pathlib import Path

import click

from dtolbus.cli import Command, logged, option, stop_event
from dtolbus_producer.acquisition import acquire
from dtolbus_producer.config import load_config


@click.command("dtolbus-producer", cls=Command)
@option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="The dtolbus.toml.")
@option("--device", "device_name", default=None, help="Which device; needed where the config has several.")
@option("--data", "data_dir", default=None, type=click.Path(path_type=Path), help="The data folder, not the config's.")
@logged
def producer(config_path: Path, device_name: str | None, data_dir: Path | None) -> None:
    """Acquire one device into the journal until its tasks are done, or Ctrl-C."""
    config = load_config(config_path)
    if device_name is None and len(config.devices) > 1:
        names = ", ".join(device.name for device in config.devices)
        raise click.UsageError(f"the config has the devices {names}: choose one with --device")
    acquire(config, device_name or config.devices[0].name, data_dir or Path(config.data), stop_event())
