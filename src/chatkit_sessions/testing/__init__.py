"""ChatKit's sessions API on your own machine, for tests and for development.

It answers as OpenAI's API does, refusals included, without a key and without a network:

    >>> from chatkit_sessions.testing import FakeChatKit
    >>> fake = FakeChatKit()
    >>> with fake.serve() as server:
    ...     print(server.url.startswith("http://127.0.0.1:"), server.api_key, server.workflow_id)
    True sk-test wf_test

`fake.transport()` answers an httpx client in process, without a socket. What was asked stands
in `fake.requests` and `fake.sessions`; `fake.clock.advance(minutes=10)` lets sessions expire;
`fake.fail_next(500)` makes the API stumble. `python -m chatkit_sessions.testing` serves it to
whatever else you run.
"""

from .clock import FakeClock
from .fake import FakeChatKit
from .server import FakeServer
from .sessions import FakeSession
from .wire import RecordedRequest

__all__ = ["FakeChatKit", "FakeClock", "FakeServer", "FakeSession", "RecordedRequest"]
