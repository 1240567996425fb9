"""What processes tell of themselves, read as Prometheus reads it."""

import http.client
import json
from collections import Counter
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 30.0


def get(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask; give the status and what is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def health(port: int) -> tuple[int, dict[str, Any]]:
    """The status, and what is told; 0 where nobody answers."""
    try:
        status, body = get(port, "/health")
    except OSError:
        return 0, {"problems": ["nobody answers"]}
    return status, json.loads(body)


class Scraped:
    """Everything at one instant."""

    def __init__(self, port: int) -> None:
        status, body = get(port, "/metrics")
        assert status == 200
        self.samples = [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]

    @property
    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def one(self, name: str, **labels: str) -> float:
        """The value of the only one that has these labels."""
        (found,) = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return found

    def by(self, label: str, name: str) -> Counter[str]:
        """The values that are not 0, by a label."""
        found: Counter[str] = Counter()
        for sample in self.samples:
            if sample.name == name and sample.value:
                found[sample.labels[label]] += round(sample.value)
        return found
