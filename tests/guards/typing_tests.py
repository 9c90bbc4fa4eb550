"""What type checkers say of the public names: read by mypy and pyright, never run."""

from datetime import datetime
from typing import assert_type

from django.urls import URLPattern
from fastapi import APIRouter
from flask import Blueprint
from pydantic import SecretStr
from starlette.requests import Request
from starlette.routing import Route

from chatkit_sessions import (
    APIStatusError,
    AsyncChatKitClient,
    BrowserSession,
    ChatKitClient,
    ChatKitErrorDetail,
    ChatKitSessionInfo,
    ChatKitSessionResponse,
    InvalidRequestError,
    RetryPolicy,
)
from chatkit_sessions.integrations import (
    AsyncChatKitEndpoint,
    ChatKitEndpoint,
    CreateSessionOptions,
    EndpointRequest,
    EndpointResponse,
)
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.integrations.fastapi import chatkit_router
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.integrations.starlette import chatkit_routes
from chatkit_sessions.testing import FakeChatKit


def clients(chatkit: ChatKitClient) -> None:
    session = chatkit.create_session("ada", expires_after=300, history={"recent_threads": 3})
    assert_type(session, ChatKitSessionResponse)
    assert_type(session.client_secret, SecretStr)
    assert_type(session.expires_at, datetime)
    assert_type(session.for_browser(), BrowserSession)
    assert_type(session.for_browser()["client_secret"], str)
    assert_type(chatkit.get_or_create_session("ada"), ChatKitSessionResponse)
    assert_type(chatkit.refresh_session("ek_1", user="ada"), ChatKitSessionResponse)
    assert_type(chatkit.get_session(session.id), ChatKitSessionInfo)
    assert_type(chatkit.sessions_for("ada"), list[ChatKitSessionInfo])
    assert_type(chatkit.with_options(max_retries=RetryPolicy()), ChatKitClient)
    with chatkit as entered:
        assert_type(entered, ChatKitClient)


async def async_clients(chatkit: AsyncChatKitClient) -> None:
    assert_type(await chatkit.create_session("ada"), ChatKitSessionResponse)
    assert_type(await chatkit.get_session("cksess_1"), ChatKitSessionInfo)
    assert_type(await chatkit.sessions_for("ada"), list[ChatKitSessionInfo])
    assert_type(chatkit.with_options(timeout=None), AsyncChatKitClient)
    async with chatkit as entered:
        assert_type(entered, AsyncChatKitClient)


def errors(error: APIStatusError, invalid: InvalidRequestError) -> None:
    assert_type(error.status_code, int)
    assert_type(error.error, ChatKitErrorDetail | None)
    assert_type(error.retry_after, float | None)
    assert_type(error.hint, str)
    as_value_error: ValueError = invalid
    del as_value_error


def wrong_arguments(chatkit: ChatKitClient, fake: FakeChatKit) -> None:
    chatkit.create_session(7)  # type: ignore[arg-type]  # a user is a string
    chatkit.create_session("ada", "wf_1")  # type: ignore[call-arg]  # options have names
    chatkit.create_session("ada", expires_in=300)  # type: ignore[call-arg]  # and these alone
    chatkit.create_session("ada", history={"threads": 3})  # type: ignore[arg-type]  # as above
    fake.fail_next(fault="explode")  # type: ignore[arg-type]  # one of five


async def endpoints(chatkit: ChatKitClient, async_chatkit: AsyncChatKitClient) -> None:
    request = EndpointRequest(method="POST", path="/session", url="https://x.test", headers={})
    options: CreateSessionOptions = {"expires_after": 60}
    answer = ChatKitEndpoint(chatkit).handle(request, user="ada", options=options)
    assert_type(answer, EndpointResponse)
    assert_type(
        await AsyncChatKitEndpoint(async_chatkit).handle(request, user=None), EndpointResponse
    )

    async def user(request: Request) -> str | None:
        return request.headers.get("x-user")

    assert_type(chatkit_routes(async_chatkit, user=user, reuse=True), list[Route])
    assert_type(chatkit_router(async_chatkit, user=user, rate_limit=None), APIRouter)
    assert_type(chatkit_blueprint(chatkit, user=lambda: "ada"), Blueprint)
    assert_type(chatkit_urls(chatkit, allowed_origins=["https://x.test"]), list[URLPattern])
    chatkit_routes(async_chatkit, user=user, reuse="yes")  # type: ignore[arg-type]  # a bool
    chatkit_blueprint(chatkit, user=lambda: "ada", reused=True)  # type: ignore[call-arg]  # a typo


def kit(fake: FakeChatKit) -> None:
    assert_type(fake.client(), ChatKitClient)
    assert_type(fake.async_client(), AsyncChatKitClient)
    with fake.serve() as server:
        assert_type(server.environment, dict[str, str])
