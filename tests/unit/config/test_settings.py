"""Arguments before environment before defaults, and every flaw named without quoting the key."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st
from pydantic import SecretStr

from chatkit_sessions._config.retry_policy import RetryPolicy
from chatkit_sessions._config.settings import (
    DEFAULT_BASE_URL,
    NOT_GIVEN,
    Settings,
    load_settings,
    require_workflow_id,
)
from chatkit_sessions._config.validation import (
    as_retry_policy,
    as_secret,
    is_loopback,
    problem_with_id,
    problem_with_timeout,
    reject_awaitable,
    validate_base_url,
    validate_header,
    validate_key,
    validate_key_source,
    validate_timeout,
)
from chatkit_sessions.errors import ChatKitError, ConfigurationError
from support_unit import rendered

KEY = "sk-test-Abcdef0123456789"
KeyFunction = Callable[[], str]

ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-from-environment",
    "OPENAI_CHATKIT_WORKFLOW_ID": "wf_environment",
    "OPENAI_BASE_URL": "https://environment.example/v1",
    "OPENAI_ORG_ID": "org-environment",
    "OPENAI_PROJECT_ID": "proj_environment",
}


def load(environment: dict[str, str] | None = None, **settings: object) -> Settings:
    arguments: dict[str, Any] = {
        "api_key": None,
        "workflow_id": None,
        "base_url": None,
        "organization": None,
        "project": None,
        "timeout": 30.0,
        "max_retries": 2,
        "allow_insecure_http": False,
        "getenv": (environment or {}).get,
        **settings,
    }
    config: Settings = load_settings(**arguments)
    return config


def key_of(config: Settings) -> str:
    assert isinstance(config.api_key, SecretStr)
    return config.api_key.get_secret_value()


class TestPrecedence:
    def test_arguments_come_before_the_environment(self) -> None:
        config = load(
            ENVIRONMENT,
            api_key=SecretStr(KEY),
            workflow_id="wf_argument",
            base_url="https://argument.example/v1",
            organization="org-argument",
            project="proj_argument",
        )

        assert key_of(config) == KEY
        assert config.workflow_id == "wf_argument"
        assert config.base_url == "https://argument.example/v1"
        assert config.organization == "org-argument"
        assert config.project == "proj_argument"

    def test_the_environment_comes_before_the_defaults(self) -> None:
        config = load(ENVIRONMENT)

        assert key_of(config) == "sk-from-environment"
        assert config.workflow_id == "wf_environment"
        assert config.base_url == "https://environment.example/v1"
        assert config.organization == "org-environment"
        assert config.project == "proj_environment"

    def test_the_defaults_need_a_key_only(self) -> None:
        config = load(api_key=SecretStr(KEY))

        assert config.base_url == DEFAULT_BASE_URL == "https://api.openai.com/v1"
        assert config.host == "api.openai.com"
        assert (config.workflow_id, config.organization, config.project) == (None, None, None)
        assert config.timeout == 30.0
        assert config.retry_policy == RetryPolicy(max_retries=2)

    def test_an_empty_variable_counts_as_one_that_is_not_set(self) -> None:
        config = load({**dict.fromkeys(ENVIRONMENT, ""), "OPENAI_API_KEY": KEY})

        assert config.base_url == DEFAULT_BASE_URL
        assert (config.workflow_id, config.organization, config.project) == (None, None, None)

    @pytest.mark.parametrize("environment", [{}, {"OPENAI_API_KEY": ""}], ids=["unset", "empty"])
    def test_without_a_key_it_says_where_one_comes_from(self, environment: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(environment)

        assert "OPENAI_API_KEY" in str(caught.value)
        assert "`api_key`" in str(caught.value)
        assert "https://platform.openai.com/api-keys" in str(caught.value)

    @pytest.mark.parametrize("name", ["OPENAI_KEY", "OPENAI_API_TOKEN", "CHATKIT_API_KEY"])
    def test_a_key_under_another_projects_name_is_mentioned(self, name: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load({name: KEY})

        assert f"pass `api_key` ({name} is set, but not read)." in caught.value.message
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("name", ["OPENAI_API_BASE", "CHATKIT_API_BASE"])
    def test_a_url_under_another_projects_name_is_mentioned_beside_the_host(
        self, name: str
    ) -> None:
        others = {name: "https://gateway.example/v1", "OPENAI_API_KEY": KEY}

        assert load(others).host == f"api.openai.com ({name} is set, but not read)"
        assert load(others, base_url="https://mine.example/v1").host == "mine.example"
        ours = {**others, "OPENAI_BASE_URL": "https://mine.example/v1"}
        assert load(ours).host == "mine.example"

    def test_by_default_the_environment_is_that_of_the_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)

        config: Settings = load_settings(
            api_key=None,
            workflow_id=None,
            base_url=None,
            organization=None,
            project=None,
            timeout=None,
            max_retries=0,
            allow_insecure_http=False,
        )

        assert key_of(config) == "sk-from-environment"
        assert config.timeout is None
        assert config.retry_policy.max_retries == 0

    @pytest.mark.parametrize(
        ("settings", "environment", "source"),
        [
            ({"api_key": SecretStr(" x")}, {}, "`api_key`"),
            ({}, {"OPENAI_API_KEY": " x"}, "OPENAI_API_KEY"),
            ({"base_url": "x"}, {"OPENAI_API_KEY": KEY}, "`base_url`"),
            ({}, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "x"}, "OPENAI_BASE_URL"),
            ({"base_url": ""}, ENVIRONMENT, "`base_url` is empty"),
            ({"organization": "a b"}, ENVIRONMENT, "`organization`"),
            ({"organization": ""}, ENVIRONMENT, "`organization` is empty"),
            ({}, {**ENVIRONMENT, "OPENAI_ORG_ID": "a b"}, "OPENAI_ORG_ID"),
            ({"project": "a b"}, ENVIRONMENT, "`project`"),
            ({}, {**ENVIRONMENT, "OPENAI_PROJECT_ID": "a b"}, "OPENAI_PROJECT_ID"),
        ],
    )
    def test_a_flaw_is_laid_at_the_door_of_its_source(
        self, settings: dict[str, object], environment: dict[str, str], source: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(environment, **settings)

        assert str(caught.value).startswith(source)

    def test_the_workflow_id_is_looked_at_only_when_a_call_needs_it(self) -> None:
        assert load(ENVIRONMENT, workflow_id=" flawed ").workflow_id == " flawed "


KEY_FLAWS = {
    "empty": ("", "is empty"),
    "blank": (" \t", "is empty"),
    "space-before": (f" {KEY}", "white space around"),
    "space-after": (f"{KEY} ", "white space around"),
    "tab-after": (f"{KEY}\t", "white space around"),
    "no-break-space": (f"{KEY}\u00a0", "white space around"),
    "line-break-after": (f"{KEY}\n", "line break"),
    "carriage-return": (f"{KEY}\r", "line break"),
    "line-break-inside": (f"{KEY}\nx", "line break"),
    "line-break-before": (f"\n{KEY}", "line break"),
    "double-quotes": (f'"{KEY}"', "quotes"),
    "single-quotes": (f"'{KEY}'", "quotes"),
    "backticks": (f"`{KEY}`", "quotes"),
    "curly-quotes": (f"\u201c{KEY}\u201d", "quotes"),
    "one-quote": (f"{KEY}'", "quotes"),
    "bearer": (f"Bearer {KEY}", "begins with `Bearer `"),
    "bearer-lower-case": (f"bearer {KEY}", "begins with `Bearer `"),
    "asterisks": ("*" * 10, "is masked"),
    "space-inside": (f"{KEY} {KEY}", "holds white space"),
    "control-character": (f"{KEY}\x07{KEY}", "control character"),
    "nul": (f"{KEY}\x00x", "control character"),
    "example": ("sk-…", "as in an example"),
    "example-in-ascii": ("sk-...", "as in an example"),
    "delete": (f"{KEY}\x7fx", "control character"),
    "not-ascii": (f"{KEY}é{KEY}", "outside ASCII"),
    "surrogate": (f"{KEY}\ud800x", "outside ASCII"),
}


def message_about(key: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        validate_key(SecretStr(key), "`api_key`")
    return str(caught.value)


KEY_MESSAGES = {message_about(key) for key, _ in KEY_FLAWS.values()}


class TestKey:
    @pytest.mark.parametrize(("key", "named"), KEY_FLAWS.values(), ids=KEY_FLAWS)
    def test_every_flaw_is_named_and_the_key_is_not(self, key: str, named: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(api_key=SecretStr(key))

        assert str(caught.value).startswith("`api_key` ")
        assert named in str(caught.value)
        assert KEY not in str(caught.value)
        assert KEY not in repr(vars(caught.value))
        assert KEY not in rendered(caught.value)

    @pytest.mark.parametrize(
        "key", [KEY, "x", "Bearer", "bearer-x", "*a*", "sk-ab****wxyz", "a" * 5000, "~!$%&{}"]
    )
    def test_what_a_header_can_carry_is_taken(self, key: str) -> None:
        assert validate_key(SecretStr(key), "`api_key`").get_secret_value() == key

    @given(st.text())
    def test_any_text_is_a_header_value_or_refused(self, key: str) -> None:
        try:
            taken = validate_key(SecretStr(key), "`api_key`")
        except ConfigurationError as error:
            assert str(error) in KEY_MESSAGES  # noqa: PT017
        else:
            value = taken.get_secret_value()
            assert value
            assert all("!" <= character <= "~" for character in value)

    @pytest.mark.parametrize("key", [None, 5, KEY, b"x", ["x"]])
    def test_a_callables_answer_must_be_a_secret_by_now(self, key: object) -> None:
        with pytest.raises(ConfigurationError) as caught:
            validate_key(key, "`api_key`")

        assert type(key).__name__ in str(caught.value)
        assert KEY not in str(caught.value)

    def test_a_callable_is_kept_and_not_asked_yet(self) -> None:
        def ask() -> str:
            raise AssertionError("asked too early")

        assert load(api_key=ask).api_key is ask

    @pytest.mark.parametrize("key", [5, b"sk-x", ["sk-x"], object()])
    def test_another_type_is_refused(self, key: object) -> None:
        with pytest.raises(ConfigurationError, match=f"not {type(key).__name__}"):
            validate_key_source(key, "`api_key`")


class TestAsSecret:
    def test_it_wraps_a_string(self) -> None:
        assert as_secret(KEY) == SecretStr(KEY)

    @pytest.mark.parametrize("other", [None, SecretStr(KEY), len, 5])
    def test_it_leaves_anything_else(self, other: object) -> None:
        assert as_secret(other) is other


class TestRefuseAwaitable:
    @pytest.mark.parametrize("key", [KEY, None, SecretStr(KEY), len])
    def test_it_lets_through_what_nobody_awaits(self, key: object) -> None:
        assert reject_awaitable(key, "api_key", owner="ChatKitClient") is key

    def test_a_coroutine_is_refused_and_closed(self) -> None:
        async def ask() -> str:
            return KEY

        coroutine = ask()
        with pytest.raises(ConfigurationError, match="AsyncChatKitClient"):
            reject_awaitable(cast("object", coroutine), "api_key", owner="ChatKitClient")

        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED

    def test_a_future_is_refused(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(ConfigurationError, match="async function"):
                reject_awaitable(loop.create_future(), "api_key", owner="ChatKitClient")
        finally:
            loop.close()


def test_the_repr_of_a_config_does_not_hold_the_key() -> None:
    def ask() -> str:
        return KEY

    assert KEY not in repr(load(api_key=SecretStr(KEY)))
    assert "api_key" not in repr(load(api_key=SecretStr(KEY)))
    assert "ask" not in repr(load(api_key=ask))
    assert "https://api.openai.com/v1" in repr(load(api_key=SecretStr(KEY)))


def test_the_sign_for_an_argument_left_out_shows_its_name() -> None:
    assert repr(NOT_GIVEN) == "NOT_GIVEN"


class TestBaseUrl:
    def check(self, url: object, *, insecure: bool = False) -> str:
        return validate_base_url(url, "`base_url`", allow_insecure_http=insecure)

    @pytest.mark.parametrize(
        ("url", "kept"),
        [
            ("https://api.openai.com/v1", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
            ("https://api.openai.com/v1//", "https://api.openai.com/v1"),
            ("https://gateway.example", "https://gateway.example"),
            ("https://gateway.example:8443/a/b", "https://gateway.example:8443/a/b"),
            ("HTTPS://GATEWAY.example/v1", "HTTPS://GATEWAY.example/v1"),
            ("https://[2001:db8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
            ("http://localhost:8000/v1", "http://localhost:8000/v1"),
            ("http://LOCALHOST/v1", "http://LOCALHOST/v1"),
            ("http://api.localhost/v1", "http://api.localhost/v1"),
            ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1"),
            ("http://127.8.8.8/v1", "http://127.8.8.8/v1"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ],
    )
    def test_a_good_one_is_kept_without_slashes_at_its_end(self, url: str, kept: str) -> None:
        assert self.check(url) == kept

    @pytest.mark.parametrize(
        ("url", "named"),
        [
            (5, "must be a string, not int"),
            (b"https://x", "must be a string, not bytes"),
            ("", "is empty"),
            ("  ", "is empty"),
            (" https://x.example", "white space around"),
            ("https://x.example\n", "line break"),
            ('"https://x.example"', "quotes"),
            ("https://x.example/a b", "holds white space"),
            ("https://exämple.com", "outside ASCII"),
            ("https://x.example/\x00", "control character"),
            ("api.openai.com/v1", "must begin with https://"),
            ("ftp://x.example", "must begin with https://"),
            ("https:///v1", "must begin with https://"),
            ("https://", "must begin with https://"),
            ("/v1", "must begin with https://"),
            ("https://[::1", "is not a URL"),
            ("https://x.example:port/v1", "is not a URL"),
            ("https://x.example:99999/v1", "is not a URL"),
            ("https://user:hunter2@x.example/v1", "credentials"),
            ("https://token@x.example/v1", "credentials"),
            ("https://x.example/v1?a=b", "query or a fragment"),
            ("https://x.example/v1?", "query or a fragment"),
            ("https://x.example/v1#a", "query or a fragment"),
        ],
    )
    def test_a_flaw_is_named(self, url: object, named: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            self.check(url)

        assert str(caught.value).startswith("`base_url` ")
        assert named in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "https://user:hunter2@x.example/v1",
            "https://user:hunter2/x@gateway.example/v1",
            "https://user:hunter2#x@gateway.example/v1",
            "https://user:hunter2?x@gateway.example/v1",
            "https://x.example/v1?key=hunter2",
        ],
    )
    def test_a_password_in_it_is_not_quoted(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            self.check(url)

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "host",
        [
            "gateway.example",
            "10.0.0.1",
            "localhost.example",
            "notlocalhost",
            "192.0.2.1",
            "[fe80::1]",
        ],
    )
    def test_plain_http_to_another_machine_needs_a_word_of_consent(self, host: str) -> None:
        url = f"http://{host}/v1"

        with pytest.raises(ConfigurationError) as caught:
            self.check(url)

        assert "plain http://" in str(caught.value)
        assert host.strip("[]") in str(caught.value)
        assert "allow_insecure_http=True" in str(caught.value)
        assert self.check(url, insecure=True) == url

    def test_consent_to_http_forgives_nothing_else(self) -> None:
        with pytest.raises(ConfigurationError, match="credentials"):
            self.check("http://user@gateway.example", insecure=True)

    @given(
        st.text()
        | st.from_regex(r"\Ahttps?://[\[\]@:/?#.a-z0-9 -]{0,30}\Z")
        | st.text("htps:/[]@?#.1").map("https://".__add__)
    )
    def test_any_text_is_a_url_or_refused(self, url: str) -> None:
        try:
            kept = self.check(url)
        except ConfigurationError:
            return
        assert kept.lower().startswith(("http://", "https://"))
        assert not kept.endswith("/")
        assert load(api_key=SecretStr(KEY), base_url=url).host


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("localhost.example", False),
        ("alocalhost", False),
        ("128.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 -- an example
        ("::", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_loopback_is_this_very_machine(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


class TestHeaderSettings:
    @pytest.mark.parametrize("value", ["org-1", "proj_1", "a/b:c"])
    def test_what_a_header_can_carry_is_taken(self, value: str) -> None:
        assert validate_header(value, "`project`") == value

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (5, "not int"),
            (None, "not NoneType"),
            ("", "is empty"),
            (" ", "is empty"),
            ("a\nb", "line break"),
            ("a\r\nX-Evil: 1", "line break"),
            (" a", "white space around"),
            ("'a'", "quotes"),
            ("a b", "white space"),
            ("é", "outside ASCII"),
            ("a\x00b", "control character"),
        ],
    )
    def test_anything_else_is_refused(self, value: object, named: str) -> None:
        with pytest.raises(ConfigurationError, match=named):
            validate_header(value, "`project`")


class TestTimeout:
    @pytest.mark.parametrize("timeout", [None, 0.001, 1, 30.0, 86_400])
    def test_seconds_or_none(self, timeout: float | None) -> None:
        assert validate_timeout(timeout) == timeout
        assert load(api_key=SecretStr(KEY), timeout=timeout).timeout == timeout

    @pytest.mark.parametrize("timeout", [0, -1, -0.0, float("nan"), float("inf"), float("-inf")])
    def test_a_number_that_is_no_duration_is_refused(self, timeout: float) -> None:
        with pytest.raises(ConfigurationError, match="more than 0 seconds and finite") as caught:
            load(api_key=SecretStr(KEY), timeout=timeout)

        assert repr(timeout) in str(caught.value)

    def test_longer_than_any_socket_or_lock_can_wait_is_refused(self) -> None:
        longest = 1_000_000

        assert longest < threading.TIMEOUT_MAX
        assert validate_timeout(longest) == longest
        with pytest.raises(ConfigurationError, match="`timeout`"):
            validate_timeout(longest * 2)

    @pytest.mark.parametrize("timeout", [True, False, "30", b"1", [1], object()])
    def test_another_type_is_refused(self, timeout: object) -> None:
        with pytest.raises(ConfigurationError, match=f"not {type(timeout).__name__}"):
            load(api_key=SecretStr(KEY), timeout=timeout)

    @pytest.mark.parametrize("timeout", [10**400, -(10**400), 10**5000], ids=["+", "-", "++"])
    def test_an_integer_beyond_every_float_is_refused(self, timeout: int) -> None:
        assert problem_with_timeout(timeout) is not None


class TestRetries:
    def test_a_policy_is_taken_as_it_is(self) -> None:
        policy = RetryPolicy(max_retries=7)

        assert as_retry_policy(policy) is policy
        assert load(api_key=SecretStr(KEY), max_retries=policy).retry_policy is policy

    @pytest.mark.parametrize("retries", [0, 1, 100])
    def test_a_number_makes_the_usual_policy(self, retries: int) -> None:
        assert as_retry_policy(retries) == RetryPolicy(max_retries=retries)

    @pytest.mark.parametrize("retries", [-1, 1.5, True, False, "2", None, float("nan")])
    def test_anything_else_is_refused(self, retries: object) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(api_key=SecretStr(KEY), max_retries=retries)

        assert "`max_retries` must be a whole number, 0 or more" in str(caught.value)
        assert repr(retries) in str(caught.value)
        assert "RetryPolicy" in str(caught.value)


class TestWorkflowId:
    def test_a_good_one_is_returned(self) -> None:
        assert require_workflow_id("wf_1") == "wf_1"

    def test_a_missing_one_is_explained(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            require_workflow_id(None)

        for name in ("OPENAI_CHATKIT_WORKFLOW_ID", "`workflow_id`", "`wf_`"):
            assert name in str(caught.value)

    @pytest.mark.parametrize(
        "name", ["CHATKIT_WORKFLOW_ID", "WORKFLOW_ID", "NEXT_PUBLIC_CHATKIT_WORKFLOW_ID"]
    )
    def test_one_under_another_projects_name_is_mentioned(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, "wf_other")

        with pytest.raises(ConfigurationError, match=rf"\({name} is set, but not read\)"):
            require_workflow_id(None)

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            ("", "is empty"),
            (" ", "is empty"),
            (" wf", "white space around"),
            ("wf\n", "line break"),
            ("'wf'", "quotes"),
            ("wf\x00a", "cannot be printed"),
            ("wf\u200ba", "cannot be printed"),
            ("wf\ud800a", "cannot be printed"),
        ],
    )
    def test_a_flaw_is_named(self, value: str, named: str) -> None:
        with pytest.raises(ConfigurationError, match="OPENAI_CHATKIT_WORKFLOW_ID") as caught:
            require_workflow_id(value)

        assert named in str(caught.value)

    @pytest.mark.parametrize("value", [None, 5, b"wf", ["wf"]])
    def test_an_identifier_is_a_string(self, value: object) -> None:
        assert problem_with_id(value) == f"must be a string, not {type(value).__name__}"

    @pytest.mark.parametrize("value", ["wf_1", "a b", "é", "🙂", "a/b"])
    def test_an_identifier_is_opaque(self, value: str) -> None:
        assert problem_with_id(value) is None


def test_every_refusal_is_an_error_of_this_library() -> None:
    assert issubclass(ConfigurationError, ChatKitError)
