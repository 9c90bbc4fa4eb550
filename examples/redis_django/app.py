"""Django with a login, and sessions that every worker shares in Redis.

gunicorn app:application --workers 2 --threads 8
"""

import logging
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_POST

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions.integrations.django import chatkit_urls
from chatkit_sessions.stores.redis import RedisSessionStore

logger = logging.getLogger(__name__)

if not settings.configured:
    settings.configure(
        SECRET_KEY=os.environ["LOGIN_SECRET"],
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        SESSION_COOKIE_SAMESITE="Strict",
    )


# Each worker's client, with its connections to Redis.
store = RedisSessionStore.from_url(os.environ["REDIS_URL"], namespace="shop-production")
chatkit = ChatKitClient(store=store)


def signed_in_user(request: HttpRequest) -> str | None:
    """The user's id from the signed cookie; None: nobody is signed in."""
    user: str | None = request.session.get("user_id")
    return user


@ensure_csrf_cookie
def page(_: HttpRequest) -> HttpResponse:
    """Your page; it sends the cookie's CSRF token with every POST."""
    return HttpResponse("<title>Shop</title>")


@require_POST
def sign_in(request: HttpRequest) -> HttpResponse:
    """Replace this with your login."""
    request.session["user_id"] = "ada"
    return HttpResponse(status=204)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the user's sessions of every worker and device, then the login."""
    if user := signed_in_user(request):
        try:
            chatkit.delete_sessions(user)
        except ChatKitError:  # the login ends all the same
            logger.exception("Not all chat sessions of a user have ended: they expire.")
    request.session.clear()
    return HttpResponse(status=204)


urlpatterns = [
    path("", page),
    path("sign-in", sign_in),
    path("sign-out", sign_out),
    *chatkit_urls(chatkit, user=signed_in_user, reuse=True),
]
application = get_wsgi_application()
