"""Keeps the body of a refresh, in which the page sends its secret, out of Sentry's events.

Sentry's integrations for Starlette and FastAPI record the bodies of requests by default, and mask
fields by names that this one's, `currentClientSecret`, is not among.
"""

import sys
from typing import Any, cast

from chatkit_sessions._redaction import MASK


def keep_body_from_sentry() -> None:
    """Mask the body of the request that is under way in events that are yet to come."""
    sentry: Any = sys.modules.get("sentry_sdk")
    # Where the integration is on, each request has a scope of its own.
    if sentry is not None and sentry.get_client().get_integration("starlette") is not None:
        sentry.get_isolation_scope().add_event_processor(_without_body)


def _without_body(event: dict[str, object], _: object) -> dict[str, object]:
    request = cast("dict[str, object]", event.get("request", {}))
    if "data" in request:
        request["data"] = MASK
    return event
