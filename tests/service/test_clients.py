"""The clients that a service issues sessions for, in process."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from chatkit_sessions import ConfigurationError, SessionStoreError, WorkflowNotFoundError
from chatkit_sessions.integrations import AsyncChatKitEndpoint, ChatKitEndpoint, EndpointRequest
from chatkit_sessions.service import AsyncSessionsService, InvalidClientSecretError, SessionsService
from chatkit_sessions.stores import MemorySessionStore
from services import BlockingService, Services
from support import Time


def test_a_session_that_a_client_creates_is_verified(
    services: Services, service: BlockingService
) -> None:
    session = service.client().create_session("ada", state_variables={"plan": "pro"})

    context = services().verify(session.client_secret)

    assert (context.user, context.session_id, context.project) == ("ada", session.id, "default")
    assert context.state_variables == {"plan": "pro"}
    assert context.expires_at == session.expires_at


def test_the_four_calls(service: BlockingService) -> None:
    chatkit = service.client()
    session = chatkit.create_session("ada")

    renewed = chatkit.refresh_session(session.client_secret, user="ada")
    info = chatkit.get_session(renewed.id)
    chatkit.delete_session(renewed.id)

    assert (info.status, info.user) == ("active", "ada")
    with pytest.raises(InvalidClientSecretError):
        service.verify(renewed.client_secret)


def test_a_downgrade_reaches_a_page_that_refreshes(service: BlockingService) -> None:
    chatkit = service.client()
    secret = chatkit.create_session("ada", state_variables={"plan": "pro"}).client_secret

    kept = chatkit.refresh_session(secret, user="ada", state_variables={"plan": "pro"})
    free = chatkit.refresh_session(kept.client_secret, user="ada", state_variables={"plan": "free"})

    assert service.verify(free.client_secret).state_variables == {"plan": "free"}
    with pytest.raises(InvalidClientSecretError):
        service.verify(kept.client_secret)
    assert chatkit.get_session(free.id).status == "active"


def test_clients_of_two_processes_share_sessions_and_sign_out(services: Services) -> None:
    one, other = services(), services()
    session = one.client().get_or_create_session("ada")

    assert other.client().get_or_create_session("ada").id == session.id
    other.client().delete_sessions("ada")

    with pytest.raises(InvalidClientSecretError) as raised:
        one.verify(session.client_secret, count=False)
    assert raised.value.reason == "cancelled"


def test_projects_see_neither_each_others_sessions_nor_share_them(
    service: BlockingService,
) -> None:
    shop, forum = service.client(project="shop"), service.client(project="forum")
    session = shop.get_or_create_session("ada")

    assert forum.get_or_create_session("ada").id != session.id
    assert service.verify(session.client_secret).project == "shop"


def test_a_client_for_a_workflow_that_the_service_does_not_have_is_not_made(
    services: Services,
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        services(workflows={"support", "sales"}).client(workflow_id="suport")

    assert raised.value.message == "This service has no workflow 'suport'."
    assert raised.value.hint.startswith("This service's `workflows` are 'sales', 'support'.")
    with pytest.raises(ConfigurationError, match="are empty"):
        services(workflows=()).client(workflow_id="support")


def test_a_call_for_a_workflow_that_does_not_exist_is_an_error(service: BlockingService) -> None:
    with pytest.raises(WorkflowNotFoundError) as raised:
        service.client().create_session("ada", workflow_id="sales")

    assert raised.value.message.endswith("This service's `workflows` are 'support'.")
    assert "the `workflows` of your service" in raised.value.hint
    assert "Agent Builder" not in str(raised.value)


def test_a_leftover_variable_is_no_workflow_of_the_service(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "wf_old")

    with pytest.raises(ConfigurationError) as raised:
        services(workflows={"support", "sales"}).client(workflow_id=None)

    assert raised.value.message == (
        "This service has no workflow 'wf_old', which OPENAI_CHATKIT_WORKFLOW_ID names."
    )
    assert raised.value.hint.startswith("This service's `workflows` are 'sales', 'support'.")


def test_without_a_default_each_call_names_its_workflow(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_CHATKIT_WORKFLOW_ID", raising=False)
    client = services(workflows={"support", "sales"}).client(workflow_id=None)

    assert client.create_session("ada", workflow_id="sales").workflow is not None
    with pytest.raises(ConfigurationError, match="No workflow id") as raised:
        client.create_session("ada")
    assert "pass one to `service.client`, or to the call" in raised.value.hint


@pytest.mark.parametrize(
    ("workflows", "workflow_id"),
    [({"support"}, "support"), ({"support", "sales"}, "sales"), (None, "sales")],
)
def test_a_client_creates_sessions_of_the_only_workflow_or_of_the_environments(
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    workflows: set[str] | None,
    workflow_id: str,
) -> None:
    monkeypatch.setenv("OPENAI_CHATKIT_WORKFLOW_ID", "sales")
    service = services(workflows=workflows)

    session = service.client(workflow_id=None).create_session("ada")

    assert service.verify(session.client_secret).workflow_id == workflow_id


def test_a_store_outage_is_a_store_error(services: Services, service: BlockingService) -> None:
    chatkit = service.client()
    session = chatkit.create_session("ada")
    services.store.is_down = True

    with pytest.raises(SessionStoreError):
        chatkit.create_session("ada")
    with pytest.raises(SessionStoreError):
        chatkit.get_or_create_session("ada")
    with pytest.raises(SessionStoreError):
        chatkit.refresh_session(session.client_secret, user="ada")

    services.store.is_down = False
    assert chatkit.get_or_create_session("ada").user == "ada"


def test_a_client_may_record_elsewhere() -> None:
    store = MemorySessionStore(namespace="shop")
    service = SessionsService(store)

    client = service.client(workflow_id="support", store=MemorySessionStore())
    client.create_session("ada")

    assert "2 entries" in repr(store), "the session and its listing; nothing of the client's"
    asynchronous = AsyncSessionsService(store)
    awaited = asynchronous.client(workflow_id="support", store=MemorySessionStore())
    assert asyncio.run(awaited.create_session("ada")).user == "ada"


def sign_out_request() -> EndpointRequest:
    return EndpointRequest(
        method="DELETE", path="/session", url="http://testserver/session", headers={}
    )


def test_signing_out_at_the_endpoint_ends_verification_in_every_process(
    services: Services,
) -> None:
    one, other = services(), services()
    secret = one.client().create_session("ada").client_secret
    assert other.verify(secret).user == "ada"

    client: Any = getattr(one.client(), "wrapped", one.client())
    if services.kind == "sync":
        response = ChatKitEndpoint(client).handle(sign_out_request(), user="ada")
    else:
        assert one._runner is not None
        response = one._runner.run(
            AsyncChatKitEndpoint(client).handle(sign_out_request(), user="ada")
        )

    assert response.status_code == 204
    with pytest.raises(InvalidClientSecretError):
        other.verify(secret)


def test_a_service_needs_httpx_only_for_its_clients() -> None:
    program = (
        "import sys; from chatkit_sessions.service import SessionsService; "
        "from chatkit_sessions.stores import MemorySessionStore; "
        "service = SessionsService(MemorySessionStore()); before = set(sys.modules); "
        "service.client(); print('httpx' in before, 'asyncio' in before, 'httpx' in sys.modules)"
    )

    run = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.split() == ["False", "False", "True"]


def test_a_flood_of_short_sessions_ends_no_other_session() -> None:
    time = Time()
    store = MemorySessionStore(namespace="shop", max_entries=40, clock=lambda: time.monotonic)
    service = SessionsService(store, clock=lambda: time.now)
    chatkit = service.client(workflow_id="support")
    session = chatkit.create_session("ada")
    for number in range(40):
        chatkit.create_session(f"visitor_{number}", expires_after=1)
        time.advance(2)

    assert service.verify(session.client_secret).user == "ada"
    chatkit.delete_sessions("ada")
    with pytest.raises(InvalidClientSecretError):
        service.verify(session.client_secret)


def test_a_sign_out_after_a_flood_says_that_it_may_have_missed_a_session() -> None:
    time = Time()
    store = MemorySessionStore(namespace="shop", max_entries=40, clock=lambda: time.monotonic)
    chatkit = SessionsService(store, clock=lambda: time.now).client(workflow_id="support")
    for user in ("ada", *(f"visitor_{number}" for number in range(40))):
        chatkit.create_session(user)
        time.advance(1)

    with pytest.raises(SessionStoreError, match="may have missed"):
        chatkit.delete_sessions("ada")
