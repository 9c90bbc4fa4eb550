"""Bodies of create requests that the API accepts, and others that it rejects."""

from typing import Any

MINIMAL: dict[str, Any] = {"user": "alice", "workflow": {"id": "wf_test"}}
EMPTY_OPTIONS: dict[str, Any] = {"rate_limits": {}, "chatkit_configuration": {"history": {}}}
EVERYTHING: dict[str, Any] = {
    "user": "alice",
    "workflow": {
        "id": "wf_test",
        "version": "3",
        "state_variables": {"text": "é", "whole": 1, "decimal": 1.5, "flag": False},
        "tracing": {"enabled": False},
    },
    "expires_after": {"anchor": "created_at", "seconds": 60},
    "rate_limits": {"max_requests_per_1_minute": 7},
    "chatkit_configuration": {
        "automatic_thread_titling": {"enabled": False},
        "file_upload": {"enabled": True, "max_file_size": 16, "max_files": 2},
        "history": {"enabled": True, "recent_threads": 5},
    },
}

ACCEPTED: list[dict[str, Any]] = [
    MINIMAL,
    EVERYTHING,
    MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": 300.0}},
    MINIMAL | EMPTY_OPTIONS,
    {"user": "alice", "workflow": {"id": "wf_test", "state_variables": {}}},
    MINIMAL | {"chatkit_configuration": {"file_upload": {"enabled": True}}},
]
NAMES_OF_ACCEPTED = [
    "minimal",
    "everything",
    "whole decimal",
    "empty options",
    "no variables",
    "uploads",
]

REJECTED: list[Any] = [
    [],
    {},
    {"user": "alice"},
    {"workflow": {"id": "wf_test"}},
    {"user": "alice", "workflow": {}},
    {"user": "alice", "workflow": "wf_test"},
    {"user": "alice", "workflow": {"id": "wf_test", "version": 3}},
    {"user": "alice", "workflow": {"id": "wf_test", "tracing": {"enabled": "no"}}},
    {"user": "alice", "workflow": {"id": "wf_test", "state_variables": {"a": None}}},
    {"user": "alice", "workflow": {"id": "wf_test", "state_variables": {"a": [1]}}},
    {
        "user": "alice",
        "workflow": {"id": "wf_test", "state_variables": {f"n{n}": n for n in range(65)}},
    },
    MINIMAL | {"user": ""},
    MINIMAL | {"user": {"id": "alice"}},
    MINIMAL | {"user": None},
    MINIMAL | {"scope": {"user_id": "alice"}},
    MINIMAL | {"expires_after": 600},
    MINIMAL | {"expires_after": {"seconds": 60}},
    MINIMAL | {"expires_after": {"anchor": "created_at"}},
    MINIMAL | {"expires_after": {"anchor": "now", "seconds": 60}},
    MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": 0}},
    MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": 601}},
    MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": 1.5}},
    MINIMAL | {"expires_after": {"anchor": "created_at", "seconds": True}},
    MINIMAL | {"rate_limits": {"max_requests_per_1_minute": 0}},
    MINIMAL | {"rate_limits": {"max_requests_per_session": 10}},
    MINIMAL | {"chatkit_configuration": None},
    MINIMAL | {"chatkit_configuration": {"file_upload": {"max_file_size": 0}}},
    MINIMAL | {"chatkit_configuration": {"file_upload": {"max_file_size": 513}}},
    MINIMAL | {"chatkit_configuration": {"file_upload": {"max_files": 0}}},
    MINIMAL | {"chatkit_configuration": {"history": {"recent_threads": 0}}},
    MINIMAL | {"chatkit_configuration": {"automatic_thread_titling": True}},
]
