"""Arguments and environment → one frozen `Settings`, or a `ConfigurationError` that helps."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import SecretStr

from chatkit_sessions.errors import ConfigurationError

from .retry_policy import RetryPolicy
from .validation import (
    as_retry_policy,
    as_secret,
    problem_with_id,
    validate_base_url,
    validate_header,
    validate_key_source,
    validate_timeout,
)

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
DEFAULT_TIMEOUT: Final = 30.0
DEFAULT_MAX_RETRIES: Final = 2

KEY_VARIABLE: Final = "OPENAI_API_KEY"
WORKFLOW_VARIABLE: Final = "OPENAI_CHATKIT_WORKFLOW_ID"
URL_VARIABLE: Final = "OPENAI_BASE_URL"

OTHER_NAMES: Final = {
    KEY_VARIABLE: ("OPENAI_KEY", "OPENAI_API_TOKEN", "CHATKIT_API_KEY"),
    WORKFLOW_VARIABLE: (
        "CHATKIT_WORKFLOW_ID",
        "NEXT_PUBLIC_CHATKIT_WORKFLOW_ID",
        "VITE_CHATKIT_WORKFLOW_ID",
        "OPENAI_WORKFLOW_ID",
        "WORKFLOW_ID",
    ),
    URL_VARIABLE: ("OPENAI_API_BASE", "CHATKIT_API_BASE", "VITE_CHATKIT_API_BASE"),
}
"""What OpenAI's starter apps, older SDKs and other projects call these variables."""

KeyFunction: TypeAlias = Callable[[], object]
"""Returns the key; that of the async client may be async."""


class NotGiven(Enum):
    """The type of `NOT_GIVEN`, the default of arguments for which None has another meaning."""

    NOT_GIVEN = "NOT_GIVEN"

    def __repr__(self) -> str:
        return self.value


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A client's settings."""

    api_key: SecretStr | KeyFunction = field(repr=False)
    workflow_id: str | None
    base_url: str
    organization: str | None
    project: str | None
    timeout: float | None
    retry_policy: RetryPolicy
    unread_url: str = ""
    """Follows the host in messages, if the variable is set under another name."""

    @property
    def host(self) -> str:
        """The host and port that calls go to, for messages."""
        return urlsplit(self.base_url).netloc + self.unread_url

    def changed(
        self,
        *,
        api_key: SecretStr | KeyFunction | NotGiven,
        workflow_id: str | NotGiven | None,
        organization: str | NotGiven | None,
        project: str | NotGiven | None,
        timeout: float | NotGiven | None,
        max_retries: int | RetryPolicy | NotGiven,
    ) -> "Settings":
        """Return the settings with those that are given replaced.

        Raises:
            ConfigurationError: A setting is malformed.
        """
        settings = self
        if not isinstance(api_key, NotGiven):
            settings = replace(settings, api_key=validate_key_source(api_key, "`api_key`"))
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
        return settings


def load_settings(
    *,
    api_key: SecretStr | KeyFunction | None,
    workflow_id: str | None,
    base_url: str | None,
    organization: str | None,
    project: str | None,
    timeout: float | None,
    max_retries: int | RetryPolicy,
    allow_insecure_http: bool,
    getenv: Callable[[str], str | None] = os.getenv,
) -> Settings:
    """Take each setting from its argument, else from its variable, else from its default.

    An empty variable counts as one that is not set: `docker compose` and CI systems leave it empty.

    Raises:
        ConfigurationError: A setting is missing or malformed. The workflow id is validated only
            when a call needs it.
    """
    key = api_key if api_key is not None else as_secret(getenv(KEY_VARIABLE) or None)
    if key is None:
        unread = describe_unread(KEY_VARIABLE, getenv)
        raise ConfigurationError(
            f"No API key: set {KEY_VARIABLE} or pass `api_key`{unread}.",
            hint="Create one at https://platform.openai.com/api-keys in the workflow's project. To "
            "make the client before a key is there (CI, image builds, management commands), pass a "
            "function that returns the key: `api_key=load_key`.",
        )
    url_source = "`base_url`" if base_url is not None else URL_VARIABLE
    url = base_url if base_url is not None else getenv(URL_VARIABLE) or DEFAULT_BASE_URL
    return Settings(
        api_key=validate_key_source(key, "`api_key`" if api_key is not None else KEY_VARIABLE),
        workflow_id=workflow_id if workflow_id is not None else getenv(WORKFLOW_VARIABLE) or None,
        base_url=validate_base_url(url, url_source, allow_insecure_http=allow_insecure_http),
        organization=_header_setting(organization, "organization", "OPENAI_ORG_ID", getenv),
        project=_header_setting(project, "project", "OPENAI_PROJECT_ID", getenv),
        timeout=validate_timeout(timeout),
        retry_policy=as_retry_policy(max_retries),
        unread_url=describe_unread(URL_VARIABLE, getenv) if base_url is None else "",
    )


def describe_unread(variable: str, getenv: Callable[[str], str | None] = os.getenv) -> str:
    """Name the variable that is set under another project's name, if ours is not set."""
    if not getenv(variable):
        for name in OTHER_NAMES[variable]:
            if getenv(name):
                return f" ({name} is set, but not read)"
    return ""


def _header_setting(
    value: str | None, name: str, variable: str, getenv: Callable[[str], str | None]
) -> str | None:
    if value is not None:
        return validate_header(value, f"`{name}`")
    return _header(getenv(variable) or None, variable)


def _header(value: str | None, source: str) -> str | None:
    return None if value is None else validate_header(value, source)


def require_workflow_id(workflow_id: str | None) -> str:
    """Return the client's workflow id, for a call that needs it.

    Raises:
        ConfigurationError: The workflow id is missing or malformed.
    """
    if workflow_id is None:
        raise ConfigurationError(
            f"No workflow id: set {WORKFLOW_VARIABLE}, or pass `workflow_id` to the client or to "
            f"the call{describe_unread(WORKFLOW_VARIABLE)}.",
            hint="A service of `chatkit_sessions.service` has the ids in its `workflows`: pass one "
            "to `service.client`, or to the call. OpenAI's hosted workflows begin with `wf_`.",
        )
    problem = problem_with_id(workflow_id)
    if problem is not None:
        raise ConfigurationError(f"{WORKFLOW_VARIABLE} or the client's `workflow_id` {problem}.")
    return workflow_id
