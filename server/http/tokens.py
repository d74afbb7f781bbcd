"""Tokens for the sessions that this server answers for."""

from __future__ import annotations

import time

from server.domain.interview import Admission
from server.domain.session import SessionRecord
from server.domain.token import TokenClaims, Verified
from server.node.node import Node


def token_for(node: Node, record: SessionRecord, admission: Admission) -> str:
    """A fresh token, which carries the fence of a permit or the ticket of a place in line."""
    claims = TokenClaims(
        session_id=record.session_id,
        pool=record.pool,
        user_id=record.user_id,
        started_at=record.started_at,
        language_code=record.language_code,
        fence=admission.fence,
        ticket=admission.ticket,
    )
    return node.tokens.issue(claims, time.time())


def newer_token(node: Node, held: Verified, record: SessionRecord, admission: Admission) -> str | None:
    """A token in place of `held` if that is not right: on grant, on joining, when either is gone, before it expires."""
    is_outdated = (admission.fence, admission.ticket) != (held.claims.fence, held.claims.ticket)
    if held.expired or is_outdated or node.tokens.renewal_due(held, time.time()):
        return token_for(node, record, admission)
    return None
