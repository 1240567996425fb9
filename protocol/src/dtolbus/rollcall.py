"""Which runs a gateway does not hold any more. Pure."""

from collections.abc import Iterable


class RollCall:
    """Compares what a client follows when it says Hello with what the Welcome names.

    A run is gone when two Welcomes in a row do not name it: the first may answer an earlier Hello.
    """

    def __init__(self) -> None:
        self._followed: frozenset[str] = frozenset()
        self._named: set[str] = set()
        self._missed: frozenset[str] = frozenset()

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last Welcome did not name a run for the first time: ask again."""
        return bool(self._missed)

    def asked(self, followed: Iterable[str]) -> None:
        """Begin anew, with a Hello."""
        self._followed = frozenset(followed)
        self._named = set()

    def named(self, run_ids: Iterable[str]) -> None:
        """Take a part of the Welcome."""
        self._named.update(run_ids)

    def gone(self) -> frozenset[str]:
        """Return the runs that are gone, once all parts of the Welcome are there."""
        absent = self._followed - self._named
        gone, self._missed = absent & self._missed, absent - self._missed
        return gone
