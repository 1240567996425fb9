"""What Prometheus and Grafana ask for is what the processes tell."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.producer.bus import RunningGateway, eventually

from dtolbus.client import Client, Endpoints
from dtolbus.metrics import Told
from dtolbus.metricsserver import MetricsServer
from dtolbus_producer.acquisitionfacts import AcquisitionFacts
from dtolbus_producer.childrenfacts import ChildrenFacts
from dtolbus_producer.journalconfig import JournalConfig
from dtolbus_workers.tally import Tally

FOLDER = Path(__file__).parents[2] / "deploy" / "observe"
OF_PROMETHEUS = {"up", "ALERTS"}
PARTS = {"_bucket", "_sum", "_count"}
_NAME = re.compile(r"(?<![\w\"])(?:dtolbus|process)_\w+|\b(?:up|ALERTS)\b")
_STRING = re.compile(r'"[^"]*"')


def expressions() -> Iterator[tuple[str, str]]:
    """Where each expression stands, and it itself."""
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "dtolbus.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for found in re.finditer(r"alert: (\w+)\n +expr: (.*)", (FOLDER / "rules.yml").read_text()):
        yield found[1], found[2]


def names(expression: str) -> set[str]:
    return set(_NAME.findall(_STRING.sub('""', expression)))


def told_by(told: Told) -> set[str]:
    """The names of everything that a process tells, whether it has a value by now or not."""
    server = MetricsServer("127.0.0.1", 0, "part")
    server.tell(told)
    try:
        lines = server.metrics().decode().splitlines()
    finally:
        server.close()
    types = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    histograms = {name + part for name, kind in types.items() if kind == "histogram" for part in PARTS}
    return types.keys() | histograms


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    data = tmp_path_factory.mktemp("data")
    gateways: list[Told] = []
    with ExitStack() as held:
        held.enter_context(RunningGateway(data, tell=gateways.append))
        client = Client(Endpoints("tcp://127.0.0.1:9", "tcp://127.0.0.1:9"))
        held.callback(client.close)
        tally = Tally("sink", {})
        tally.follow(client)
        eventually(lambda: len(gateways) == 1)
        producer = AcquisitionFacts("device", ["task"], data, JournalConfig(), lambda: None)
        return set().union(*map(told_by, (*gateways, tally, producer, ChildrenFacts([]))))


def test_names_are_found_in_expressions() -> None:
    assert names('sum by (le) (rate(dtolbus_a_total{job="dtolbus_b"}[5m])) / up') == {"dtolbus_a_total", "up"}


def test_everything_that_is_asked_for_is_told(exported: set[str]) -> None:
    asked = dict(expressions())
    assert len(asked) > 20
    for place, expression in asked.items():
        assert names(expression), place
        unknown = names(expression) - exported - OF_PROMETHEUS
        assert not unknown, f"{place}: {unknown}"


def test_names_are_as_prometheus_has_them(exported: set[str]) -> None:
    own = {name for name in exported if name.startswith("dtolbus_")}
    assert all(re.fullmatch(r"dtolbus_[a-z]+(_[a-z]+)*", name) for name in own)
    assert not [name for name in own if name.endswith(("_ms", "_hours", "_mb", "_percent"))]


def test_grafana_finds_its_source_of_data() -> None:
    source = (FOLDER / "grafana" / "provisioning" / "datasources" / "dtolbus.yml").read_text()
    uid = re.search(r"uid: (\w+)", source)
    assert uid is not None
    panels = json.loads((FOLDER / "grafana" / "dashboards" / "dtolbus.json").read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels if "targets" in panel} == {uid[1]}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_alerts_are_seen_without_prometheus() -> None:
    assert ("Alerts", "ALERTS") in expressions()


def test_no_panel_covers_another() -> None:
    panels = json.loads((FOLDER / "grafana" / "dashboards" / "dtolbus.json").read_text())["panels"]
    places = [panel["gridPos"] for panel in panels]
    covered = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(set(covered)) == len(covered)
