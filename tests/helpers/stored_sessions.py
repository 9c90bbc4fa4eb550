"""Values that the tests of `_sessions` share."""

from chatkit_sessions import ChatKitSessionResponse
from chatkit_sessions._redaction import MaskedBytes
from chatkit_sessions._sessions.entries import DAY, CreatedSession, Lease, SessionRecord, publish
from chatkit_sessions._sessions.identity import Identity, Scope
from chatkit_sessions.stores import Entry
from support import NOON, SECRET, session_json

SCOPE = Scope(
    base_url="https://chatkit.test/v1",
    organization=None,
    project=None,
    namespace="shop",
    key=None,
)
IDENTITY = Identity(SCOPE, "user_123", b"{}")
LEASE = Lease(b"me")
RECORD_GROUP = SCOPE.group_of_session("cksess_new")
SESSION = ChatKitSessionResponse.model_validate(
    session_json(client_secret=SECRET, request_id="req_1", answered_at="2026-11-22T12:00:00Z")
)


def entry(text: str | bytes, seconds: float = 600.0) -> Entry:
    return Entry(MaskedBytes(text.encode() if isinstance(text, str) else text), seconds)


def created(
    session: ChatKitSessionResponse = SESSION, *, works_until: float = 600.0
) -> CreatedSession:
    return CreatedSession(
        session, RECORD, RECORD_GROUP, IDENTITY, works_until, record_ttl=DAY + 600, share=True
    )


RECORD = SessionRecord(
    id="cksess_new",
    user="user_123",
    workflow_id="wf_test",
    workflow_version=None,
    expires_at=NOON,
    status="active",
    group=IDENTITY.group,
    slot=IDENTITY.slot,
)


def stored(session: ChatKitSessionResponse = SESSION, *, generation: bytes | None = None) -> Entry:
    """A session as it lies in a store."""
    changes = publish(created(session), generation=generation, lease=LEASE, now=0.0).changes
    secret = changes[f"secret:{IDENTITY.slot}"]
    assert secret is not None
    return secret
