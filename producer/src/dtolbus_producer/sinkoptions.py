"""`[sink.options]`: whether a sink's worker takes them, told by the worker's own command line."""

import difflib
from importlib.metadata import entry_points
from typing import Any

import click

from dtolbus_producer.tasks import WrongKeyError

_COMMANDS = "dtolbus.sinks"
_ELSEWHERE = {"out": "path", "dsn": "dsn", "dsn_file": "dsn", "name": "name", "blocks": "blocks", "topics": "topics"}
"""Arguments of a worker that are keys of `[[sink]]` themselves."""
_OF_UP = {"until_end", "drain_s", "journal", "stack", "debug", "help", "metrics_port", "metrics_host"}


def check_sink_options(key: str, kind: str, options: dict[str, Any]) -> None:
    """Raise WrongKeyError where the worker of that kind has no such option, or does not take its value.

    Where the workers are not installed nothing can be told; starting them says so.
    """
    known = options_of_sink(kind) if options else {}
    if not known:
        return
    for name, value in options.items():
        asked = name.replace("-", "_")
        if asked not in known:
            raise WrongKeyError(f"{key}.{name}", _unknown(asked, list(known)))
        _check_value(f"{key}.{name}", known[asked], click.Context(click.Command(kind)), value)


def options_of_sink(kind: str) -> dict[str, click.Option]:
    """Return what `[sink.options]` may hold for that kind, by name; nothing where the workers are not installed."""
    return {
        parameter.opts[0].lstrip("-").replace("-", "_"): parameter
        for command in entry_points(group=_COMMANDS, name=kind)
        for parameter in command.load().params
        if isinstance(parameter, click.Option) and parameter.name not in {*_ELSEWHERE, *_OF_UP}
    }


def _unknown(asked: str, known: list[str]) -> str:
    if asked in _ELSEWHERE:
        return f"there is no such option; set {_ELSEWHERE[asked]} in the [[sink]] itself"
    nearest = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed are {', '.join(known)}"
    return f"there is no such option; {hint}"


def _check_value(key: str, option: click.Option, context: click.Context, value: Any) -> None:
    if option.is_flag:
        if not isinstance(value, bool):
            raise WrongKeyError(key, f"{value!r}: give true or false")
        return
    try:
        option.process_value(context, str(value))
    except click.BadParameter as error:
        why = "give a number" if isinstance(option.type, click.FloatRange) and not _is_number(value) else error.message
        raise WrongKeyError(key, f"{value!r}: {why.removeprefix(f'{value!r} ').rstrip('.')}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
