"""Validating what a service is given."""

import hmac
import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Final, cast

from pydantic import SecretStr

from chatkit_sessions._redaction import safe_repr, with_article
from chatkit_sessions.errors import ConfigurationError

from ._records import digest

DEFAULT_PROJECT: Final = "default"


class ApiKeys:
    """The keys that open the routes, as digests.

    Args:
        api_keys: The keys, or a mapping of each to its project.

    Raises:
        ConfigurationError: They cannot be used.
    """

    def __init__(self, api_keys: Mapping[str, str] | Iterable[str | SecretStr]) -> None:
        if isinstance(api_keys, str | bytes | SecretStr):
            raise ConfigurationError(
                "`api_keys` must be a collection of keys or a mapping of keys to projects, got "
                f"{with_article(type(api_keys).__name__)}."
            )
        projects = cast(
            "Mapping[object, object]",
            api_keys if isinstance(api_keys, Mapping) else dict.fromkeys(api_keys, DEFAULT_PROJECT),
        )
        self._projects: Final = [
            (digest(_validate_key(key)), _validate_project(project))
            for key, project in projects.items()
        ]

    def find_project(self, api_key: SecretStr) -> str | None:
        """Return the key's project; None if the key is unknown."""
        presented, found = digest(api_key), None
        for known, project in self._projects:  # all of them, whichever is equal
            if hmac.compare_digest(known, presented):
                found = project
        return found


def _validate_key(key: object) -> SecretStr:
    secret = key if isinstance(key, SecretStr) else SecretStr(key if isinstance(key, str) else "")
    text = secret.get_secret_value()
    if not text.isascii() or not text.isprintable() or not text.strip() or " " in text:
        del key, text  # local variables are part of tracebacks
        raise ConfigurationError(
            "Each of `api_keys` must be a string of printable ASCII characters without spaces."
        )
    return secret


def _validate_project(project: object) -> str:
    if not isinstance(project, str) or not project:
        raise ConfigurationError(
            f"The project of each of `api_keys` must be a name, got {safe_repr(project)}."
        )
    return project


def validate_workflows(workflows: Collection[object] | None) -> frozenset[str] | None:
    """Refuse a collection that does not hold workflow ids.

    Raises:
        ConfigurationError: It is a single string, or holds something else than strings.
    """
    if workflows is None:
        return None
    if isinstance(workflows, str | bytes):
        raise ConfigurationError(
            f"`workflows` must be a collection of ids, such as {{'support'}}, got "
            f"{safe_repr(workflows)}."
        )
    for each in workflows:
        if not isinstance(each, str) or not each:
            raise ConfigurationError(
                f"Each of `workflows` must be an id, such as 'support', got {safe_repr(each)}."
            )
    return frozenset(map(str, workflows))


def validate_service_store(store: object, *, asynchronous: bool) -> None:
    """Refuse what is not a session store, or is one for the other service.

    Raises:
        ConfigurationError: It lacks a method, or has it as the other kind of function.
    """
    methods = [getattr(store, name, None) for name in ("get", "commit")]
    if not all(callable(method) for method in methods) or isinstance(store, type):
        raise ConfigurationError(
            "`store` must be a session store, such as those of chatkit_sessions.stores, got "
            f"{safe_repr(store)}."
        )
    if any(inspect.iscoroutinefunction(method) != asynchronous for method in methods):
        service = "AsyncSessionsService" if asynchronous else "SessionsService"
        raise ConfigurationError(
            f"{service} needs a store whose methods are "
            f"{'async' if asynchronous else 'plain'} functions, got {safe_repr(store)}."
        )
