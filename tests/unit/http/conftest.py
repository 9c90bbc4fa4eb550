import pytest


@pytest.fixture(autouse=True)
def _no_socket_left(no_socket_left: None) -> None:
    """Every test here: whatever fails, and at whichever stage, no connection stays open."""
