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
    """A token in place of `held`, if that says too little: on grant, on joining the line, before it expires."""
    says_less = admission.fence not in (None, held.claims.fence) or admission.ticket not in (
        None,
        held.claims.ticket,
    )
    if held.expired or says_less or node.tokens.renewal_due(held, time.time()):
        return token_for(node, record, admission)
    return None
