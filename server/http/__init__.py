"""The HTTP API: routes, authentication, problem details."""
