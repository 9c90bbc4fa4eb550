"""The errors' tree, their text, and that they survive pickling and copying."""

import copy
import inspect
import json
import pickle
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest

import chatkit_sessions
from chatkit_sessions import errors
from chatkit_sessions._troubleshooting_page import reference
from chatkit_sessions.errors import (
    APIConnectionError,
    APIResponseValidationError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BetaNotAvailableBadRequestError,
    BetaNotAvailableError,
    ChatKitError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SessionNotFoundError,
    SessionNotRecordedError,
    UnprocessableEntityError,
    WorkflowNotFoundError,
)
from chatkit_sessions.models import ChatKitErrorDetail
from chatkit_sessions.service import ClientSecretRateLimitError, InvalidClientSecretError
from chatkit_sessions.service._chat_server import BrokenBodyError
from chatkit_sessions.service.errors import InvalidReason

DETAIL = ChatKitErrorDetail.model_validate(
    {"message": "inner", "type": "t", "param": "p", "code": "c", "novelty": [1]}
)

ALL_CLASSES: list[type[ChatKitError]] = sorted(
    (
        error_class
        for _, error_class in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error_class, ChatKitError)
    ),
    key=lambda error_class: error_class.__name__,
)


def make(error_class: type[ChatKitError]) -> ChatKitError:
    if issubclass(error_class, APIStatusError):
        return error_class(
            "what happened",
            status_code=418,
            error=DETAIL,
            body={"error": [1, "two", None]},
            request_id="req_1",
            retry_after=1.5,
            should_retry=True,
            hint="Check this.",
        )
    if issubclass(error_class, APIResponseValidationError):
        return error_class(
            "what happened",
            status_code=200,
            content_type="text/html",
            content_length=12,
            request_id="req_1",
            hint="Check this.",
        )
    return error_class("what happened", hint="Check this.")


def drawn_parents() -> dict[str, str]:
    """Read the drawing in the docstring: each class and the one that it hangs below."""
    above: list[tuple[int, str]] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        name = line.strip(" │├└─").split(" ")[0]
        if not name.endswith("Error"):
            continue
        depth = line.index(name)
        while above and above[-1][0] >= depth:
            above.pop()
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def test_the_tree_is_the_one_that_the_docstring_draws() -> None:
    actual: dict[str, str] = {}
    for error_class in ALL_CLASSES:
        parents = [base for base in error_class.__bases__ if issubclass(base, ChatKitError)]
        if parents:  # a second parent is told in words
            actual[error_class.__name__] = parents[0].__name__

    assert drawn_parents() == actual


def test_the_root_is_an_ordinary_exception() -> None:
    assert ChatKitError.__bases__ == (Exception,)


def test_every_drawn_class_is_public() -> None:
    drawn = {"ChatKitError", *drawn_parents()}

    assert drawn <= set(chatkit_sessions.__all__)
    assert all(getattr(chatkit_sessions, name) is getattr(errors, name) for name in drawn)


def test_an_invalid_request_is_also_a_value_error() -> None:
    with pytest.raises(ValueError, match="bad argument"):
        raise InvalidRequestError("bad argument")


def test_a_beta_refusal_with_status_400_is_caught_as_either_parent() -> None:
    assert issubclass(BetaNotAvailableBadRequestError, BetaNotAvailableError)
    assert issubclass(BetaNotAvailableBadRequestError, BadRequestError)
    assert not issubclass(BetaNotAvailableError, BadRequestError)


@pytest.mark.parametrize(
    "error_class",
    [
        ChatKitError,
        ConfigurationError,
        InvalidRequestError,
        SessionNotRecordedError,
        APIConnectionError,
        APITimeoutError,
    ],
)
class TestPlainErrors:
    def test_a_reference_alone_is_not_called_a_hint(self, error_class: type[ChatKitError]) -> None:
        error = error_class("what happened")

        assert error.hint.startswith("See: Troubleshooting: ")
        assert str(error) == f"what happened\n{error.hint}"

    def test_its_text_ends_with_the_hint(self, error_class: type[ChatKitError]) -> None:
        error = error_class("what happened", hint="Check this.")

        assert error.hint.startswith("Check this. See: Troubleshooting: ")
        assert str(error) == f"what happened\nHint: {error.hint}"
        assert (error.message, error.args[:2]) == (
            "what happened",
            ("what happened", "Check this."),
        )


STATUS_CLASSES = [
    BadRequestError,
    AuthenticationError,
    PermissionDeniedError,
    NotFoundError,
    WorkflowNotFoundError,
    SessionNotFoundError,
    ConflictError,
    UnprocessableEntityError,
    RateLimitError,
    InternalServerError,
    BetaNotAvailableError,
    BetaNotAvailableBadRequestError,
    APIStatusError,
]


@pytest.mark.parametrize("error_class", [*STATUS_CLASSES, APIResponseValidationError])
def test_the_text_of_an_answer_error_holds_status_message_request_id_and_hint(
    error_class: type[ChatKitError],
) -> None:
    error = make(error_class)
    status = 200 if error_class is APIResponseValidationError else 418

    assert str(error) == f"{status}: what happened (request id req_1)\nHint: {error.hint}"


@pytest.mark.parametrize("error_class", STATUS_CLASSES)
def test_a_status_error_needs_no_more_than_message_and_status(
    error_class: type[APIStatusError],
) -> None:
    error = error_class("what happened", status_code=404)

    assert str(error) == f"404: what happened\n{error.hint}"
    assert error.status_code == 404
    assert error.error is None
    assert error.body is None
    assert error.request_id is None
    assert error.retry_after is None
    assert error.should_retry is None
    assert (error.code, error.param, error.type) == (None, None, None)


def test_a_status_error_has_the_names_of_the_official_sdk_for_what_the_api_says() -> None:
    error = APIStatusError("what happened", status_code=400, error=DETAIL)

    assert (error.code, error.param, error.type) == ("c", "p", "t")


@pytest.mark.parametrize("error_class", ALL_CLASSES)
def test_the_hint_names_the_errors_section_and_the_command_that_prints_it(
    error_class: type[ChatKitError],
) -> None:
    hint = make(error_class).hint

    name = error_class.__name__
    assert hint == (
        f"Check this. See: Troubleshooting: {name} (python -m chatkit_sessions explain {name})"
    )


@pytest.mark.parametrize(
    "error", [InvalidClientSecretError("expired"), ClientSecretRateLimitError(1.5)]
)
def test_the_errors_of_a_service_have_sections_of_their_own(error: ChatKitError) -> None:
    name = type(error).__name__
    assert re.match(rf"Reject the request with 4\d\d.* See: Troubleshooting: {name} ", error.hint)


def test_the_hint_of_a_users_own_error_leads_to_what_it_is_a_kind_of() -> None:
    class BusyError(RateLimitError):
        pass

    hint = BusyError("x", status_code=429, hint="Check this.").hint

    assert hint.endswith("(python -m chatkit_sessions explain RateLimitError)")


def test_once_the_docs_have_an_address_a_reference_has_a_link_too() -> None:
    assert reference("CORS", site="https://docs.test/") == (
        f"{reference('CORS', site=None)}, https://docs.test/troubleshooting.html#cors"
    )


def pickled(protocol: int) -> Callable[[ChatKitError], Any]:
    def duplicate(error: ChatKitError) -> Any:  # noqa: ANN401 -- what pickle gives
        return pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 -- our own bytes

    return duplicate


DUPLICATES: dict[str, Callable[[ChatKitError], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle-{n}": pickled(n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
@pytest.mark.parametrize("error_class", ALL_CLASSES)
def test_every_error_survives_pickling_and_copying_with_all_its_attributes(
    error_class: type[ChatKitError], duplicate: Callable[[ChatKitError], Any]
) -> None:
    error = make(error_class)

    twin = duplicate(error)

    assert twin is not error
    assert type(twin) is error_class
    assert vars(twin) == vars(error)
    assert set(vars(error)) >= {"message", "hint"}
    assert twin.args == error.args
    assert str(twin) == str(error)
    assert repr(twin) == repr(error)


def every_class(of: type[ChatKitError]) -> list[type[ChatKitError]]:
    return [of, *(each for sub in of.__subclasses__() for each in every_class(sub))]


def samples() -> dict[str, ChatKitError]:
    """Of each class, those inside the library, too."""
    special: list[ChatKitError] = [
        *map(InvalidClientSecretError, get_args(InvalidReason)),
        ClientSecretRateLimitError(1.5),
        BrokenBodyError(),
    ]
    classes = {each for each in every_class(ChatKitError) if __name__ != each.__module__}
    ordinary = [make(each) for each in classes - set(map(type, special))]
    return {f"{type(each).__name__}: {each.message}": each for each in [*ordinary, *special]}


SAMPLES = samples()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_error_is_restored_from_what_json_keeps_of_its_args(name: str) -> None:
    """As Celery's default result backend does."""
    error = SAMPLES[name]

    twin = type(error)(*json.loads(json.dumps(error.args)))

    kept = {key: value for key, value in vars(error).items() if key not in {"body", "error"}}
    assert {key: getattr(twin, key) for key in kept} == kept
    assert (str(twin), repr(twin), twin.args) == (str(error), repr(error), error.args)
    if isinstance(error, APIStatusError) and isinstance(twin, APIStatusError):
        assert (twin.code, twin.param, twin.type) == (error.code, error.param, error.type)
        assert (twin.body, error.args[1:3]) == (None, (418, "req_1"))
        assert "novelty" not in repr(error.args)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_so_is_its_copy(name: str) -> None:
    for duplicate in DUPLICATES.values():
        twin = duplicate(SAMPLES[name])

        assert str(type(twin)(*twin.args)) == str(SAMPLES[name])


@pytest.mark.parametrize("error_class", ALL_CLASSES)
def test_its_repr_is_one_line_without_the_responses_body(error_class: type[ChatKitError]) -> None:
    error = make(error_class)

    assert repr(error) == f"{error_class.__name__}({str(error).splitlines()[0]!r})"


def test_an_error_that_0_9_0_pickled_has_the_attributes_that_came_later() -> None:
    for name, error in (
        ("permanent", errors.APITimeoutError("x")),
        ("session_id", make(APIResponseValidationError)),
    ):
        state = {key: value for key, value in vars(error).items() if key != name}
        vars(error).clear()
        vars(error).update(state)

        assert getattr(pickled(4)(error), name) in (False, None)


def test_a_note_survives_pickling() -> None:
    error = make(RateLimitError)
    error.add_note("in the nightly job")

    assert pickled(5)(error).__notes__ == ["in the nightly job"]


def test_a_users_own_subclass_survives_pickling() -> None:
    twin = pickled(5)(OwnError("x", extra=5))

    assert (twin.message, twin.extra) == ("x", 5)


class OwnError(ChatKitError):
    def __init__(self, message: str, *, extra: int) -> None:
        super().__init__(message)
        self.extra = extra
