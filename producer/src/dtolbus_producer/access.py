"""What the holder of a key may ask of a gateway. Pure."""

from typing import NamedTuple

from dtolbus.keys import Role
from dtolbus.wire import Ack, Hello, Message


class Caller(NamedTuple):
    """Whose key a connection was made with."""

    name: str
    role: Role | None
    """None: the key is not allowed any more, and everybody is about to be cut off."""


def fault(caller: Caller | None, message: Message) -> str:
    """Return why the caller may not say this; empty where it may. None is the caller where no keys are asked for.

    A sink has its key's name: who takes another one could have the journal forget what that sink lacks.
    """
    if caller is None:
        return ""
    if caller.role is None:
        return f"the key {caller.name!r} was taken back"
    worker = message.worker if isinstance(message, Hello | Ack) else ""
    if not worker:
        return "" if not isinstance(message, Ack) else f"the key {caller.name!r} acknowledges for no sink"
    if caller.role != "sink":
        return (
            f"the key {caller.name!r} may only read, and not be the sink {worker!r}: `dtolbus keys allow {caller.name} "
            f"--role sink` on the gateway's machine lets it be the sink {caller.name!r}"
        )
    if worker != caller.name:
        return (
            f"the key {caller.name!r} is not that of the sink {worker!r}: leave --name out (the sink has its key's "
            f"name), or give the key {worker!r}"
        )
    return ""
