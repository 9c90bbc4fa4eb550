"""Where pytest finds the fixtures of the kit."""

pytest_plugins = ["chatkit_sessions.testing.pytest_plugin"]
