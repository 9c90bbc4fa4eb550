"""One list of options, which an unknown name is compared with."""

import inspect
from collections.abc import Callable

import pytest

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.options import OPTION_NAMES, reject_unknown_options


@pytest.mark.parametrize(
    "create_session", [ChatKitClient.create_session, AsyncChatKitClient.create_session]
)
def test_create_session_takes_every_option_as_a_keyword_argument(
    create_session: Callable[..., object],
) -> None:
    parameters = inspect.signature(create_session).parameters

    assert set(parameters) - {"self", "user", "timeout"} == OPTION_NAMES


def test_options_that_exist_are_accepted() -> None:
    reject_unknown_options(OPTION_NAMES, method="refresh_session", others=("timeout",))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("expire_after", "expires_after"),
        ("worfklow_id", "workflow_id"),
        ("max_requests_per_minute", "max_requests_per_1_minute"),
        ("thread_titling", "automatic_thread_titling"),
        ("timout", "timeout"),
    ],
)
def test_an_unknown_name_is_rejected_with_the_nearest_right_one(name: str, nearest: str) -> None:
    with pytest.raises(TypeError) as caught:
        reject_unknown_options(["history", name], method="refresh_session", others=("timeout",))

    assert str(caught.value) == (
        f"refresh_session() got an unexpected keyword argument '{name}'. Did you mean '{nearest}'?"
    )


def test_where_no_name_is_near_none_is_suggested() -> None:
    with pytest.raises(TypeError) as caught:
        reject_unknown_options(["colour"], method="refresh_session", others=("timeout",))

    assert str(caught.value) == "refresh_session() got an unexpected keyword argument 'colour'."
