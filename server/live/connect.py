"""Connects to Redis by URL: one server, a unix socket, Sentinel or Cluster."""

from __future__ import annotations

import re
from typing import Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

# Requests wait for Redis, so a silent one must be given up soon; one that merely restarted deserves a second try.
ANSWER_WITHIN_S = 2.0
CONNECT_WITHIN_S = 1.0
# Far above what is used at once: redis-py's own 100 would be reached by as many pools, each with its follower.
MOST_CONNECTIONS = 5000
DEFAULT_PORTS = {"redis+sentinel": 26379, "redis+cluster": 6379}
DEFAULT_HOST = "localhost"

_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:]*))(?::(?P<port>\d+))?")


class RedisClient(Protocol):
    """What is used of redis-py's clients, which all offer it: any command, and the end."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - replies are what they are
        """Run a command and return its parsed reply."""

    async def aclose(self) -> None:
        """Close all connections."""


def connect(url: str) -> RedisClient:
    """A client for `url`. Connects at the first command. Raises ValueError for a URL it does not understand."""
    parts = urlsplit(url)
    if parts.scheme == "redis+sentinel":
        return _sentinel(parts)
    if parts.scheme == "redis+cluster":
        return _cluster(parts)
    client: RedisClient = Redis.from_url(url, **_options())
    return client


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": ANSWER_WITHIN_S,
        "socket_connect_timeout": CONNECT_WITHIN_S,
        "retry": Retry(NoBackoff(), 1),
        "max_connections": MOST_CONNECTIONS,
    }


def _sentinel(parts: SplitResult) -> RedisClient:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]...]/master[/database]`."""
    master, _, database = parts.path.strip("/").partition("/")
    if not master:
        raise ValueError("A redis+sentinel:// URL must name the master: redis+sentinel://host:26379/mymaster")
    sentinel = Sentinel(_hosts(parts), socket_timeout=CONNECT_WITHIN_S)  # type: ignore[no-untyped-call]
    options = {**_credentials(parts), **_options()}
    client: RedisClient = sentinel.master_for(master, _WatchedMaster, db=int(database or 0), **options)
    return client


class _WatchedMaster(Redis):
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, also those to the Sentinels, which redis-py leaves to us."""
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        await pool.sentinel_manager.aclose()


def _cluster(parts: SplitResult) -> RedisClient:
    """`redis+cluster://[user:password@]host[:port][,host[:port]...]`."""
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts)]
    client: RedisClient = _Cluster(startup_nodes=nodes, **_credentials(parts), **_options())
    return client


class _Cluster(RedisCluster):
    async def aclose(self) -> None:
        """Close all connections. redis-py leaves them open while it is about to look for the nodes anew."""
        await super().aclose()
        for group in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(group)


async def ask_each_server(client: RedisClient, *command: str) -> list[Any]:
    """What each server that takes writes answers: one, or each master of a cluster."""
    if not isinstance(client, RedisCluster):
        return [await client.execute_command(*command)]
    await client.initialize()
    return [await client.execute_command(*command, target_nodes=node) for node in client.get_primaries()]


async def leave(client: RedisClient) -> None:
    """Give up all connections once their command is done: the server is no master any more, and its name may lead to
    another by now. A cluster says itself where to go."""
    if isinstance(client, Redis):
        pool: Any = client.connection_pool  # which lacks types
        await pool.update_active_connections_for_reconnect()
        await pool.disconnect(inuse_connections=False)


def _hosts(parts: SplitResult) -> list[tuple[str, int]]:
    hosts = []
    for address in parts.netloc.rpartition("@")[2].split(","):
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ValueError("it has no good host and port")
        host = found["ipv6"] or found["host"] or DEFAULT_HOST
        hosts.append((host, int(found["port"] or DEFAULT_PORTS[parts.scheme])))
    return hosts


def _credentials(parts: SplitResult) -> dict[str, Any]:
    userinfo = parts.netloc.rpartition("@")[0]
    if not userinfo:
        return {}
    user, _, password = userinfo.partition(":")
    return (
        {"username": unquote(user), "password": unquote(password)}
        if user
        else {"password": unquote(password)}
    )
