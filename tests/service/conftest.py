from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest

from services import BlockingService, Services
from support import Kind
from workers import STORE_KINDS, StoreKind


@pytest.fixture(params=STORE_KINDS)
def services(request: pytest.FixtureRequest, kind: Kind) -> Iterator[Services]:
    """Services over both stores; every test that uses it runs for both kinds of service, too."""
    store_kind = cast("StoreKind", request.param)
    server = request.getfixturevalue("redis_server") if store_kind == "redis" else None
    with ExitStack() as stack:
        yield Services(kind, store_kind, server, stack)


@pytest.fixture
def service(services: Services) -> BlockingService:
    return services()
