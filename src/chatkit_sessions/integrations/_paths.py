"""The prefix and the paths of the routes."""

import re
from typing import Final, NamedTuple

from chatkit_sessions._redaction import safe_repr
from chatkit_sessions.errors import ConfigurationError

# Frameworks write variables in braces or angle brackets: `/tenants/{tenant}/chatkit`.
_SEGMENTS: Final = re.compile(r"(/(?!\.\.?(/|$))[^\s/?#%\\]+)+")
_VARIABLE: Final = re.compile(r"[{}<>]")


class Paths(NamedTuple):
    """The paths of the routes, below the prefix."""

    session: str
    refresh: str

    @property
    def by_id(self) -> str:
        """The path of one session; `{session_id}` is a variable."""
        return f"{self.session}/{{session_id}}"

    def route_of(self, path: str) -> tuple[str, str]:
        """The route of a path, and the session id in it; each empty if there is none."""
        if path in self:
            return path, ""
        start, session_id = path[: len(self.session) + 1], path[len(self.session) + 1 :]
        if start == f"{self.session}/" and session_id and "/" not in session_id:
            return self.by_id, session_id
        return "", ""


def validate_prefix(prefix: object) -> str:
    """The prefix with a leading slash and without a trailing one; it may be empty.

    Raises:
        ConfigurationError: The prefix is not a valid path.
    """
    path = prefix.strip("/") if isinstance(prefix, str) else None
    return "" if path == "" else _validate(path and f"/{path}", "prefix", prefix)


def validate_paths(session: object, refresh: object) -> Paths:
    """The paths of the routes.

    Raises:
        ConfigurationError: A path is invalid or has a variable, or both are the same.
    """
    paths = Paths(
        _validate(session, "session_path", session), _validate(refresh, "refresh_path", refresh)
    )
    variable = next((path for path in paths if _VARIABLE.search(path)), None)
    if variable is not None:
        raise ConfigurationError(
            f"`session_path` and `refresh_path` must not have variables, "
            f"got {safe_repr(variable)}.",
            hint="Put the variables into `prefix`.",
        )
    if paths.session == paths.refresh:
        raise ConfigurationError(
            f"`session_path` and `refresh_path` must differ, got {safe_repr(session)} for both."
        )
    return paths


def _validate(path: object, setting: str, given: object) -> str:
    if not isinstance(path, str) or _SEGMENTS.fullmatch(path) is None:
        raise ConfigurationError(
            f"`{setting}` must be a path such as /api/chatkit, without white space, `//`, `?`, "
            f"`#` or `%`, got {safe_repr(given)}."
        )
    return path
