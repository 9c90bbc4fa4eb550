"""Flask with a login, and sessions that every worker shares in Redis.

gunicorn "app:make_app()" --workers 2 --threads 8
"""

import logging
import os

from flask import Flask, session

from chatkit_sessions import ChatKitClient, ChatKitError
from chatkit_sessions.integrations.flask import chatkit_blueprint
from chatkit_sessions.stores.redis import RedisSessionStore

logger = logging.getLogger(__name__)


def signed_in_user() -> str | None:
    """The user's id from the signed cookie; None: nobody is signed in."""
    return session.get("user_id")


def make_app() -> Flask:
    """Make each worker's application, with its client and its connections to Redis."""
    store = RedisSessionStore.from_url(os.environ["REDIS_URL"], namespace="shop-production")
    chatkit = ChatKitClient(store=store)

    app = Flask("shop")
    app.secret_key = os.environ["LOGIN_SECRET"]
    app.config["SESSION_COOKIE_SAMESITE"] = "Strict"
    app.register_blueprint(chatkit_blueprint(chatkit, user=signed_in_user, reuse=True))

    @app.post("/sign-in")
    def sign_in() -> tuple[str, int]:
        session["user_id"] = "ada"  # replace this with your login
        return "", 204

    @app.post("/sign-out")
    def sign_out() -> tuple[str, int]:
        if user := signed_in_user():
            try:
                chatkit.delete_sessions(user)  # of every worker and device
            except ChatKitError:  # the login ends all the same
                logger.exception("Not all chat sessions of a user have ended: they expire.")
        session.clear()
        return "", 204

    return app
