"""The presence table: rows, migrations, the flush from Redis to Postgres. Never imports `server`."""
