"""The endpoint in each framework."""

from typing import cast

import pytest

from chatkit_sessions.testing import FakeChatKit, FakeClock
from endpoint_apps import FRAMEWORKS, App, Backend, Framework
from support import NOON, Time


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return cast("Framework", request.param)


@pytest.fixture
def fake() -> FakeChatKit:
    return FakeChatKit(clock=FakeClock(start=NOON))


@pytest.fixture
def backend(framework: Framework, time: Time, fake: FakeChatKit) -> Backend:
    return Backend(framework, time, fake)


@pytest.fixture
def app(backend: Backend) -> App:
    return backend.app()
