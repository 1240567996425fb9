"""Whose turn it is next, of many: without looking at all of them. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Turns:
    """Keys that take turns in their order, again and again. Adding, removing and the next one cost no walk over all."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def add(self, key: str) -> None:
        """Let the key, which must be new, take part."""
        if not self._keys or key > self._keys[-1]:
            self._keys.append(key)
        else:
            self._keys.insert(bisect_left(self._keys, key), key)

    def remove(self, key: str) -> None:
        """Let the key, which must be there, take part no longer."""
        del self._keys[bisect_left(self._keys, key)]

    def behind(self, last: str) -> Iterator[str]:
        """Yield every key once, beginning with the first behind `last`. None may be added or removed meanwhile."""
        keys, begin = self._keys, bisect_right(self._keys, last)
        for place in range(begin, len(keys)):
            yield keys[place]
        for place in range(begin):
            yield keys[place]
