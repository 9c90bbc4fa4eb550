"""Validating a service's arguments."""

import hmac
import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, cast

from pydantic import SecretStr

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError

from ._records import digest

DEFAULT_PROJECT: Final = "default"
_KEY: Final = re.compile(r"[!-~]+")


ConcealedKeys: TypeAlias = Sequence[tuple[SecretStr | None, object]] | None


def conceal_keys(api_keys: object) -> ConcealedKeys:
    """Wrap the keys as SecretStr, before any validation.

    A traceback has the local variables of its frames, and many error reports print them.

    Returns:
        Each key with its project, None in place of a key of another type; None if `api_keys` is
        not a collection.
    """
    if isinstance(api_keys, str | bytes | SecretStr) or not isinstance(api_keys, Iterable):
        return None
    if isinstance(api_keys, Mapping):
        projects = cast("Mapping[object, object]", api_keys)
        return [(_conceal(key), project) for key, project in projects.items()]
    return [(_conceal(key), DEFAULT_PROJECT) for key in cast("Iterable[object]", api_keys)]


def _conceal(key: object) -> SecretStr | None:
    if isinstance(key, str):
        return SecretStr(key)
    return key if isinstance(key, SecretStr) else None


class ApiKeys:
    """The accepted API keys, as digests.

    Args:
        keys: The result of `conceal_keys`.

    Raises:
        ConfigurationError: A key or a project is invalid.
    """

    def __init__(self, keys: ConcealedKeys) -> None:
        if keys is None:
            raise ConfigurationError(
                "`api_keys` must be a collection of keys, or a mapping of keys to projects."
            )
        self._projects: Final = [
            (digest(_validate_key(key)), _validate_project(project)) for key, project in keys
        ]

    def find_project(self, api_key: SecretStr) -> str | None:
        """Return the key's project; None if the key is unknown."""
        presented, found = digest(api_key), None
        for known, project in self._projects:  # all of them, whichever is equal
            if hmac.compare_digest(known, presented):
                found = project
        return found


def _validate_key(key: SecretStr | None) -> SecretStr:
    # A header can carry it, as one word.
    if key is None or not _KEY.fullmatch(key.get_secret_value()):
        raise ConfigurationError(
            "Each of `api_keys` must be a string of printable ASCII characters without spaces."
        )
    return key


def _validate_project(project: object) -> str:
    if not isinstance(project, str) or not project:
        raise ConfigurationError(
            f"The project of each of `api_keys` must be a name, got {safe_repr(project)}."
        )
    return project


def validate_workflows(workflows: Collection[object] | None) -> frozenset[str] | None:
    """Reject anything but a collection of workflow ids.

    Raises:
        ConfigurationError: It is a single string, or an element is not a string.
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
    """Reject anything but a session store, and an async store where a sync one is expected.

    Raises:
        ConfigurationError: A method is missing, or is sync where async is expected, or vice versa.
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
