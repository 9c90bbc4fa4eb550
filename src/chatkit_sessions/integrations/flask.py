"""The endpoint as a blueprint of Flask.

It needs Flask: `pip install "chatkit-sessions[flask]"`.
"""

from collections.abc import Callable
from typing import Unpack

from chatkit_sessions._client.sync_client import ChatKitClient

from ._messages import (
    DEFAULT_PREFIX,
    MAX_BODY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointSettings,
)
from ._sync_endpoint import ChatKitEndpoint

try:
    from flask import Blueprint, Response, request
except ModuleNotFoundError as _error:
    raise ImportError(
        'The blueprint for Flask needs it: pip install "chatkit-sessions[flask]"'
    ) from _error

__all__ = ["chatkit_blueprint"]


def chatkit_blueprint(
    client: ChatKitClient,
    *,
    user: Callable[[], str | None],
    options: Callable[[], CreateSessionOptions] | None = None,
    prefix: str = DEFAULT_PREFIX,
    name: str = "chatkit",
    **settings: Unpack[EndpointSettings],
) -> Blueprint:
    """Make the blueprint that the widget's page calls; register it in the application.

    Args:
        client: Makes the sessions. It stays yours to close.
        user: Tells from your login the id of who is signed in; None: nobody. It is called within
            the request, so that `flask.session` and `current_user` are there.
        options: Tells the options of a session that this request creates, in the same way; it is
            asked only where somebody is signed in. Left out: the API's own.
        prefix: What the routes' paths begin with.
        name: The blueprint's name, in case that one application has several.
        settings: See `ChatKitEndpoint`.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    endpoint = ChatKitEndpoint(client, **settings)
    blueprint = Blueprint(name, __name__, url_prefix=prefix)

    def add(path: str, methods: tuple[str, ...]) -> None:
        def handle(**variables: str) -> Response:
            who = None if request.method == "OPTIONS" else user()
            response = endpoint.handle(
                EndpointRequest(
                    method=request.method,
                    path=path.format(**variables),
                    url=request.url,
                    headers=dict(request.headers),
                    body=request.stream.read(MAX_BODY + 1),
                ),
                user=who,
                options=options() if who and options else None,
            )
            return Response(response.body, response.status_code, response.headers)

        blueprint.add_url_rule(
            path.replace("{", "<").replace("}", ">"),
            endpoint=path.strip("/").replace("/", "_"),
            view_func=handle,
            methods=methods,
            provide_automatic_options=False,
        )

    for path, methods in endpoint.routes.items():
        add(path, methods)
    return blueprint
