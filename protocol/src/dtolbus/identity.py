"""Which journal a gateway serves, and whether that is the one which a client expects. Pure."""

from typing import NamedTuple


class Identity(NamedTuple):
    """A journal, and the stack that serves it; what is empty is unknown, or any."""

    journal: str = ""
    """The journal's id, made with it; a copy of the data folder has the same."""
    stack: str = ""
    """Of one start of `dtolbus up`: no copy has it."""

    def meets(self, expected: "Identity") -> bool:
        """Return whether this is what was expected; of a stack the journal is its own matter."""
        if expected.stack:
            return self.stack == expected.stack
        return expected.journal in ("", self.journal)


ANY = Identity()


def foreign(url: str, what: str) -> str:
    """Return what to say where the gateway at `url` serves another journal than is expected."""
    return (
        f"{url} serves another journal ({what}): is another `dtolbus up` using these ports? Stop one of the two, or "
        f"choose other ports with --pub-port and --catchup-port"
    )


class Admission:
    """Whether what comes live is of the journal that is expected.

    It is once a Welcome said so which answers a Hello sent since the live connection was made: at the other end of any
    new connection may be another gateway. Where nothing is expected, everything is admitted.
    """

    def __init__(self, expected: Identity) -> None:
        self.expects = any(expected)
        self.is_open = not self.expects
        self._expected = expected
        self._number = 0

    def connected(self) -> None:
        """Admit nothing until the next Hello is answered: the live connection is a new one."""
        self.is_open = not self.expects
        self._number += 1

    def numbered(self) -> int:
        """Return the number of the Hello that is sent now."""
        self._number += 1
        return self._number

    def is_met(self, serves: Identity, number: int, *, more: bool) -> bool:
        """Take what a part of a Welcome says; return whether it comes from the gateway that is expected."""
        is_met = serves.meets(self._expected)
        self.is_open = self.is_open or (is_met and not more and number == self._number)
        return is_met
