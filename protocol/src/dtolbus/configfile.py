"""What `dtolbus.toml` says of places, for commands that need no more of it than where the data is."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from dtolbus.cli import option
from dtolbus.errors import UsageError

DEFAULT_DATA = Path("data")
_LOOPBACK, _ALL = "127.0.0.1", "0.0.0.0"  # noqa: S104  # nothing is bound here
_PUB_PORT, _CATCHUP_PORT = 5601, 5602

config_option = option(
    "--config", type=click.Path(path_type=Path), help="dtolbus.toml: for the data folder that it names."
)


def data_options(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data` and `--config`, which says where the data folder is; the command gets `data`, a Path."""

    @config_option
    @option("--data", type=click.Path(path_type=Path), help="Data folder.  [default: the config's, or ./data]")
    @wraps(call)
    def with_folder(config: Path | None, data: Path | None, **rest: Any) -> Any:
        return call(data=data_folder(config, data) or DEFAULT_DATA, **rest)

    return with_folder


def data_folder(config: Path | None, data: Path | None) -> Path | None:
    """Return the data folder: `data`, else the config's; None where neither is given. Raises UsageError."""
    if data is not None or config is None:
        return data
    said = _table(config).get("data", str(DEFAULT_DATA))
    if not isinstance(said, str) or not said:
        raise UsageError(f"{config}: data = {said!r}: give a text in quotes")
    try:
        return Path(said).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{config}: data = {said!r}: {error}") from error


def gateway_urls(config: Path) -> tuple[str, str]:
    """Return where the config's gateway publishes, and where it answers. Raises UsageError."""
    said = _table(config).get("gateway", {})
    served = said if isinstance(said, dict) else {}
    host = served.get("host", _LOOPBACK)
    ports = (served.get("pub_port", _PUB_PORT), served.get("catchup_port", _CATCHUP_PORT))
    if 0 in ports:
        raise UsageError(f"{config}: [gateway] has a port of 0, any free one: `dtolbus up` says which it took")
    host = _LOOPBACK if host == _ALL else host
    return f"tcp://{host}:{ports[0]}", f"tcp://{host}:{ports[1]}"


def _table(path: Path) -> dict[str, Any]:
    """Return the file as it stands: TOML, or JSON as `.json`."""
    from dtolbus.jsonreading import read_json  # noqa: PLC0415  # msgspec is heavy; --help does without
    from dtolbus.tomlreading import read_toml  # noqa: PLC0415  # as above

    try:
        data = path.read_bytes()
        found: Any = read_json(data) if path.suffix == ".json" else read_toml(data)
    except OSError as error:
        raise UsageError(f"{path}: the config cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return found if isinstance(found, dict) else {}
