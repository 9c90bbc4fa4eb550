"""Runs the tests with the local ChatKit API."""

import os
from contextlib import ExitStack
from unittest import mock

from django.test.runner import DiscoverRunner

from chatkit_sessions.testing import FakeChatKit

fake = FakeChatKit()


class Runner(DiscoverRunner):
    """Django's own runner, while the environment names the local API."""

    _stack = ExitStack()

    def setup_test_environment(self, **kwargs: object) -> None:
        """Serve the local API."""
        super().setup_test_environment(**kwargs)
        server = self._stack.enter_context(fake.serve())
        self._stack.enter_context(mock.patch.dict(os.environ, server.environment))

    def teardown_test_environment(self, **kwargs: object) -> None:
        """End it."""
        self._stack.close()
        super().teardown_test_environment(**kwargs)
