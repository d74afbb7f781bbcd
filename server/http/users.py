"""Operations on persons: forgetting one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import structlog

from persistence.errors import POSTGRES_AWAY
from persistence.forgetting import Erased
from server.domain.errors import UnknownPoolError
from server.http.auth import Access
from server.http.problems import HistoryAwayError
from server.http.routing import Answer, Call, Operation, PoolParams, operation
from server.node.node import Node

NO_ANSWER = "Postgres does not answer. Nothing is forgotten for certain until it is back: repeat this then."

log = structlog.get_logger(__name__)


class Forgotten(msgspec.Struct, frozen=True):
    """How many sessions of the person were erased, live and past."""

    forgotten: int


@operation("DELETE", "/v1/users/{user_id:text}", Access.KEY, answers={200: Forgotten}, errors=(503,))
async def forget_user(call: Call[None, PoolParams]) -> Answer:
    """Erase a person from all pools and from the history.

    Running sessions end, and their sockets are closed with 4410. Repeating it is harmless; after a 503 repeat it.
    """
    user_id = call.request.path_params["user_id"]
    count = await _forget(call.node, user_id)
    log.info("user_forgotten", sessions=count)
    return Answer(Forgotten(count))


OPERATIONS: tuple[Operation, ...] = (forget_user,)


async def _forget(node: Node, user_id: str) -> int:
    async def erase_live(past: Mapping[str, Sequence[str]]) -> Erased:
        return await _erase_live(node, user_id, past)

    if node.forgetting is None:
        return len((await erase_live({})).session_ids)
    try:
        return await node.forgetting.forget(user_id, erase_live)
    except POSTGRES_AWAY as error:
        raise HistoryAwayError(NO_ANSWER) from error


async def _erase_live(node: Node, user_id: str, past: Mapping[str, Sequence[str]]) -> Erased:
    session_ids: list[str] = []
    version = 0
    for pool in await node.store.pool_names():
        try:
            erased = await node.store.forget(pool, user_id, past.get(pool, ()))
        except UnknownPoolError:
            continue  # its name is written before it is
        session_ids += erased.erased
        version = max(version, erased.version)
    return Erased(session_ids, version)
