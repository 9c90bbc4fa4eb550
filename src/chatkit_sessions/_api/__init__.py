"""The ChatKit sessions API as pure functions: arguments to request, response to model or error."""
