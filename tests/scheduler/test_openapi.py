"""Every operation of the served OpenAPI document, by schemathesis: valid and invalid requests made from the schemas.

STETHOS_EXAMPLES sets how many requests each operation gets.
"""

import os
from importlib import import_module
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from scheduler.api import ENDPOINTS, VERSION, openapi

from .processes import Scheduler

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
conformance = import_module("schemathesis.specs.openapi.checks")

EXAMPLES = os.environ.get("STETHOS_EXAMPLES")
#: That bad requests are refused is not among them: the token that is added makes some of them good.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
#: The stream of events has no end.
OPERATIONS = [(each.method, each.path.replace(":number", "").replace(":path", "")) for each in ENDPOINTS]
OPERATIONS.remove(("GET", "/v1/events"))

document = schemathesis.openapi.from_dict(openapi.document(ENDPOINTS, VERSION))


def send(scheduler: Scheduler, method: str, path: str, mode: Any, examples: int) -> None:
    scheduler.node("n", gpus=2)
    operation = document[path][method]

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if "node" in (case.path_parameters or {}) and len(case.path_parameters["node"]) % 2:
            case.path_parameters["node"] = "n"
        case.call_and_validate(
            base_url=scheduler.url, headers=dict(scheduler.http.headers), checks=CHECKS, allow_redirects=False
        )

    ask()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_valid_requests_are_answered_as_the_document_says(scheduler: Scheduler, method: str, path: str) -> None:
    send(scheduler, method, path, schemathesis.GenerationMode.POSITIVE, int(EXAMPLES or 3))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_many_valid_requests_are_answered_as_the_document_says(scheduler: Scheduler, method: str, path: str) -> None:
    send(scheduler, method, path, schemathesis.GenerationMode.POSITIVE, int(EXAMPLES or 40))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), [each for each in OPERATIONS if each[1].startswith("/v1")])
def test_invalid_requests_are_answered_as_the_document_says(scheduler: Scheduler, method: str, path: str) -> None:
    send(scheduler, method, path, schemathesis.GenerationMode.NEGATIVE, int(EXAMPLES or 40))
