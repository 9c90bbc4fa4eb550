"""`openapi.json`: the code has its fields and bounds, and so has OpenAI's published description."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import httpx
import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel

from chatkit_sessions import (
    ChatKitErrorResponse,
    ChatKitSessionResponse,
    InvalidRequestError,
    SessionOptions,
)
from chatkit_sessions._api.arguments import create_body
from chatkit_sessions.service._rules import (
    EXTENSIONS,
    MAX_REQUEST_BODY,
    OPERATIONS,
    ServiceRequest,
    find_call,
)
from chatkit_sessions.testing import FakeChatKit
from contract import facts_of, read_description
from contract_cases import MINIMAL
from services import headers_for

DESCRIPTION = read_description()
SCHEMAS = DESCRIPTION["components"]["schemas"]
ASKED = facts_of(DESCRIPTION, SCHEMAS["SessionRequest"])
RETURNED = facts_of(DESCRIPTION, SCHEMAS["Session"])
STATE = ASKED["workflow.state_variables"]

Case = tuple[str, object, bool]

# How a caller of the client says what the body says at a path.
OPTIONS: dict[str, Callable[[Any], SessionOptions]] = {
    "workflow.state_variables": lambda value: {"state_variables": value},
    "expires_after.seconds": lambda value: {"expires_after": value},
    "rate_limits.max_requests_per_1_minute": lambda value: {"max_requests_per_1_minute": value},
    "chatkit_configuration.file_upload.max_file_size": lambda value: {
        "file_upload": {"max_file_size": value}
    },
    "chatkit_configuration.file_upload.max_files": lambda value: {
        "file_upload": {"max_files": value}
    },
    "chatkit_configuration.history.recent_threads": lambda value: {
        "history": {"recent_threads": value}
    },
}


def cases() -> Iterator[Case]:
    """Values at each bound and just beyond it, and whether they are allowed."""
    for path, said in ASKED.items():
        if "minimum" in said:
            yield from [(path, said["minimum"] - 1, False), (path, said["minimum"], True)]
        if "maximum" in said:
            yield from [(path, said["maximum"], True), (path, said["maximum"] + 1, False)]
        if "minLength" in said:
            yield from [(path, "", False), (path, "a" * said["minLength"], True)]
    for values, allowed in (
        ({f"n{n}": n for n in range(STATE["maxProperties"])}, True),
        ({f"n{n}": n for n in range(STATE["maxProperties"] + 1)}, False),
        ({"n" * STATE["names"]: 1}, True),
        ({"n" * (STATE["names"] + 1): 1}, False),
        ({"text": "a" * ASKED["workflow.state_variables.*"]["maxLength"]}, True),
        ({"text": "a" * (ASKED["workflow.state_variables.*"]["maxLength"] + 1)}, False),
    ):
        yield "workflow.state_variables", values, allowed


def body_with(path: str, value: object) -> dict[str, Any]:
    """The shortest body that has the value at the path."""
    body: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    *parents, name = path.split(".")
    place = body
    for parent in parents:
        place = place.setdefault(parent, {})
    place[name] = value
    if parents == ["expires_after"]:
        place["anchor"] = "created_at"
    return body


def create(fake: FakeChatKit, body: Mapping[str, object]) -> httpx.Response:
    url = "https://local.test/v1/chatkit/sessions"
    with httpx.Client(transport=fake.transport()) as client:
        return client.post(url, headers=headers_for(fake.api_key), json=body)


def test_it_is_a_valid_openapi_description() -> None:
    validate(DESCRIPTION)


def test_its_routes_are_those_of_the_service() -> None:
    found = [
        find_call(ServiceRequest(method.upper(), f"/v1{path}"), OPERATIONS).operation
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
    ]

    assert sorted(found) == sorted(OPERATIONS)


def test_it_marks_the_routes_that_openai_lacks() -> None:
    marked = {
        operation["x-extension"]
        for methods in DESCRIPTION["paths"].values()
        for operation in methods.values()
        if "x-extension" in operation
    }

    assert marked == EXTENSIONS


def test_every_bound_of_the_request_is_tried_here() -> None:
    told = {"minimum", "maximum", "minLength", "maxLength", "maxProperties", "names"}
    bounded = {path.removesuffix(".*") for path, said in ASKED.items() if told & set(said)}

    assert bounded == {"user", *OPTIONS}


@pytest.mark.parametrize(
    ("path", "value", "allowed"), list(cases()), ids=lambda value: str(value)[:50]
)
def test_client_and_service_have_its_bounds(path: str, value: object, *, allowed: bool) -> None:
    fake = FakeChatKit()
    user = str(value) if path == "user" else "alice"
    options = OPTIONS[path](value) if path != "user" else SessionOptions()

    assert create(fake, body_with(path, value)).status_code == (200 if allowed else 400)

    if allowed:
        body = create_body(user, workflow_id="wf_test", options=options)
        assert create(fake, body).status_code == 200
    else:
        with pytest.raises(InvalidRequestError):
            create_body(user, workflow_id="wf_test", options=options)


def test_the_service_fills_in_its_defaults() -> None:
    enabled = body_with("chatkit_configuration.file_upload.enabled", value=True)

    session = create(FakeChatKit(), enabled).json()

    defaults = {path: said["default"] for path, said in ASKED.items() if "default" in said}
    found = {path: _at(path, session) for path in defaults}
    assert found == defaults | {"chatkit_configuration.file_upload.enabled": True}
    assert create(FakeChatKit(), MINIMAL).json()["chatkit_configuration"]["file_upload"] == {
        "enabled": defaults["chatkit_configuration.file_upload.enabled"],
        "max_file_size": None,
        "max_files": None,
    }


def _at(path: str, content: Any) -> object:  # noqa: ANN401 -- JSON
    for name in path.split("."):
        content = content[name]
    return cast("object", content)


def test_the_service_returns_its_fields_and_no_others() -> None:
    state = body_with("workflow.state_variables", {"a": 1})

    session = create(FakeChatKit(), state).json()

    assert set(_paths(session)) == {path.replace("*", "a") for path in RETURNED if path}


def _paths(content: Mapping[str, Any]) -> Iterator[str]:
    for name, value in content.items():
        yield name
        if isinstance(value, dict):
            for below in _paths(cast("dict[str, Any]", value)):
                yield f"{name}.{below}"


def test_the_limit_of_the_services_bodies_is_the_one_described() -> None:
    assert (
        f"{MAX_REQUEST_BODY:,} bytes"
        in DESCRIPTION["components"]["responses"]["TooLarge"]["description"]
    )


@pytest.mark.parametrize(
    ("model", "described"),
    [
        (ChatKitSessionResponse, RETURNED),
        (ChatKitErrorResponse, facts_of(DESCRIPTION, SCHEMAS["ErrorBody"])),
    ],
)
def test_the_models_have_its_fields(
    model: type[BaseModel], described: dict[str, dict[str, Any]]
) -> None:
    own = {"request_id", "answered_at"}  # from the response's header fields

    fields = dict(_fields(model))

    assert set(fields) - own == {path for path in described if path and not path.endswith("*")}
    for path, is_required in fields.items():
        parent, _, name = path.rpartition(".")
        assert not is_required or name in described[parent]["required"], path


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, bool]]:
    """Each field's path, and whether a response without it is an error."""
    hints = get_type_hints(model)
    for name, field in model.model_fields.items():
        yield name, field.is_required()
        for each in (hints[name], *get_args(hints[name])):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from ((f"{name}.{path}", required) for path, required in _fields(each))


def test_openai_publishes_the_same() -> None:
    path = os.environ.get("CHATKIT_OPENAPI")
    if not path:
        pytest.skip(reason="CHATKIT_OPENAPI names no copy of the contract")
    published: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))

    routes = {
        (route, method)
        for route, methods in published["paths"].items()
        for method in methods
        if route.startswith("/chatkit/sessions")
    }
    assert routes == {
        ("/chatkit/sessions", "post"),
        ("/chatkit/sessions/{session_id}/cancel", "post"),
    }
    body = published["paths"]["/chatkit/sessions"]["post"]["requestBody"]
    assert _comparable(published, _json_schema(body)) == _comparable(
        DESCRIPTION, SCHEMAS["SessionRequest"]
    )
    for route, method in routes:
        response = published["paths"][route][method]["responses"]["200"]
        assert _comparable(published, _json_schema(response)) == _comparable(
            DESCRIPTION, SCHEMAS["Session"]
        )
    errors = published["components"]["schemas"]["ErrorResponse"]
    assert _comparable(published, errors) == _comparable(DESCRIPTION, SCHEMAS["ErrorBody"])
    (scheme,) = published["components"]["securitySchemes"].values()
    (own_scheme,) = DESCRIPTION["components"]["securitySchemes"].values()
    assert scheme.items() <= own_scheme.items()


def _json_schema(body_or_response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = body_or_response["content"]["application/json"]["schema"]
    return schema


def _comparable(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The facts without what OpenAI says in words only: defaults, and how long names may be."""
    return {
        path: {name: fact for name, fact in facts.items() if name not in {"default", "names"}}
        for path, facts in facts_of(document, schema).items()
    }
