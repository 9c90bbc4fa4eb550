"""What type checkers say of the service's public names: read by mypy and pyright, never run."""

from collections.abc import Awaitable
from datetime import datetime
from typing import assert_type

from django.http import HttpRequest, HttpResponse
from django.urls import path
from starlette.requests import Request

from chatkit_sessions import AsyncChatKitClient, ChatKitClient
from chatkit_sessions.service import (
    AsyncSessionsService,
    ClientSecretRateLimitError,
    InvalidClientSecretError,
    SessionContext,
    SessionSettings,
    SessionsService,
)
from chatkit_sessions.service.django import chatkit_session as django_session
from chatkit_sessions.service.fastapi import chatkit_session as fastapi_session
from chatkit_sessions.service.flask import chatkit_session as flask_session
from chatkit_sessions.stores import MemorySessionStore
from chatkit_sessions.stores.redis import AsyncRedisSessionStore, RedisSessionStore


def services(sync_redis: RedisSessionStore, redis: AsyncRedisSessionStore) -> None:
    service = SessionsService(
        sync_redis, workflows=["support"], api_keys={"key-of-the-shop": "shop"}
    )
    assert_type(service.verify("ek_1", count=False), SessionContext)
    assert_type(service.client(workflow_id="support"), ChatKitClient)
    assert_type(AsyncSessionsService(redis).client(), AsyncChatKitClient)
    SessionsService(redis)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AsyncSessionsService(sync_redis)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SessionsService(MemorySessionStore())
    AsyncSessionsService(MemorySessionStore())


def context(session: SessionContext) -> None:
    assert_type(session.user, str)
    assert_type(session.expires_at, datetime)
    assert_type(session.settings, SessionSettings)
    session.user = "eve"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def errors(invalid: InvalidClientSecretError, limited: ClientSecretRateLimitError) -> None:
    if invalid.reason == "cancelled":
        assert_type(limited.retry_after, float)


def frameworks(service: SessionsService, awaited: AsyncSessionsService, request: Request) -> None:
    assert_type(fastapi_session(awaited)(request), Awaitable[SessionContext])
    assert_type(flask_session(service)(), SessionContext)

    @django_session(service)
    def chat(request: HttpRequest, session: SessionContext, room: str) -> HttpResponse:
        return HttpResponse(f"{request.method} {session.user} {room}")

    @django_session(awaited)
    async def chat_awaited(request: HttpRequest, session: SessionContext) -> HttpResponse:
        return HttpResponse(f"{request.method} {session.user}")

    assert_type(chat(HttpRequest(), "lobby"), HttpResponse)
    path("chatkit/<str:room>", chat)
    path("chatkit", chat_awaited)
