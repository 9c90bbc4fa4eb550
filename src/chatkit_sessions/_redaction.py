"""Take secrets out of text that somebody may read: messages, logs, reprs, dumps."""

import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from pydantic import JsonValue, SecretStr

MASK: Final = "**********"

# API keys begin with `sk-`, client secrets with `ek_`; the API's own half-masked form of a key
# (`sk-ab****wxyz`) still tells eight of its characters.
_SHAPED_LIKE_A_SECRET = re.compile(r"(?<![A-Za-z0-9])(sk-|ek_)[A-Za-z0-9_*.\-]*[A-Za-z0-9_*\-]")
_NAMED_LIKE_A_SECRET = re.compile(r"secret|token|key", re.IGNORECASE)


def redact(text: str, secrets: Iterable[SecretStr] = ()) -> str:
    """Return `text` without the given secrets and without anything shaped like one."""
    for secret in secrets:
        for spelling in _spellings(secret.get_secret_value()):
            text = text.replace(spelling, MASK)
    return _SHAPED_LIKE_A_SECRET.sub(r"\1***", text)


def redact_json(value: JsonValue, secrets: Iterable[SecretStr] = ()) -> JsonValue:
    """Return a copy of `value` with every string redacted and every secret-like name masked."""
    secrets = tuple(secrets)
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, list):
        return [redact_json(item, secrets) for item in value]
    if isinstance(value, dict):
        return {
            redact(name, secrets): (
                MASK if item is not None and names_a_secret(name) else redact_json(item, secrets)
            )
            for name, item in value.items()
        }
    return value


def names_a_secret(name: str) -> bool:
    """Whether a field of this name is taken to hold a secret."""
    return _NAMED_LIKE_A_SECRET.search(name) is not None


def is_masked(secret: str) -> bool:
    """Whether this is what a mask leaves behind, such as a dump that was read back."""
    return secret != "" and set(secret) == {"*"}


class MaskedBytes(bytes):
    """A request body that shows only its length, in a traceback with local variables too."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


class MaskedHeaders(dict[str, str]):
    """Request headers that show only their names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


def _spellings(secret: str) -> list[str]:
    """How a secret may stand in a text: as it is, inside JSON, inside a URL. Longest first."""
    if not secret:
        return []
    forms = {secret, json.dumps(secret)[1:-1], quote(secret, safe="", errors="replace")}
    return sorted(forms, key=len, reverse=True)
