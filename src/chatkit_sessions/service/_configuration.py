"""Validating a service's arguments."""

import hmac
import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, TypeAlias, cast

from pydantic import SecretStr

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError, InvalidRequestError

from ._records import digest

DEFAULT_PROJECT: Final = "default"
_KEY: Final = re.compile(r"[!-~]+")
_MIN_KEY_LENGTH: Final = 16
# `sk-…` and `ek_…`, random base64, and 160 random bits or more in hexadecimal.
_LIKE_A_KEY: Final = re.compile(
    r"(?:sk-|ek_)[!-~]{13,}"
    r"|(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9])[A-Za-z0-9_+/=\-]{32,}"
    r"|[0-9a-fA-F]{40,}"
)
_KEYS_HINT: Final = (
    'The key comes first, then its project: `api_keys={"sk-…": "shop"}`. '
    "`secrets.token_urlsafe(32)` makes a key."
)

ConcealedKeys: TypeAlias = Sequence[tuple[SecretStr | None, SecretStr | None]] | None


def conceal_keys(api_keys: object) -> ConcealedKeys:
    """Wrap keys and projects as SecretStr, before any validation.

    A traceback has the local variables of its frames, and many error reports print them. A project
    may be a key, too, if somebody confused the two.

    Returns:
        Each key with its project, None in place of what is no string; None if `api_keys` is not a
        collection.
    """
    if isinstance(api_keys, str | bytes | SecretStr) or not isinstance(api_keys, Iterable):
        return None
    if isinstance(api_keys, Mapping):
        projects = cast("Mapping[object, object]", api_keys)
        return [(_conceal(key), _conceal(project)) for key, project in projects.items()]
    default = SecretStr(DEFAULT_PROJECT)
    return [(_conceal(key), default) for key in cast("Iterable[object]", api_keys)]


def _conceal(text: object) -> SecretStr | None:
    if isinstance(text, str):
        return SecretStr(text)
    return text if isinstance(text, SecretStr) else None


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
    if len(key) < _MIN_KEY_LENGTH:
        raise ConfigurationError(
            f"Each of `api_keys` must have {_MIN_KEY_LENGTH} characters or more, and one has "
            f"{len(key)}.",
            hint=_KEYS_HINT,
        )
    return key


def _validate_project(project: SecretStr | None) -> str:
    if not project:
        raise ConfigurationError("The project of each of `api_keys` must be a name.")
    if _LIKE_A_KEY.fullmatch(project.get_secret_value()):
        raise ConfigurationError("A project of `api_keys` looks like a key.", hint=_KEYS_HINT)
    return project.get_secret_value()


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


def validate_text(argument: str, value: object) -> str:
    """Reject anything but a user's id, or a project.

    Raises:
        InvalidRequestError: It is not a string, or is empty.
    """
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(
            f"`{argument}` must be a string of 1 character or more, got {safe_repr(value)}."
        )
    return value


def validate_service_store(store: object, *, asynchronous: bool) -> None:
    """Reject anything but a session store, and an async store where a sync one is expected.

    Raises:
        ConfigurationError: A method is missing, or is sync where async is expected, or vice versa.
    """
    methods = [getattr(store, name, None) for name in ("get", "names", "commit")]
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


def validate_user_limit(limit: object) -> int | None:
    """Reject anything but a number of requests, 1 or more, or None.

    Raises:
        ConfigurationError: It is none.
    """
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
        return limit
    raise ConfigurationError(
        "`max_requests_per_user_per_1_minute` must be an integer, 1 or more, or None, got "
        f"{safe_repr(limit)}."
    )
