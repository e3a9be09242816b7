"""The dashboard and the alerts: their queries are PromQL, and ask for metrics and labels that there are."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from jobs import telemetry
from jobs.api.metrics import Metrics
from jobs.settings import Settings
from jobs.store import Store
from tests.rows import queued_job
from worker.machine import Machine

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus adds by itself; `job` and `instance` are everybody's."""


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
    return found


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _queries() -> Iterator[str]:
    for panel in _dashboard()["panels"]:
        yield from (target["expr"].replace("$__rate_interval", "1m") for target in panel.get("targets", ()))
    yield from (rule["expr"] for rule in _rules())


def _known(families: list[Metric]) -> dict[str, set[str]]:
    """Names of series, as they are stored, and their labels."""
    known: dict[str, set[str]] = {}
    for family in families:
        names = {sample.name for sample in family.samples} or {family.name}
        if family.type == "counter":
            names = {f"{family.name}_total"}
        if family.type == "histogram":
            names = {f"{family.name}{end}" for end in ("_bucket", "_count", "_sum")}
        for name in names:
            known.setdefault(name, set()).update(*(sample.labels for sample in family.samples))
    return known


@pytest.fixture
def exposed(store: Store, settings: Callable[..., Settings]) -> dict[str, set[str]]:
    """What workers, upkeep and the API show, each label used once."""
    queued_job(store)
    store.workers.beat("w", host="h", pid=1, boot_id="b", device="cpu", models=(), state="idle", queues=("default",))
    telemetry.ITEMS.labels("t", "m", "ok")
    telemetry.TOKENS.labels("m", "in")
    telemetry.JOB_SECONDS.labels("t")
    telemetry.MODEL_LOADS.labels("m", "loaded")
    telemetry.REAPED.labels("pending")
    api = Metrics(store)
    api.requests.labels("GET", "/", "200")
    api.seconds.labels("/")
    machine = Machine(settings())
    try:
        telemetry.REGISTRY.register(machine._gauges)
        found = [*telemetry.REGISTRY.collect(), *api.registry.collect()]
    finally:
        machine.close()
    return _known(found) | PROMETHEUS | {"textmill_model_memory_bytes": {"model"}}


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_every_query_asks_for_what_is_there(exposed: dict[str, set[str]]) -> None:
    asked = set()
    for query in _queries():
        promql_parser.parse(query)
        for name, labels in re.findall(r"\b((?:textmill|process)_\w+|up)\b(?:\{([^}]*)\})?", query):
            asked.add(name)
            assert name in exposed, query
            wanted = set(re.findall(r"(\w+)\s*[=!]", labels))
            assert wanted <= exposed[name] | {"job", "instance"}, query
    assert len(asked) > 25


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
def test_legends_and_texts_name_labels_that_there_are(exposed: dict[str, set[str]]) -> None:
    known = set().union(*exposed.values()) | {"job", "instance"}
    for panel in _dashboard()["panels"]:
        for target in panel.get("targets", ()):
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known
    for rule in _rules():
        said = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", said)) <= known
        assert {"summary", "action"} == set(rule["annotations"])
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in _dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_the_scrape_configuration_names_the_jobs_that_the_alerts_ask_for() -> None:
    configured = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    names = {each["job_name"] for each in configured["scrape_configs"]}
    asked = {name for query in _queries() for name in re.findall(r'job="([^"]*)"', query)}
    assert asked <= names
    assert all((FOLDER / file).is_file() for file in configured["rule_files"])
