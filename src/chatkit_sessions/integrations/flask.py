"""The endpoint as a Flask blueprint.

Install it with `pip install "chatkit-sessions[flask]"`.
"""

import contextlib
from collections.abc import Callable
from typing import Unpack, cast

from chatkit_sessions._client.sync_client import ChatKitClient
from chatkit_sessions._concurrency.threads import run_blocking
from chatkit_sessions._redaction import hidden_from_tracebacks

from ._endpoint import ChatKitEndpoint, Hooks
from ._requests import (
    COOKIE_MAX_AGE,
    COOKIE_NAME,
    COOKIE_SALT,
    DEFAULT_PREFIX,
    MAX_BODY,
    VISITOR_KEY,
    CreateSessionOptions,
    EndpointRequest,
    EndpointSettings,
    exact_cookie,
    new_visitor,
    parse_visitor,
    validate_prefix,
    validate_secret_keys,
)

try:
    from flask import Blueprint, Flask, Response, after_this_request, current_app, request
    from itsdangerous import BadSignature, TimestampSigner
    from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
except ModuleNotFoundError as _error:
    raise ImportError(
        'The blueprint for Flask needs it: pip install "chatkit-sessions[flask]"'
    ) from _error

__all__ = ["anonymous_visitor", "chatkit_blueprint"]


def chatkit_blueprint(
    client: ChatKitClient | Callable[[], ChatKitClient],
    *,
    user: Callable[[], str | None],
    options: Callable[[], CreateSessionOptions] | None = None,
    prefix: str = DEFAULT_PREFIX,
    name: str = "chatkit",
    **settings: Unpack[EndpointSettings],
) -> Blueprint:
    """Make the blueprint that the page calls, for `app.register_blueprint`.

    Args:
        client: The client, or a function that returns it for a request. The blueprint does not
            close it.
        user: Returns the id of the signed-in user, from your login. None: nobody is signed in. It
            is called in the request's context, so it can use `flask.session` and `current_user`.
        options: Returns the options of a session that this request creates. It is called only if a
            user is signed in. Default: the API's defaults.
        prefix: The prefix of the routes' paths; default `/api/chatkit`.
        name: The blueprint's name; an application with several blueprints needs several names.
        settings: See `EndpointSettings`.

    Returns:
        The blueprint.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    endpoint = ChatKitEndpoint(client, **settings)
    endpoint.validate_functions(user=user, options=options)
    blueprint = Blueprint(name, __name__, url_prefix=validate_prefix(prefix) or None)

    def add(path: str, methods: tuple[str, ...]) -> None:
        def handle(**variables: str) -> Response:
            # Bounds the body for every reader: the endpoint, `user` and `options`. Werkzeug cuts
            # off a longer body of unknown length, so one more byte shows that it is too large.
            bound = MAX_BODY + 1
            request.max_content_length = min(request.max_content_length or bound, bound)
            page_request = _endpoint_request(path.format(**variables))
            try:
                response = run_blocking(
                    endpoint.serve,
                    page_request,
                    Hooks(endpoint.client, user, request.get_data, options or _no_options),
                )
            except RequestEntityTooLarge:
                response = endpoint.reject(page_request, "request_too_large")
            except ClientDisconnected:
                response = endpoint.reject_incomplete(page_request)
            return Response(response.body, response.status_code, response.headers)

        blueprint.add_url_rule(
            path.replace("{", "<").replace("}", ">"),
            endpoint=path.strip("/").replace("/", "_"),
            view_func=handle,
            methods=methods,
            provide_automatic_options=False,
        )

    def let_pages_read(response: Response) -> Response:
        """Add CORS headers, also to the responses of the application's own error handlers."""
        response.headers.update(endpoint.cors_headers(_endpoint_request("")))
        response.vary.add("Origin")
        return response

    for path, methods in endpoint.routes.items():
        add(path, methods)
    blueprint.after_request(let_pages_read)
    return blueprint


def anonymous_visitor() -> str:
    """Return the id of an anonymous visitor. Pass this function as `user`, or call it in yours.

    The id is random and begins with `visitor_`. The browser keeps it for a year, in a cookie that
    the application's `secret_key` signs.

    Raises:
        ConfigurationError: The application's `secret_key`, or one of `SECRET_KEY_FALLBACKS`, is
            missing or has less than 16 bytes.
    """
    made = cast("str | None", request.environ.get(VISITOR_KEY))
    if made is not None:
        return made
    signer = _signer(current_app)
    signed = exact_cookie(request.environ.get("HTTP_COOKIE"), COOKIE_NAME)
    with contextlib.suppress(BadSignature):
        known = parse_visitor(signer.unsign(signed or "", max_age=COOKIE_MAX_AGE))
        if known is not None:
            return known
    visitor = request.environ[VISITOR_KEY] = new_visitor()

    @after_this_request
    def remember(response: Response) -> Response:
        cookie = signer.sign(visitor).decode()
        response.set_cookie(
            COOKIE_NAME, cookie, max_age=COOKIE_MAX_AGE, secure=True, httponly=True, samesite="Lax"
        )
        return response

    return visitor


@hidden_from_tracebacks
def _signer(app: Flask) -> TimestampSigner:
    config = cast("dict[str, object]", app.config)
    older = cast("list[str]", config["SECRET_KEY_FALLBACKS"] or [])
    keys = [*older, cast("str", app.secret_key)]
    validate_secret_keys(keys, "The application's `secret_key`")
    return TimestampSigner(keys, salt=COOKIE_SALT)


def _endpoint_request(path: str) -> EndpointRequest:
    # Flask's `request.url` decodes international names, and browsers do not send them so.
    host = request.environ.get("HTTP_HOST") or request.host
    return EndpointRequest(
        method=request.method,
        path=path,
        url=f"{request.scheme}://{host}{request.path}",
        headers=dict(request.headers),
    )


def _no_options() -> None:
    """Use the API's defaults."""
