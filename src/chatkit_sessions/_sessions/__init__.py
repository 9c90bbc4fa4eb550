"""One session per user: what is kept of sessions in a store, as plain values, and one registry.

A user's group in the store holds

    secret:<slot>       the session that `get_or_create_session` returns, until it expires
    reused:<slot>       that there was one, for a day longer: a refresh then replaces it
    shared:<secret>     that a secret, named by its digest, belongs to one of those
    lease:<slot>        who creates the next one at the moment
    session:<id>        which sessions the user has, until a day after their expiry
    generation          the last sign-out: what was begun before it must not be kept
    requests            how many of the endpoint's requests each second of the last minute had

and a session's group holds `record`: what `get_session` returns of it, without secret or state.
"""
