"""What Sentry's events hold of a request, as far as this library decides it."""

import sys
from types import SimpleNamespace

import pytest

from chatkit_sessions.integrations._asgi import _keep_body_from_sentry


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Stands in for Sentry's SDK; holds the event processors that it was given."""
    added: list[object] = []
    scope = SimpleNamespace(add_event_processor=added.append)
    client = SimpleNamespace(get_integration={"starlette": object()}.get)
    sdk = SimpleNamespace(get_client=lambda: client, get_isolation_scope=lambda: scope)
    monkeypatch.setitem(sys.modules, "sentry_sdk", sdk)
    return added


def test_the_body_of_the_request_is_masked_in_later_events(processors: list[object]) -> None:
    _keep_body_from_sentry()

    (mask,) = processors
    assert callable(mask)
    event = {"request": {"url": "/x", "data": {"currentClientSecret": "ek_secret"}}}
    assert mask(event, {}) == {"request": {"url": "/x", "data": "**********"}}
    assert mask({"message": "no request"}, {}) == {"message": "no request"}


def test_where_sentry_does_not_watch_requests_nothing_is_added(
    processors: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    sdk = sys.modules["sentry_sdk"]
    monkeypatch.setattr(
        sdk, "get_client", lambda: SimpleNamespace(get_integration=dict[str, object]().get)
    )

    _keep_body_from_sentry()

    monkeypatch.delitem(sys.modules, "sentry_sdk")
    _keep_body_from_sentry()

    assert processors == []
