"""Traces: one from a submit to its result, across processes, where OpenTelemetry is at work.

A job keeps the `traceparent` (W3C Trace Context) of its submit. Services send spans where OpenTelemetry's own variables
say (`OTEL_EXPORTER_OTLP_ENDPOINT` and the like) if `textmill[otel]` is installed. A program that only submits is traced
if it uses OpenTelemetry itself; nothing is imported for one that does not.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
log = logging.getLogger("textmill")


def start(service: str) -> None:
    """Send this process's spans to the collector that the environment names; without one, do nothing."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces are sent: pip install 'textmill[otel]' (%s)", error)
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours.
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"textmill-{service}"}
    provider = TracerProvider(resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str) -> Iterator[Any]:
    """A span around the block, below what is current; None where nothing is traced."""
    if not _at_work():
        yield None
        return
    with _tracer().start_as_current_span(name) as made:
        yield made


@contextmanager
def below(traceparent: str | None) -> Iterator[None]:
    """What is done in the block belongs to this trace; to none where it is None."""
    if traceparent is None or not _at_work():
        yield
        return
    from opentelemetry import context
    from opentelemetry.propagate import extract

    token = context.attach(extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def current() -> str | None:
    """The `traceparent` of the current span, if there is one that is traced."""
    if not _at_work():
        return None
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return carrier.get("traceparent")


def record(
    name: str, traceparent: str | None, began_at: datetime, ended_at: datetime, about: Mapping[str, Any]
) -> None:
    """A span of what is over already, below the submit that it belongs to."""
    if traceparent is None or not _at_work():
        return
    from opentelemetry.propagate import extract

    context = extract({"traceparent": traceparent})
    attributes = {f"textmill.{key}": value for key, value in about.items()}
    made = _tracer().start_span(name, context, start_time=_nanoseconds(began_at), attributes=attributes)
    made.end(_nanoseconds(ended_at))


def trace_id(traceparent: str | None) -> dict[str, str]:
    """For a message of the log: the trace it belongs to, if it belongs to one."""
    return {} if traceparent is None else {"trace_id": traceparent[3:35]}


def _at_work() -> bool:
    return "opentelemetry.trace" in sys.modules


def _tracer() -> Any:
    from opentelemetry import trace

    return trace.get_tracer("textmill")


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
