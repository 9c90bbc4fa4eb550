"""Every reason why a refresh creates a new session instead."""

import pytest
from pydantic import SecretStr

from chatkit_sessions._api.refresh import reason_not_to_ask, reason_to_create_after
from chatkit_sessions.errors import APIResponseValidationError, APIStatusError

PRESENTED = SecretStr("ek_presented")


@pytest.mark.parametrize(
    ("shared", "reused", "presented_is_shared", "asks"),
    [
        (PRESENTED, True, False, True),
        (PRESENTED, True, True, True),
        (None, False, False, True),
        (None, False, True, False),
        (None, True, False, False),
        (SecretStr("ek_other"), True, False, False),
    ],
)
def test_a_secret_is_refreshed_unless_that_would_take_a_session_from_others(
    shared: SecretStr | None, *, reused: bool, presented_is_shared: bool, asks: bool
) -> None:
    reason = reason_not_to_ask(
        PRESENTED,
        shared=shared,
        reused=reused,
        presented_is_shared=presented_is_shared,
        route_is_missing=False,
    )

    assert (reason is None) == asks


def test_a_route_that_the_server_lacks_is_not_asked_for() -> None:
    reason = reason_not_to_ask(
        PRESENTED, shared=None, reused=False, presented_is_shared=False, route_is_missing=True
    )

    assert reason == "the server has no refresh route"


@pytest.mark.parametrize(
    ("status_code", "creates"),
    [
        *((code, True) for code in (400, 401, 403, 404, 405, 410, 422, 499)),
        *((code, False) for code in (302, 408, 409, 429, 500, 502, 599)),
    ],
)
def test_a_rejection_leads_to_a_new_session_and_trouble_does_not(
    status_code: int, *, creates: bool
) -> None:
    error = APIStatusError("m", status_code=status_code)

    reason = reason_to_create_after(error, route_is_missing=False)

    assert (reason is not None) == creates
    assert reason_to_create_after(error, route_is_missing=True) is not None


def test_a_response_that_cannot_be_read_leads_to_a_new_session() -> None:
    error = APIResponseValidationError(
        "m", status_code=200, content_type=None, content_length=0, request_id=None
    )

    assert reason_to_create_after(error, route_is_missing=False) is not None
