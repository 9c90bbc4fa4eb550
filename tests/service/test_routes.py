"""The four routes: projects and keys, cancelling, refreshing, reading, bounds."""

import json
from typing import cast

import pytest

from chatkit_sessions.service._rules import Headers, ServiceRequest
from services import API_KEY, OTHER_KEY, SESSIONS, BlockingService, Services, headers_for
from support import JSON


def message_of(body: JSON) -> str:
    return str(cast("JSON", body["error"])["message"])


def test_a_session_is_read_without_its_secret(services: Services, service: BlockingService) -> None:
    created = service.create()

    status, read = service.ask(f"{SESSIONS}/{created['id']}", method="GET")

    assert (status, read) == (200, created | {"client_secret": ""})
    services.advance(600)
    assert service.ask(f"{SESSIONS}/{created['id']}", method="GET")[1]["status"] == "expired"


def test_cancelling_twice_or_too_late_changes_nothing(
    services: Services, service: BlockingService
) -> None:
    first, second = service.create(), service.create()
    cancel = f"{SESSIONS}/{first['id']}/cancel"

    assert [service.ask(cancel)[1]["status"] for _ in range(2)] == ["cancelled", "cancelled"]
    services.advance(600)
    assert service.ask(f"{SESSIONS}/{second['id']}/cancel")[1]["status"] == "expired"


def test_a_refresh_opens_an_equal_session_and_ends_the_old_one(service: BlockingService) -> None:
    old = service.create(expires_after={"anchor": "created_at", "seconds": 60})

    status, new = service.ask(f"{SESSIONS}/refresh", {"client_secret": old["client_secret"]})

    assert status == 200
    changed = {name for name, value in new.items() if value != old[name]}
    assert changed == {"id", "client_secret"}
    assert service.ask(f"{SESSIONS}/{old['id']}", method="GET")[1]["status"] == "cancelled"


def test_a_secret_is_refreshed_once(service: BlockingService) -> None:
    body = {"client_secret": service.create_secret()}

    assert [service.ask(f"{SESSIONS}/refresh", body)[0] for _ in range(2)] == [200, 400]


@pytest.mark.parametrize("secret", ["ek_1", "ek_" + "0" * 64])
def test_an_unknown_secret_is_not_refreshed(service: BlockingService, secret: str) -> None:
    status, body = service.ask(f"{SESSIONS}/refresh", {"client_secret": secret})

    assert (status, message_of(body)) == (
        400,
        "Invalid 'client_secret': the session it belongs to is unknown or has ended.",
    )


def test_another_project_finds_nothing(service: BlockingService) -> None:
    session = service.create()
    path = f"{SESSIONS}/{session['id']}"

    answers = [
        service.ask(path, method="GET", key=OTHER_KEY)[0],
        service.ask(f"{path}/cancel", key=OTHER_KEY)[0],
        service.ask(
            f"{SESSIONS}/refresh", {"client_secret": session["client_secret"]}, key=OTHER_KEY
        )[0],
    ]

    assert answers == [404, 404, 400]
    assert service.verify(str(session["client_secret"])).project == "shop"


def test_an_id_that_only_begins_like_a_sessions_is_not_found(service: BlockingService) -> None:
    session_id = str(service.create()["id"])

    assert service.ask(f"{SESSIONS}/{session_id[:-1]}0x", method="GET")[0] == 404
    assert service.ask(f"{SESSIONS}/{session_id[:31]}", method="GET")[0] == 404
    assert service.ask(f"{SESSIONS}/sess_1", method="GET")[0] == 400


def test_keys_are_rotated_without_losing_sessions(services: Services) -> None:
    old = services(api_keys={"key-1-of-the-shop": "shop"})
    session = old.create(key="key-1-of-the-shop")

    both = services(api_keys={"key-1-of-the-shop": "shop", "key-2-of-the-shop": "shop"})
    assert both.ask(f"{SESSIONS}/{session['id']}", method="GET", key="key-2-of-the-shop")[0] == 200
    new = services(api_keys={"key-2-of-the-shop": "shop"})
    assert new.ask(f"{SESSIONS}/{session['id']}", method="GET", key="key-1-of-the-shop")[0] == 401
    assert new.ask(f"{SESSIONS}/{session['id']}/cancel", key="key-2-of-the-shop")[0] == 200


@pytest.mark.parametrize("key", ["key-é", "key", "", "sk-" + "x" * 100_000])
def test_other_keys_are_rejected(service: BlockingService, key: str) -> None:
    assert service.ask(key=key)[0] == 401


def test_without_keys_every_request_is_rejected(services: Services) -> None:
    assert services(api_keys=()).ask(key="sk-in-process")[0] == 401


def test_any_workflow_exists_where_none_are_named(services: Services) -> None:
    content = {"user": "ada", "workflow": {"id": "anything"}}

    assert services(workflows=None).ask(content=content)[0] == 200
    assert services().ask(content=content)[0] == 404


def test_a_body_of_more_than_64_kib_is_rejected(
    services: Services, service: BlockingService
) -> None:
    headers = Headers(headers_for(API_KEY).items())
    content = json.dumps({"user": "ada", "workflow": {"id": "support"}}).encode()

    fits = service.handle(ServiceRequest("POST", SESSIONS, headers, content.ljust(65_536)))
    rejected = service.handle(ServiceRequest("POST", SESSIONS, headers, content.ljust(65_537)))

    assert (fits.status_code, rejected.status_code) == (200, 413)
    assert json.loads(rejected.body)["error"]["type"] == "invalid_request_error"
    assert services.store.calls == ["get", "commit", "commit"], "for the one that fits"


def test_responses_are_dated_by_the_clock_and_named(service: BlockingService) -> None:
    response = service.handle(ServiceRequest("POST", SESSIONS))

    assert response.headers["date"] == "Sun, 22 Nov 2026 12:00:00 GMT"
    assert response.headers["x-request-id"].startswith("req_")
