"""ChatKit's sessions API on your own machine, for tests and for development.

It responds as OpenAI's API does, errors included, and needs neither a key nor a network:

    >>> from chatkit_sessions.testing import FakeChatKit
    >>> fake = FakeChatKit()
    >>> session = fake.client().create_session("ada")
    >>> fake.assert_created(user="ada", times=1)
    >>> with fake.serve() as server:
    ...     print(server.url.startswith("http://127.0.0.1:"), server.api_key, server.workflow_id)
    True sk-test wf_test

`fake.client()` calls it in process, without a socket, and so does your HTTP client with
`fake.transport()` or `fake.httpx2_transport()`. `fake.requests` and `fake.sessions` have what
happened; `fake.clock.advance(minutes=10)` lets sessions expire; `fake.fail_next(500)` makes a
request fail. `python -m chatkit_sessions.testing` serves it to other programs, and
`chatkit_sessions.testing.pytest_plugin` has fixtures for pytest.
"""

from .fake_api import FakeChatKit, FakeClock, FakeServer, FakeSession
from .wire import RecordedRequest

__all__ = ["FakeChatKit", "FakeClock", "FakeServer", "FakeSession", "RecordedRequest"]
