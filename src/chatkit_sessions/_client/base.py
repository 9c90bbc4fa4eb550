"""What both clients hold, and how one is derived from another."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Generic, NoReturn, Self, TypeVar

from pydantic import SecretStr

from chatkit_sessions._api.arguments import validate_call_timeout, validate_workflow_id
from chatkit_sessions._api.protocol import CommonHeaders, common_headers
from chatkit_sessions._concurrency.single_flight import SettableEvent
from chatkit_sessions._config.deadline import Deadline
from chatkit_sessions._config.retry import RetryPolicy
from chatkit_sessions._config.settings import (
    KeyCallable,
    NotGiven,
    Settings,
    require_workflow_id,
)
from chatkit_sessions._config.validation import (
    as_retry_policy,
    validate_clock,
    validate_header,
    validate_key_source,
    validate_timeout,
)
from chatkit_sessions._http.connections import validate_url
from chatkit_sessions._sessions.identity import Scope
from chatkit_sessions._sessions.recent import RecentSessions
from chatkit_sessions._sessions.registry import Registry
from chatkit_sessions._sessions.snapshot import build_schemas
from chatkit_sessions.errors import APIConnectionError, ConfigurationError
from chatkit_sessions.events import OnEvent, validate_on_event
from chatkit_sessions.stores.base import AsyncSessionStore, SessionStore
from chatkit_sessions.stores.memory import MemorySessionStore

from .state import Lifetime, Runtime, SharedState

E = TypeVar("E", bound=SettableEvent)


class BaseClient(Generic[KeyCallable, E]):
    """Settings, scope, store and lifetime of a client.

    Args:
        settings: What the client is set to.
        store: Where sessions are recorded; None: a `MemorySessionStore` of the client's own.
        new_event: Makes what callers in one process wait for.
        runtime: Time and chance.
        clock: As the public clients take it.
        on_event: As above.
    """

    def __init__(
        self,
        settings: Settings[KeyCallable],
        store: SessionStore | AsyncSessionStore | None,
        *,
        new_event: Callable[[], E],
        runtime: Runtime,
        clock: Callable[[], datetime] | None,
        on_event: OnEvent | None,
    ) -> None:
        validate_url(settings.base_url)
        build_schemas()
        if clock is not None:
            validate_clock(clock)
            runtime = runtime._replace(now=clock)
        self._has_clock = clock is not None
        validate_on_event(on_event)
        runtime = runtime._replace(on_event=on_event)
        # What a client's own store and the endpoint's limit count time by.
        self._seconds = self._expiry_clock if clock is None else lambda: clock().timestamp()
        recent: RecentSessions | None = None
        if store is None:
            store = own = MemorySessionStore(clock=self._seconds)
            recent = RecentSessions(own, self._seconds)
        self._runtime = runtime
        self._settings = settings
        self._headers = _headers_of(settings)
        self._shared_state = SharedState()
        self._registry: Registry[E] = Registry(
            store, self._expiry_clock, new_event, recent=recent, on_event=on_event
        )
        self._scope = self._scope_in(store.namespace)
        self._lifetime = Lifetime()

    def __repr__(self) -> str:
        # A traceback that prints local variables may meet a client that is only half made.
        settings: Settings[KeyCallable] | None = getattr(self, "_settings", None)
        if settings is None:
            return f"{type(self).__name__}(not configured)"
        return (
            f"{type(self).__name__}(base_url={settings.base_url!r}, "
            f"workflow_id={settings.workflow_id!r}, organization={settings.organization!r}, "
            f"project={settings.project!r})"
        )

    def __reduce__(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"A {name} holds connections and an API key, and can be neither copied nor pickled: "
            f"make one {name} per process. For other settings, use `with_options`."
        )

    def _derive(
        self,
        *,
        api_key: SecretStr | KeyCallable | NotGiven,
        workflow_id: str | NotGiven | None,
        organization: str | NotGiven | None,
        project: str | NotGiven | None,
        timeout: float | NotGiven | None,
        max_retries: int | RetryPolicy | NotGiven,
        store: SessionStore | AsyncSessionStore | NotGiven,
    ) -> Self:
        """A client with other settings on the same connections."""
        settings = self._settings
        if not isinstance(api_key, NotGiven):
            settings = replace(settings, api_key=validate_key_source(api_key, "`api_key`"))
            if (
                api_key != self._settings.api_key
                and self._scope.key is None
                and isinstance(store, NotGiven)
            ):
                raise ConfigurationError(
                    "With another `api_key`, say in which store its sessions belong: pass `store`, "
                    "with a namespace of the tenant's own.",
                    hint="A namespace stands for one tenant: users of two may have the same id. If "
                    "the key is the same tenant's, pass the same store.",
                )
        if not isinstance(workflow_id, NotGiven):
            settings = replace(settings, workflow_id=workflow_id)
        if not isinstance(organization, NotGiven):
            settings = replace(settings, organization=_header(organization, "`organization`"))
        if not isinstance(project, NotGiven):
            settings = replace(settings, project=_header(project, "`project`"))
        if not isinstance(timeout, NotGiven):
            settings = replace(settings, timeout=validate_timeout(timeout))
        if not isinstance(max_retries, NotGiven):
            settings = replace(settings, retry_policy=as_retry_policy(max_retries))
        clone = object.__new__(type(self))
        vars(clone).update(vars(self))
        clone._become(settings, store)
        return clone

    def _become(
        self,
        settings: Settings[KeyCallable],
        store: SessionStore | AsyncSessionStore | NotGiven,
    ) -> None:
        """Turn a copy into a client of its own, which closes with the one it was copied from."""
        namespace = self._scope.namespace
        if not isinstance(store, NotGiven):
            namespace = store.namespace
            self._registry = self._registry.of(store)
        self._settings = settings
        self._headers = _headers_of(settings)
        self._scope = self._scope_in(namespace)
        self._lifetime = Lifetime(self._lifetime)

    def _scope_in(self, namespace: str) -> Scope:
        """Who shares sessions with this client, in a store of that namespace."""
        settings = self._settings
        return Scope(
            base_url=settings.base_url,
            organization=settings.organization,
            project=settings.project,
            namespace=namespace,
            # In this process, what one tenant sees must not reach another, of another key.
            key=None if namespace else self._shared_state.scope_of_key(settings.api_key),
        )

    def _check_open(self, last_error: Exception | None = None) -> None:
        """Send nothing more once the client is closed; a call that has failed is not repeated."""
        if self._lifetime.closed:
            raise last_error or RuntimeError(
                f"This {type(self).__name__} is closed. Keep one open for as long as the process "
                "makes calls, or open it again: `with`, `async with`."
            )

    def _deadline(self, timeout: float | NotGiven | None) -> Deadline:
        seconds = (
            self._settings.timeout
            if isinstance(timeout, NotGiven)
            else validate_call_timeout(timeout)
        )
        return Deadline.after(seconds, self._monotonic)

    def _workflow_id(self, argument: str | None) -> str:
        if argument is None:
            return require_workflow_id(self._settings.workflow_id)
        return validate_workflow_id(argument)

    def _monotonic(self) -> float:
        return self._runtime.monotonic()

    def _expiry_clock(self) -> float:
        return self._runtime.expiry_clock()


def client_closed_error() -> APIConnectionError:
    """The error for a call whose client is closed while it is under way."""
    return APIConnectionError(
        "The client was closed while the call was under way.",
        hint="Close a client when no call needs it any more, such as at the end of the process.",
    )


def _headers_of(settings: Settings[KeyCallable]) -> CommonHeaders | None:
    """What every request carries; None where a callable returns the key."""
    key = settings.api_key
    return common_headers(settings, key) if isinstance(key, SecretStr) else None


def _header(value: str | None, source: str) -> str | None:
    return None if value is None else validate_header(value, source)
