"""A token bucket: how many bytes may be sent, or requests answered, now. Pure: the time comes in."""


class TokenBucket:
    """Lets `bytes_s` bytes a second through, and a burst of `burst_s` seconds' worth after a pause.

    A message may overdraw it: what is too much is waited for before the next.
    """

    def __init__(self, bytes_s: float, burst_s: float = 0.05) -> None:
        self._bytes_s = bytes_s
        self._burst = bytes_s * burst_s
        self._tokens = self._burst
        self._filled_at = 0.0

    def wait_s(self, now: float) -> float:
        """Return how long nothing may be sent, s; `now` is monotonic, s."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._bytes_s)
        self._filled_at = now
        return max(0.0, -self._tokens / self._bytes_s)

    def take(self, size: int) -> None:
        """Count `size` bytes as sent."""
        self._tokens -= size
