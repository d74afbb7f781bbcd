"""The composition root: makes the parts from the settings and puts them together as one ASGI application."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import cast

import structlog
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from persistence.address import understand
from persistence.analytics import Analytics
from persistence.connect import connect as connect_postgres
from persistence.flusher import Flusher
from persistence.forgetting import Forgetting
from persistence.plan.history import Arrivals
from persistence.recent import Recent
from persistence.repository import Repository
from persistence.retention import Retention
from server.domain.addresses import TrustedProxies
from server.domain.origins import Origins
from server.domain.sentences import Sentences
from server.domain.token import Tokens
from server.http.api import EXCEPTION_HANDLERS, routes
from server.http.cors import Cors
from server.http.request_ids import RequestIds
from server.http.requests import CountedRequests
from server.live.connect import connect as connect_redis
from server.live.dirty import StoreDirtySessions
from server.live.store import NodeTimings, Store
from server.node.endpoint import WebSocketEndpoint
from server.node.loops import running
from server.node.node import Node
from server.pages.dashboard import routes as dashboard_routes
from server.pages.demo import routes as demo_routes
from server.pages.docs import routes as docs_routes
from server.settings import Settings, SettingsError

CLOSE_POSTGRES_WITHIN_S = 2.0

_log = structlog.get_logger(__name__)


class App:
    """The ASGI application. A WebSocket goes straight to its endpoint, past what only HTTP needs."""

    def __init__(self, node: Node, web_sockets: ASGIApp, http: ASGIApp) -> None:
        self.node = node
        self._web_sockets = web_sockets
        self._http = http

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Dispatch; no coroutine of its own, since one a connection would stay in memory."""
        chosen = self._web_sockets if scope["type"] == "websocket" else self._http
        return chosen(scope, receive, send)


def create_app(settings: Settings, *, demo: bool = False) -> App:
    """The application for `settings`; `demo`: with the demo page. SettingsError if it can't be made of them."""
    origins = Origins(settings.allowed_origins, settings.public_url)
    proxies = TrustedProxies(settings.trusted_proxies)
    node = _node(settings)
    served = _routes(demo=demo)
    http = Starlette(routes=served, lifespan=_lifespan, exception_handlers=dict(EXCEPTION_HANDLERS))
    http.state.node = node
    counted = CountedRequests(Cors(RequestIds(http), origins), served, node.measured.requests)
    return App(node, WebSocketEndpoint(node, origins.allows, proxies), counted)


def _node(settings: Settings) -> Node:
    timings = NodeTimings(
        alive_ttl_s=settings.alive_ttl_s,
        renew_s=settings.renew_s,
        tombstone_s=max(settings.token_ttl_s, settings.resume_s),
        history=settings.database_url is not None,
    )
    try:
        redis = connect_redis(settings.redis_url)
    except ValueError as error:
        raise SettingsError([f"REDIS_URL can't be used: {error}"]) from error
    store = Store(
        redis,
        node=secrets.token_hex(6),
        defaults=settings.pool_defaults(),
        timings=timings,
    )
    tokens = Tokens([secret.get_secret_value() for secret in settings.secret], settings.token_ttl_s)
    return Node(settings, store, tokens, Sentences())


def _routes(*, demo: bool) -> list[BaseRoute]:
    return [*routes(development=demo), *dashboard_routes(), *docs_routes(), *(demo_routes() if demo else ())]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Start and stop with the server: Postgres if there is one, the loops, the last flush."""
    node = cast("Node", app.state.node)
    try:
        async with _history(node):
            async with running(node):
                yield
            await node.flush()
    finally:
        await node.store.close()


@asynccontextmanager
async def _history(node: Node) -> AsyncIterator[None]:
    """Postgres, if it is set. It connects when first used, so it may be away."""
    if node.settings.database_url is None:
        yield
        return
    settings = node.settings
    url = cast("SecretStr", settings.database_url).get_secret_value()
    # Without user and password: "transaction pooler at …:6543, encrypted and verified".
    _log.info("history", postgres=str(understand(url)))
    async with await connect_postgres(url, ca=settings.database_ca) as pool:
        node.history = Repository(pool, settings.schema_)
        node.arrivals = Arrivals(pool, settings.schema_)
        node.analytics = Analytics(pool, settings.schema_)
        node.recent = Recent(pool, settings.schema_)
        node.forgetting = Forgetting(pool, settings.schema_)
        node.flusher = Flusher(
            StoreDirtySessions(node.store),
            node.history,
            holder=node.store.node,
            flush_s=settings.flush_s,
            abandon_after_s=settings.abandon_after_s,
            retention=Retention(pool, settings.schema_, days=settings.retention_days),
            observer=node.measured.dependencies,
        )
        node.show_flush(node.flusher)
        await node.flusher.probe()
        yield
