"""One trace from an app's request to its result: API, submit, chunks and the whole job, over real processes."""

import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.checker import check, column
from tests.corpora import submit
from tests.deployment import Deploy

pytestmark = [pytest.mark.servers, pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)]

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes spans over OTLP/HTTP, as (service, name, trace, parent, id, attributes)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str, str, str, dict[str, str]]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest()
                sent.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in sent.resource_spans:
                    about = {each.key: each.value.string_value for each in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            attributes = {
                                each.key: each.value.string_value or str(each.value.int_value)
                                for each in span.attributes
                            }
                            ids = span.trace_id.hex(), span.parent_span_id.hex(), span.span_id.hex()
                            collector.spans.append((about["service.name"], span.name, *ids, attributes))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_request_its_chunks_and_its_job_are_one_trace(deploy: Deploy, collector: Collector, tmp_path: Path) -> None:
    mill, log = deploy(), tmp_path / "api.log"
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    mill.start(**traced)
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", "from jobs.cli import main; main()", "api", "--port", "0"],
            env={**os.environ, **mill._environment(), **traced},
            stderr=file,
        )
    try:
        mill.until(lambda: "the API is at" in log.read_text(), what="the API")
        url = next(line.split()[5].rstrip(";") for line in log.read_text().splitlines() if "the API is at" in line)
        body = {"task": "classify", "model": "fake", "params": {"labels": ["a", "b"]}, "items": ["x"] * 300}
        headers = {"Content-Type": "application/json", "traceparent": f"00-{TRACE}-{CALLER}-01"}
        request = urllib.request.Request(f"{url}/jobs", orjson.dumps(body), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            job_id = orjson.loads(answer.read())["id"]
        mill.final(job_id)
        check(mill.store, job_id)
        wanted = {"POST /api/v1/jobs", "textmill.submit", "textmill.chunk", "textmill.job"}
        mill.until(lambda: wanted <= {span[1] for span in collector.spans}, what="the spans")
    finally:
        server.terminate()
        server.wait(20)
    mine = [span for span in collector.spans if span[2] == TRACE]
    by_name = {span[1]: span for span in mine}
    assert {span[1] for span in mine} == wanted
    assert by_name["POST /api/v1/jobs"][0] == "textmill-api"
    assert by_name["POST /api/v1/jobs"][3] == CALLER
    assert by_name["textmill.submit"][3] == by_name["POST /api/v1/jobs"][4]
    for name in ("textmill.chunk", "textmill.job"):
        assert by_name[name][3] == by_name["textmill.submit"][4]
    assert {span[5]["textmill.job"] for span in mine if span[1] != "POST /api/v1/jobs"} == {job_id}
    chunks = [span for span in mine if span[1] == "textmill.chunk"]
    assert {span[0] for span in chunks} == {"textmill-worker"}
    assert sum(int(span[5]["textmill.items"]) for span in chunks) == 300


def test_without_a_collector_nothing_is_kept(deploy: Deploy) -> None:
    mill = deploy()
    submit(mill.store, 3)
    assert column(mill.store, "SELECT traceparent FROM jobs") == [None]
