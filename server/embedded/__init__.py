"""Redis and Postgres for development and tests: real servers, run in the foreground under our supervision."""

from server.embedded.child import EmbeddedError
from server.embedded.postgres import EmbeddedPostgres
from server.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]
