"""What the docs' code may leave behind."""

import asyncio
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _event_loop_that_mangum_makes() -> Iterator[None]:
    """Mangum makes an event loop for its thread, as Lambda wants it, and never closes it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on, where there is none
        try:
            loop = asyncio.get_event_loop()
        except RuntimeError:
            return
    loop.close()
    asyncio.set_event_loop(None)
