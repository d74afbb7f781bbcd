"""A lease in Redis: one node does what need not be done by all. Two at once must do no harm."""

from __future__ import annotations

from server.live.scripts import Scripts


class Lease:
    """The lease that the STRING `key` stands for, as `holder` sees it. RedisAwayError as from every command."""

    def __init__(self, scripts: Scripts, key: str, holder: str, ttl_s: float) -> None:
        self._command = scripts.command
        self._key = key
        self._holder = holder
        self._ttl_ms = round(ttl_s * 1000)

    async def take(self) -> bool:
        """Take it, or renew it; False while another holds it."""
        if await self._command("SET", self._key, self._holder, "NX", "PX", self._ttl_ms):
            return True
        return await self._is_ours() and bool(await self._command("PEXPIRE", self._key, self._ttl_ms))

    async def give_back(self) -> None:
        """Let another have it at once, if it is ours."""
        if await self._is_ours():
            await self._command("DEL", self._key)

    async def _is_ours(self) -> bool:
        return bool(await self._command("GET", self._key) == self._holder.encode())
