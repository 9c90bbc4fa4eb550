"""Arguments and environment as frozen values: settings, the retry policy."""
