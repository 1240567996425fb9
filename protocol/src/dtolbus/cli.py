"""The `dtolbus` command, and what every command line of dtolbus shares.

Any distribution adds commands by an entry point in the group `dtolbus.commands`. Every option can come from the
environment as `DTOLBUS_<NAME>`. What goes wrong is one line on stderr and an exit code; `--debug` shows the traceback.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NoReturn, ParamSpec

import click

from dtolbus import logs
from dtolbus import topics as naming
from dtolbus.errors import DtolbusError, UsageError
from dtolbus.seconds import Seconds
from dtolbus.shown import mask_tracebacks, masked, printable
from dtolbus_start import loaded

P = ParamSpec("P")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

COMMANDS = "dtolbus.commands"
_WHAT_MOST_NEED = "dtolbus.client"
"""msgspec, numpy, zmq: of a second most; whoever only asks for --help does not wait for it."""


def option(*names: str, **settings: Any) -> Decorator:
    """Return a click option that can also be set in the environment, as `DTOLBUS_<NAME>`."""
    long = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", f"DTOLBUS_{long.split('/')[0].lstrip('-').replace('-', '_').upper()}")
    settings.setdefault("show_envvar", False)
    if not settings.get("is_flag") and settings.get("default") is not None:
        settings.setdefault("show_default", True)
    return click.option(*names, **settings)


class _OneLine(click.Command):
    """A command whose errors are one line: what is wrong, and what to do."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run the command line and exit."""
        _open_standard_streams()
        mask_tracebacks()
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else self.name
            self._end(2, f"{error.format_message()} (see {path} --help)")
        except click.ClickException as error:
            self._end(error.exit_code, error.format_message())
        except (click.Abort, KeyboardInterrupt):
            self._end(130, "interrupted")
        except DtolbusError as error:
            if "--debug" in sys.argv:
                raise
            self._end(error.exit_code, str(error))
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._end(141, "")
        sys.exit(code if isinstance(code, int) else 0)

    def _end(self, code: int, message: str) -> NoReturn:
        if message:
            name, said = self.name or "dtolbus", " ".join(message.split())
            line = f"{name}: {printable(masked(said))}"
            if logs.is_json():
                line = logs.json_line(time.time(), "error", name, said, {"exit_code": code})
            with contextlib.suppress(OSError):  # a terminal that is gone changes no exit code
                click.echo(line, err=True)
        sys.exit(code)


def _open_standard_streams() -> None:
    """Let those that were closed (`>&-`) lead nowhere: else the next file opened would be one of them."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one's
            setattr(sys, name, open(opened, mode, encoding="utf-8", closefd=opened != number))


class Command(_OneLine):
    """A command of its own, like `dtolbus-sqlite`."""


class _Commands(_OneLine, click.Group):
    """The group `dtolbus`; a command's code is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({entry.name for entry in entry_points(group=COMMANDS)})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        for entry in entry_points(group=COMMANDS, name=name):
            found = entry.load()
            return found if isinstance(found, click.Command) else None
        return None


def logged(call: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--debug`, `--log-level` and `--log-format`, and set up logging before the command runs."""

    @option("--debug", is_flag=True, help="Show tracebacks.")
    @option(
        "--log-level",
        default="warning",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="Least level logged.",
    )
    @option(
        "--log-format", default="text", type=click.Choice(["text", "json"]), help="Log lines for people or machines."
    )
    @wraps(call)
    def with_logging(debug: bool, log_level: str, log_format: str, **kwargs: Any) -> Any:
        import_module(_WHAT_MOST_NEED)  # before: an exception of Ctrl-C would go astray in the midst of it
        loaded()
        logs.set_up("debug" if debug else log_level, log_format)
        for given in kwargs.values():
            for one in given if isinstance(given, tuple) else (given,):
                check_text(os.path.abspath(one) if isinstance(one, Path) else one)
        return call(**kwargs)

    return with_logging


def check_text(given: object) -> None:
    """Raise UsageError for a text with bytes that are no UTF-8: no journal, message or log could name it."""
    try:
        if isinstance(given, str):
            given.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{given!r} is not UTF-8: choose a name that is, or rename what has it") from error


STOP_WITH_PARENT = "DTOLBUS_STOP_WITH_PARENT"
"""Set by whoever starts a process with a pipe as its stdin: the process ends cleanly when that pipe closes."""
STOP_WORD = b"stop\n"
"""What the parent writes into that pipe before it closes it; the death of a parent closes it without."""


class StopEvent(threading.Event):
    """Set when everything is to end."""

    is_orphan = False
    """Whether it is set because the parent died, rather than asked for the end."""


def stop_event() -> StopEvent:
    """Return an event that is set by Ctrl-C, SIGTERM, the end of the terminal, or that of the parent that asked for it.

    Where the end of the terminal is ignored (`nohup`), it stays so.
    A second Ctrl-C, a second or more after the first, ends the process at once: some senders send each twice. Call it
    on the main thread.
    """
    stop = StopEvent()
    signals: SimpleQueue[None] = SimpleQueue()  # a handler may interrupt `stop.wait`, which holds the event's lock
    first_at = math.inf

    def wait_for_signal() -> None:
        signals.get()
        stop.set()

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        if number == signal.SIGINT and time.monotonic() - first_at >= 1.0:
            raise KeyboardInterrupt
        first_at = min(first_at, time.monotonic())
        signals.put(None)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
            signal.signal(number, on_signal)
    threading.Thread(target=wait_for_signal, name="stop-on-signal", daemon=True).start()
    if os.environ.get(STOP_WITH_PARENT):

        def wait_for_end() -> None:
            said = b""
            while len(said) < len(STOP_WORD) and (more := os.read(0, 1024)):
                said += more
            stop.is_orphan = not said and not stop.is_set()
            stop.set()

        threading.Thread(target=wait_for_end, name="stop-with-parent", daemon=True).start()
    return stop


@click.group(cls=_Commands, name="dtolbus", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dtolbus")
def main() -> None:
    """Record a DT board so that nothing is lost: journal, bus, and a process for each sink."""


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command with one-line errors and logging options."""

    def made(call: Callable[..., Any]) -> click.Command:
        return click.command(name, cls=Command, context_settings={"help_option_names": ["-h", "--help"]}, **settings)(
            logged(call)
        )

    return made


def topic_option() -> Decorator:
    """Return the option `--topic`, repeatable: prefixes of streams to take."""

    def checked(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(topic_prefix(text) for text in given)

    about = "Streams to take: block/, reading/, block/DEVICE/, block/DEVICE/TASK/; repeatable.  [default: all]"
    return option("--topic", "topics", multiple=True, callback=checked, help=about)


def topic_prefix(text: str) -> str:
    """Return a topic prefix as on the wire, names quoted. Raises click.BadParameter where it can match nothing."""
    try:
        return naming.prefix(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def parse_pairs(pairs: Sequence[str], what: str) -> dict[str, str]:
    """Return `key=value` texts as a dict. Raises click.UsageError for one without `=`."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise click.UsageError(f"{what} {pair!r} is not KEY=VALUE")
        found[key] = value
    return found


@command("listen")
@click.argument("url", required=False)
@option("--config", type=click.Path(path_type=Path), help="dtolbus.toml: its gateway, in the place of URL.")
@option("--catchup", help="The gateway's catch-up socket: also get what the journal already holds.")
@topic_option()
@option("--duration", type=Seconds(), help="Seconds after which to end, or a time like 5min, 2h.")
@option(
    "--key", "key", type=click.Path(path_type=Path), help="This machine's key file, where the gateway asks for one."
)
@option("--server-key", metavar="FILE|KEY", help="The gateway's public key, where the key file has none.")
def listen(
    url: str | None,
    config: Path | None,
    catchup: str | None,
    topics: tuple[str, ...],
    duration: float | None,
    **key: Any,
) -> None:
    """Show what arrives from a gateway: rate, lag, gaps. URL is like tcp://daq-pc:5601."""
    from dtolbus import listen as listening  # noqa: PLC0415  # numpy is heavy, and not every command needs it
    from dtolbus.configfile import gateway_urls  # noqa: PLC0415  # it uses this module
    from dtolbus.subscriber import Subscriber  # noqa: PLC0415

    if url is None:
        if config is None:
            raise UsageError("say where the gateway is: tcp://127.0.0.1:5601, or --config dtolbus.toml")
        url = gateway_urls(config)[0]
    stop = stop_event()
    end = time.monotonic() + duration if duration else math.inf

    def is_over() -> bool:
        return stop.is_set() or time.monotonic() > end

    with Subscriber(url, topics=topics, catchup=catchup, events=True, **key) as subscriber:
        listening.listen(subscriber, lambda line: click.echo(printable(line)), is_over, first_s=5.0)
