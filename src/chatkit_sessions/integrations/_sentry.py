"""Masks the body of a refresh in Sentry's events: it contains the page's secret.

Sentry's integrations for Starlette and FastAPI record request bodies by default. They mask fields
by name, but not `currentClientSecret`.
"""

import sys
from typing import Any, cast

from chatkit_sessions._redaction import MASK


def keep_body_from_sentry() -> None:
    """Mask the current request's body in all later events."""
    sentry: Any = sys.modules.get("sentry_sdk")
    # With the integration, each request has its own scope.
    if sentry is not None and sentry.get_client().get_integration("starlette") is not None:
        sentry.get_isolation_scope().add_event_processor(_without_body)


def _without_body(event: dict[str, object], _: object) -> dict[str, object]:
    request = cast("dict[str, object]", event.get("request", {}))
    if "data" in request:
        request["data"] = MASK
    return event
