"""Recorded requests, and responses that may have a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chatkit_sessions.service._bodies import JsonValue, decode_json, encode_json
from chatkit_sessions.service._rules import Headers, ServiceRequest, ServiceResponse

if TYPE_CHECKING:
    from .faults import Fault

__all__ = [
    "FakeResponse",
    "Headers",
    "JsonValue",
    "RecordedRequest",
    "ServiceRequest",
    "decode_json",
    "encode_json",
]


class RecordedRequest(ServiceRequest):
    """A request that the local API received."""

    __slots__ = ()

    def __post_init__(self) -> None:
        # Plain bytes, which a failed assertion shows.
        object.__setattr__(self, "body", bytes(self.body))

    @property
    def json(self) -> JsonValue:
        """The body as JSON; None if it is not JSON."""
        try:
            return decode_json(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class FakeResponse(ServiceResponse):
    """A response, ready to be sent.

    Attributes:
        fault: The fault of the connection; None: no fault.
    """

    fault: Fault | None = field(default=None, repr=False)
