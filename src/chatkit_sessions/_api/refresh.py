"""Refreshing: the request, and every reason why a new session is created instead.

`POST /chatkit/sessions/refresh` is in use but not in the contract, so the library asks for it and
trusts it as little as possible. A new session is created where

- the route is not worth asking (`reason_not_to_ask`),
- it fails in a way that creating may not (`reason_to_create_after`),
- it returns a session that nobody may use, or whose options are not those that the call passes
  (`RejectedSession`).
"""

import json
from typing import Final, NamedTuple, cast

from pydantic import SecretBytes, SecretStr, ValidationError

from chatkit_sessions._config.validation import validate_client_secret
from chatkit_sessions._redaction import hidden_from_tracebacks
from chatkit_sessions.errors import APIResponseValidationError, APIStatusError
from chatkit_sessions.models import ChatKitSessionResponse

from .arguments import problem_with_session_id
from .diagnosis import is_rejection
from .operations import (
    SESSIONS,
    Operation,
    describe_validation_error,
    encode_json,
    id_to_cancel,
)

_LIFETIME_TOLERANCE: Final = 10.0
"""Seconds by which a session's lifetime may differ from `expires_after`: the API counts in whole
seconds, and the `Date` of its response may come from another machine."""


class RejectedSession(NamedTuple):
    """A session from the refresh route that is not returned; `id` where there is one to cancel."""

    id: str | None
    reason: str
    is_fault: bool = True
    """Whether the server is at fault; otherwise, the call passes other options than before."""


def refresh(
    client_secret: str | SecretStr, *, user: str, workflow_id: str, create_body: bytes
) -> Operation[ChatKitSessionResponse | RejectedSession]:
    """`POST /chatkit/sessions/refresh`.

    Args:
        client_secret: The secret to exchange.
        user: Whose session it has to be.
        workflow_id: Its workflow.
        create_body: The body of the request that creates a session with the call's options.
    """
    secret = validate_client_secret(client_secret)

    def parse(document: dict[str, object]) -> ChatKitSessionResponse | RejectedSession:
        session = _accept_or_reject(document, presented=secret, user=user, workflow_id=workflow_id)
        if isinstance(session, RejectedSession):
            return session
        changed = _changed_option(json.loads(create_body), document, session)
        if changed is None:
            return session
        session_id = id_to_cancel(session.id, secrets=[secret, session.client_secret])
        return RejectedSession(session_id, f"it has another `{changed}`", is_fault=False)

    return Operation(
        "refresh", "POST", f"{SESSIONS}/refresh", _body(secret), parse, secrets=(secret,)
    )


@hidden_from_tracebacks
def _body(secret: SecretStr) -> SecretBytes:
    return encode_json({"client_secret": secret.get_secret_value()})


def reason_not_to_ask(
    presented: SecretStr,
    *,
    shared: SecretStr | None,
    reused: bool,
    presented_is_shared: bool,
    route_is_missing: bool,
) -> str | None:
    """Why a new session is created without asking the refresh route; None: it is asked.

    A refreshed session keeps its options, and the presented secret may stop working. So if sessions
    are shared, only the session to replace is refreshed. A shared session with other options stays
    as it is, for those who share it.

    Args:
        presented: The secret that the caller wants to exchange.
        shared: The secret of the session that is shared now under the wanted options, if any.
        reused: Whether sessions of these options are shared at all.
        presented_is_shared: Whether the presented secret belongs to any shared session.
        route_is_missing: Whether the server is known to lack the route.
    """
    if shared != presented and (reused or presented_is_shared):
        return "the presented secret is not that of the session to replace"
    return "the server has no refresh route" if route_is_missing else None


def reason_to_create_after(
    error: APIStatusError | APIResponseValidationError, *, route_is_missing: bool
) -> str | None:
    """Why a failed refresh leads to a new session, whose error then decides; None: raise it.

    Args:
        error: The error of the refresh route's response.
        route_is_missing: Whether the error says that the server lacks the route.
    """
    if isinstance(error, APIResponseValidationError):
        return f"the response to {error.status_code} cannot be read"
    if route_is_missing:
        return f"the server has no refresh route ({error.status_code})"
    if is_rejection(error.status_code):
        return f"the refresh was rejected with {error.status_code}"
    return None


def _accept_or_reject(
    document: dict[str, object], *, presented: SecretStr, user: str, workflow_id: str
) -> ChatKitSessionResponse | RejectedSession:
    try:
        session = ChatKitSessionResponse.model_validate(document)
    except ValidationError as error:
        problem = describe_validation_error(error)
    else:
        if session.client_secret == presented:
            problem = "it holds the secret that was presented"
        elif session.status in {"expired", "cancelled"}:
            problem = "it has ended already"
        elif session.user != user:
            problem = "it does not name the same user"
        elif session.workflow is None or session.workflow.id != workflow_id:
            problem = "it does not name the same workflow"
        elif (problem_with_id := problem_with_session_id(session.id)) is not None:
            problem = f"`id` {problem_with_id}"
        else:
            return session
    return RejectedSession(id_to_cancel(document.get("id"), secrets=[presented]), problem)


def _changed_option(
    wanted: dict[str, object], document: dict[str, object], session: ChatKitSessionResponse
) -> str | None:
    """The first option that is not in force as the call passes it; None if all are.

    So a refresh grants what the application grants now, whatever the server copies. Options that
    the call omits are not compared. What the server does not say is not in force.
    """
    if "expires_after" in wanted:
        seconds = cast("dict[str, float]", wanted["expires_after"])["seconds"]
        if session.answered_at is None:
            return "expires_after"
        lifetime = (session.expires_at - session.answered_at).total_seconds()
        if abs(lifetime - seconds) > _LIFETIME_TOLERANCE:
            return "expires_after"
    fields = {name: value for name, value in wanted.items() if name != "expires_after"}
    return _difference(fields, document)


def _difference(wanted: object, found: object, path: str = "") -> str | None:
    """The path of the first wanted value that `found` lacks; None if it has all."""
    if not isinstance(wanted, dict):
        # In Python, True equals 1.
        same = wanted == found and isinstance(wanted, bool) == isinstance(found, bool)
        return None if same else path
    fields = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    has_own_names = path == "workflow.state_variables"  # then there are to be no others
    if has_own_names and wanted.keys() != fields.keys():
        return path
    for name, value in cast("dict[str, object]", wanted).items():
        difference = _difference(value, fields.get(name), f"{path}.{name}" if path else name)
        if difference is not None:
            return path if has_own_names else difference
    return None
