"""How bytes travel: HTTP clients, response bodies, connection pools, networks."""
