"""The API does what its OpenAPI document says, whatever is sent to it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from jobs.store import Store
from tests.api.conftest import Serve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def document(serve: Serve, store: Store) -> Any:
    """The document of a server whose caller may do everything."""
    _, secret = store.keys.create("default", "test", ["admin"])
    headers = {"Authorization": f"Bearer {secret}"}
    schema = schemathesis.openapi.from_url(f"{serve().url}/api/v1/openapi.json", headers=headers)
    schema.headers = headers
    return schema


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
@pytest.mark.filterwarnings("ignore")
def test_every_route_keeps_to_the_document(document: Any) -> None:
    operations = [result.ok() for result in document.get_all_operations()]
    asked = [each for each in operations if not each.path.endswith("/events")]
    assert len(asked) > 15
    for operation in asked:
        _asked(operation, document.headers)()


def _asked(operation: Any, headers: dict[str, str]) -> Callable[[], None]:
    from hypothesis import given

    @QUICK
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS)

    return ask
