"""Whether calls are watched or mocked: seen before each call, from what is patched."""

import importlib
import sys
from collections.abc import Callable
from functools import partial, wraps
from unittest.mock import Mock

import httpx
import pytest

from chatkit_sessions._http.own_client import HTTPCORE, WATCHED, Names, is_patched, is_watched

METHODS = sorted({*WATCHED[False], *WATCHED[True]})


def wrapped(method: Callable[..., object]) -> Callable[..., object]:
    """As OpenTelemetry and others do; such a function names the module of what it wraps."""

    @wraps(method)
    def wrapper(*args: object, **kwargs: object) -> object:
        return method(*args, **kwargs)

    return wrapper


class Equal:
    """As wrapt's wrappers, which call themselves equal to what they wrap."""

    def __init__(self, method: Callable[..., object]) -> None:
        self._method = method

    def __eq__(self, other: object) -> bool:
        return other is self._method

    def __hash__(self) -> int:
        return hash(self._method)


def foreign(_: Callable[..., object]) -> Callable[..., object]:
    return lambda *_: None


def mocked(_: Callable[..., object]) -> Callable[..., object]:
    return Mock()


@pytest.mark.parametrize("method", METHODS, ids=".".join)
def test_each_patched_method_is_seen_until_it_is_its_own_again(
    method: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, kind, name = method
    owner = getattr(sys.modules[package], kind)
    before = is_watched(is_async=False), is_watched(is_async=True)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, foreign(getattr(owner, name)))
        patched = is_watched(is_async=False), is_watched(is_async=True)

    assert before == (False, False)
    assert patched == (method in WATCHED[False], method in WATCHED[True])
    assert (is_watched(is_async=False), is_watched(is_async=True)) == (False, False)


@pytest.mark.parametrize("patch", [wrapped, Equal, partial, foreign, mocked])
def test_each_kind_of_patch_is_seen(
    patch: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_watched(is_async=False)

    monkeypatch.setattr(httpx.Client, "send", patch(httpx.Client.send))

    assert is_watched(is_async=False)
    assert not is_patched(HTTPCORE[False])


@pytest.mark.parametrize("names", [WATCHED[False], WATCHED[True]], ids=["sync", "async"])
def test_nobody_watches_packages_that_nobody_has_imported(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "httpx")
    monkeypatch.delitem(sys.modules, "httpcore")

    assert not is_patched(names)


class Hook:
    """An import hook, such as New Relic's and Datadog's, that may wait for httpx."""

    def find_spec(self, *_: object) -> None: ...


def test_only_a_hook_that_may_wait_for_them_imports_httpx_and_httpcore(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported: list[str] = []
    monkeypatch.setattr(importlib, "import_module", imported.append)
    harmless = [each for each in sys.meta_path if not is_of_pytest(each)]
    monkeypatch.setattr(sys, "meta_path", harmless)
    is_watched(is_async=False)
    assert imported == []

    monkeypatch.setattr(sys, "meta_path", [*harmless, Hook()])
    is_watched(is_async=False)
    is_watched(is_async=False)
    assert imported == ["httpx", "httpcore"]


def is_of_pytest(hook: object) -> bool:
    return type(hook).__module__.startswith("_pytest")
