"""Which session is the same, and that nothing tells whose it is."""

import json
import re
from typing import TYPE_CHECKING, cast

from hypothesis import given, strategies as st
from pydantic import SecretStr

from chatkit_sessions._api import operations
from chatkit_sessions._sessions.identity import Identity, Scope, name_of_secret
from chatkit_sessions.options import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = re.compile(r"[0-9a-f]{32}")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def scope(**changes: str | None) -> Scope:
    return Scope(
        base_url=changes.get("base_url") or "https://api.openai.com/v1",
        organization=changes.get("organization"),
        project=changes.get("project"),
        namespace=changes.get("namespace", "shop") or "",
        key=changes.get("key"),
    )


def options(**changes: object) -> SessionOptions:
    none = dict.fromkeys(SessionOptions.__annotations__)
    return cast("SessionOptions", {**none, **changes})


def body(user: str = "user_1", workflow_id: str = "wf_1", **changes: object) -> bytes:
    create = operations.create(user, workflow_id=workflow_id, options=options(**changes))
    assert create.body is not None
    return create.body.get_secret_value()


def slot(user: str = "user_1", workflow_id: str = "wf_1", **changes: object) -> str:
    return Identity(scope(), user, body(user, workflow_id, **changes)).slot


DIFFERENT: list[dict[str, object]] = [
    {},
    {"user": "user_2"},
    {"user": "User_1"},
    {"workflow_id": "wf_2"},
    {"workflow_version": "1"},
    {"workflow_version": "2"},
    {"state_variables": {}},
    {"state_variables": {"a": True}},
    {"state_variables": {"a": 1}},
    {"state_variables": {"a": 1.0}},
    {"state_variables": {"a": "1"}},
    {"state_variables": {"a": "True"}},
    {"state_variables": {"b": True}},
    {"state_variables": {"a": 1, "b": 2}},
    {"tracing": True},
    {"tracing": False},
    {"expires_after": 300},
    {"expires_after": 600},
    {"max_requests_per_1_minute": 10},
    {"file_upload": True},
    {"file_upload": {"max_files": 1}},
    {"history": True},
    {"history": {"recent_threads": 1}},
    {"automatic_thread_titling": True},
]


def test_every_option_makes_another_session() -> None:
    ask = cast("Callable[..., str]", slot)
    slots = [ask(**changes) for changes in DIFFERENT]

    assert len(set(slots)) == len(DIFFERENT)


def test_every_part_of_the_scope_makes_another_place() -> None:
    scopes = [
        scope(),
        scope(base_url="https://other.test/v1"),
        scope(organization="o"),
        scope(project="o"),
        scope(namespace="o"),
        scope(key="o"),
        scope(namespace="", key="shop"),
    ]

    assert len({Identity(each, "user_1", body()).slot for each in scopes}) == len(scopes)
    assert len({each.group_of_user("user_1") for each in scopes}) == len(scopes)
    assert len({each.group_of_session("cksess_1") for each in scopes}) == len(scopes)


def test_the_same_options_in_another_order_make_the_same_session() -> None:
    assert slot(state_variables={"a": 1, "b": 2}) == slot(state_variables={"b": 2, "a": 1})
    assert slot(history={"enabled": True, "recent_threads": 3}) == slot(
        history={"recent_threads": 3, "enabled": True}
    )


def test_all_sessions_of_a_user_are_in_one_group() -> None:
    groups = {Identity(scope(), "user_1", body(tracing=on)).group for on in (True, False, None)}

    assert groups == {scope().group_of_user("user_1")}


def test_a_user_and_a_session_of_the_same_name_have_different_groups() -> None:
    assert scope().group_of_user("x") != scope().group_of_session("x")


@given(user=TEXT, session_id=TEXT)
def test_names_hold_nothing_but_a_digest(user: str, session_id: str) -> None:
    identity = Identity(scope(), user, body(user))

    assert NAME.fullmatch(identity.group)
    assert NAME.fullmatch(identity.slot)
    assert NAME.fullmatch(scope().group_of_session(session_id))
    assert NAME.fullmatch(name_of_secret(SecretStr(session_id)).removeprefix("shared:"))


@given(users=st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_two_users_never_share(users: list[str]) -> None:
    one, other = (Identity(scope(), user, body(user)) for user in users)

    assert one.group != other.group
    assert one.slot != other.slot
    assert one.description != other.description


@given(user=TEXT, namespace=TEXT)
def test_the_description_is_json_that_names_the_user(user: str, namespace: str) -> None:
    described: list[object] = json.loads(
        Identity(scope(namespace=namespace), user, b"{}").description
    )

    assert user in described
    assert namespace in described


@given(secrets=st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_two_secrets_have_two_names(secrets: list[str]) -> None:
    one, other = (name_of_secret(SecretStr(secret)) for secret in secrets)

    assert one != other
    assert one == name_of_secret(SecretStr(secrets[0]))
