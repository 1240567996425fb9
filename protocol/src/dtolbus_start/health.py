"""The command `health`: asks the process that runs here how it is. For a container's HEALTHCHECK.

It loads nothing but click and the standard library: it is called every few seconds, beside what records.
"""

import json
import sys
from typing import NoReturn
from urllib.parse import urlsplit

import click

_PATH = "/health"
_MOST_BYTES = 64 * 1024
_ALL, _LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104  # nothing is bound here
_ANSWERS = (200, 503)


def ask(host: str, port: int, timeout_s: float) -> tuple[bool, str]:
    """Return whether the process that serves its facts there is healthy, and what it says, in one line."""
    import http.client  # noqa: PLC0415  # other commands of the group do without

    asked = http.client.HTTPConnection(_LOOPBACK if host == _ALL else host, port, timeout=timeout_s)
    try:
        asked.request("GET", _PATH)
        answer = asked.getresponse()
        said = json.loads(answer.read(_MOST_BYTES))
        if answer.status not in _ANSWERS or not isinstance(said, dict):
            return False, f"http://{host}:{port}{_PATH} is no dtolbus (status {answer.status})"
        told = "; ".join(map(str, said.get("problems") or said.get("facts") or ["nothing to tell"]))
        return answer.status == 200, f"{said.get('part', 'dtolbus')}: {told}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return False, f"http://{host}:{port}{_PATH} does not answer: {error or type(error).__name__}"
    finally:
        asked.close()


def _place(url: str) -> tuple[str, int]:
    """Return host and port of a URL like http://127.0.0.1:5603. Raises click.UsageError."""
    try:
        split = urlsplit(url if "://" in url else f"http://{url}")
        if split.scheme == "http" and split.hostname and split.port:
            return split.hostname, split.port
    except ValueError:
        pass
    raise click.UsageError(f"URL {url!r} is not like http://127.0.0.1:5603")


@click.command("health", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("url", required=False)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    envvar="DTOLBUS_METRICS_PORT",
    help="The port that the process was given; as there, DTOLBUS_METRICS_PORT.",
)
@click.option("--metrics-host", default=_LOOPBACK, envvar="DTOLBUS_METRICS_HOST", help="Its address, if it has one.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.05, 60), default=1.5, help="Seconds.", show_default=True
)
def health(url: str | None, metrics_port: int | None, metrics_host: str, timeout_s: float) -> NoReturn:
    """Ask the process that runs with the same settings whether it is healthy; exit 0 if so, else 1.

    It must serve its facts: --metrics-port, or DTOLBUS_METRICS_PORT. URL, like http://127.0.0.1:5603, says it too.
    """
    if url is not None:
        place = _place(url)
    elif metrics_port is not None:
        place = metrics_host, metrics_port
    else:
        raise click.UsageError("which process? Give --metrics-port, set DTOLBUS_METRICS_PORT, or name a URL")
    is_healthy, told = ask(*place, timeout_s)
    line = "".join(sign if sign.isprintable() else " " for sign in told)
    click.echo(f"{'healthy' if is_healthy else 'not healthy'}: {line}", err=not is_healthy)
    sys.exit(0 if is_healthy else 1)


def main(arguments: list[str], name: str) -> NoReturn:
    """Run `NAME health …`; wrong usage is one line, and exit 2."""
    try:
        code = health.main(arguments, prog_name=f"{name} health", standalone_mode=False)
    except click.UsageError as error:
        click.echo(f"{name}: {error.format_message()} (see {name} health --help)", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
