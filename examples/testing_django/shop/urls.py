"""The chat's routes, and a way to sign in."""

from functools import cache

from django.http import HttpRequest, HttpResponse
from django.urls import path

from chatkit_sessions import ChatKitClient
from chatkit_sessions.integrations.django import chatkit_urls


@cache
def get_chatkit() -> ChatKitClient:
    """One client for the whole process, made with the first request."""
    return ChatKitClient()  # OPENAI_API_KEY, OPENAI_CHATKIT_WORKFLOW_ID


def sign_in(request: HttpRequest) -> HttpResponse:
    """Sign a customer in; a real shop asks for a password."""
    request.session["customer"] = request.GET["customer"]
    return HttpResponse(status=204)


def customer(request: HttpRequest) -> str | None:
    """Who is signed in."""
    name: object = request.session.get("customer")
    return name if isinstance(name, str) else None


urlpatterns = [
    path("sign-in", sign_in),
    *chatkit_urls(lambda request: get_chatkit(), user=customer),  # noqa: ARG005 - Django passes it
]
