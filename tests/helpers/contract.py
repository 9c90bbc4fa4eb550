"""OpenAI's API description as a judge, where `CHATKIT_OPENAPI` names a copy of it."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from openapi_core import Config, OpenAPI
from openapi_core.testing import MockRequest, MockResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE = "CHATKIT_OPENAPI"
_PUBLISHED_HOST = "https://api.openai.com"
_ERROR_RESPONSE = {
    "description": "Error",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
}


def load_contract() -> OpenAPI:
    """Load the published contract; without a copy of it, skip the test that asks."""
    path = os.environ.get(_VARIABLE)
    if not path:
        pytest.skip(reason=f"{_VARIABLE} names no copy of the contract")
    return _loaded(path)


def assert_request_holds(method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
    """Check a request against the contract; its path counts, its host does not.

    Raises:
        openapi_core.exceptions.OpenAPIError: It breaks the contract, which includes a field that
            the contract does not have.
    """
    load_contract().validate_request(_request(method, url, headers, body))


def assert_response_holds(
    method: str, url: str, status_code: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Check the answer to `method` and `url` against the contract.

    Raises:
        openapi_core.exceptions.OpenAPIError: It breaks the contract.
    """
    answer = MockResponse(body, status_code, dict(headers), headers["content-type"])
    load_contract().validate_response(_request(method, url, {}, b""), answer)


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> MockRequest:
    return MockRequest(
        _PUBLISHED_HOST, method, urlsplit(url).path, headers=dict(headers), data=body
    )


@cache
def _loaded(path: str) -> OpenAPI:
    # The API refuses fields it does not know, which the contract leaves unsaid.
    return OpenAPI.from_dict(_document(path), Config(additional_properties_default_policy="forbid"))


def contract_for_fuzzing(*, workflow_id: str, session_id: str) -> dict[str, Any]:
    """The contract with what it leaves unsaid, so that it tells which requests are accepted.

    Args:
        workflow_id: The workflow that there is.
        session_id: The session that there is.
    """
    load_contract()
    document = _document(os.environ[_VARIABLE])
    for name, schema in document["components"]["schemas"].items():
        if name.endswith(("Param", "Body")):
            schema["additionalProperties"] = False
    workflow = document["components"]["schemas"]["WorkflowParam"]
    workflow["properties"]["id"]["enum"] = [workflow_id]
    # Told in words only.
    workflow["properties"]["state_variables"]["propertyNames"] = {"maxLength": 64}
    for operations in document["paths"].values():
        for operation in operations.values():
            del operation["security"]  # every request has the key
            operation.get("requestBody", {})["required"] = True
            for parameter in operation["parameters"]:
                parameter["schema"] = {"type": "string", "enum": [session_id]}
    return document


def _document(path: str) -> dict[str, Any]:
    text = Path(path).read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text, object_hook=_with_numbers_as_meant)
    for route, operations in document["paths"].items():
        if route.startswith("/chatkit/sessions"):
            for operation in operations.values():
                # The contract defines the error envelope without saying where it is answered.
                operation["responses"]["default"] = _ERROR_RESPONSE
    return document


def _with_numbers_as_meant(node: dict[str, Any]) -> dict[str, Any]:
    """Read `oneOf` of integer and number as `anyOf`: strictly, it refuses every integer."""
    kinds = {branch.get("type") for branch in node.get("oneOf", ())}
    if {"integer", "number"} <= kinds:
        node["anyOf"] = node.pop("oneOf")
    return node
