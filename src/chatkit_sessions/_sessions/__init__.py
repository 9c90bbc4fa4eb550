"""One session per user: identities, records as plain values, the rate limit, the registry."""
