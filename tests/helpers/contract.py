"""The package's own description of the API as a judge of requests and responses."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from openapi_core import OpenAPI
from openapi_core.testing import MockRequest, MockResponse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HOST = "https://api.openai.com"


def read_description() -> dict[str, Any]:
    """`chatkit_sessions/service/openapi.json`, as a copy of one's own."""
    text = files("chatkit_sessions.service").joinpath("openapi.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@cache
def _contract() -> OpenAPI:
    return OpenAPI.from_dict(read_description() | {"servers": [{"url": f"{HOST}/v1"}]})


def assert_request_holds(method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
    """Check a request: path, query, key, beta header and body; its host does not matter.

    Raises:
        openapi_core.exceptions.OpenAPIError: The request is not as described.
    """
    _contract().validate_request(_request(method, url, headers, body))


def assert_response_holds(
    method: str, url: str, status_code: int, headers: Mapping[str, str], body: bytes
) -> None:
    """Check the response to `method` and `url`.

    Raises:
        openapi_core.exceptions.OpenAPIError: The response is not as described.
    """
    response = MockResponse(body, status_code, dict(headers), headers["content-type"])
    _contract().validate_response(_request(method, url, {}, b""), response)


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> MockRequest:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return MockRequest(HOST, method, parts.path, args=query, headers=dict(headers), data=body)


def fuzz(
    url: str, *, api_key: str, workflow_id: str, session_id: str, path: Path, examples: int
) -> None:
    """Let schemathesis ask a server what is allowed, and what is not; every response must hold.

    Args:
        url: The server's root.
        api_key: A key that opens it.
        workflow_id: The workflow that there is.
        session_id: A session that there is.
        path: An empty directory.
        examples: How many, at most, of each kind.
    """
    document = read_description()
    request = document["components"]["schemas"]["SessionRequest"]
    request["properties"]["workflow"]["properties"]["id"] = {"enum": [workflow_id]}
    document["components"]["parameters"]["SessionId"]["schema"] = {"enum": [session_id]}
    path.joinpath("openapi.json").write_text(json.dumps(document))
    path.joinpath("schemathesis.toml").write_text(_SETTINGS.format(api_key=api_key))
    found = subprocess.run(  # noqa: S603 -- our own
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json"),
            *("--url", url, "--max-examples", str(examples)),
            *("--no-color", "--generation-deterministic"),
        ],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout
    routes = [method for methods in document["paths"].values() for method in methods]
    assert f"Tested: {len(routes)}" in found.stdout


_SETTINGS = """
[auth.openapi.apiKey]
bearer = "{api_key}"

# Which secrets can be refreshed no schema can say.
[[operations]]
include-operation-id = "refreshSession"
checks.positive_data_acceptance.enabled = false
"""


def facts_of(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a schema says about each field, by dotted path; `*` stands for a field of any name."""
    return dict(_facts(document, schema, ""))


def _facts(
    document: dict[str, Any], schema: dict[str, Any], path: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    # There are two ways to allow several types.
    branches: list[dict[str, Any]] = schema.get("oneOf") or schema.get("anyOf") or [schema]
    types = {name for each in branches for name in _as_list(each["type"])}
    facts: dict[str, Any] = {
        "types": types - {"integer"} if "number" in types else types,
        "required": {name for each in branches for name in each.get("required", ())},
    }
    for branch in branches:
        facts |= {name: branch[name] for name in _BOUNDS if name in branch}
        if "propertyNames" in branch:
            facts["names"] = branch["propertyNames"]["maxLength"]
        for name, field in branch.get("properties", {}).items():
            yield from _facts(document, field, f"{path}.{name}".lstrip("."))
        if isinstance(branch.get("additionalProperties"), dict):
            yield from _facts(document, branch["additionalProperties"], f"{path}.*")
    yield path, facts


_BOUNDS = ("enum", "minimum", "maximum", "minLength", "maxLength", "maxProperties", "default")


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
