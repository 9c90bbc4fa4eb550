"""A shop whose customers have a chat, in Django."""
