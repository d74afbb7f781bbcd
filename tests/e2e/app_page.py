"""The page of an app that embeds the browser client from the presence server, as participants have it open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

# What the tests look at: `presence`, everything `heard` from it, the newest `standing`, and whether it is the same
# `page` as before.
INTERVIEW = """<!doctype html><meta charset="utf-8"><title>Interview</title><a href="/elsewhere">A link</a>
<script type="module">
const { url, token } = Object.fromEntries(new URLSearchParams(location.search));
const { connect } = await import(`${url}/client.js`);
window.page = Math.random();
window.heard = [];
addEventListener("pageshow", ({ persisted }) => heard.push(persisted ? "restored" : "shown"));
const presence = connect({ url, token, page: "learning" });
for (const name of ["online", "offline", "interview", "ended", "error"]) {
  presence.on(name, (detail) => {
    heard.push(name);
    if (name === "interview") window.standing = detail;
  });
}
window.presence = presence;
</script>
"""
ELSEWHERE = "<!doctype html><title>Elsewhere</title>"


@dataclass(frozen=True, slots=True)
class AppPage:
    """Where the app is."""

    origin: str

    def interview(self, presence_url: str, token: str) -> str:
        """The page that connects to the presence server at `presence_url`."""
        return f"{self.origin}/interview?{urlencode({'url': presence_url, 'token': token})}"


@asynccontextmanager
async def app_page() -> AsyncIterator[AppPage]:
    """An app of its own origin, as it is in the field."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    async with server:
        yield AppPage(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request a connection. Browsers also open some to be ready, and never use them."""
    request = await reader.read(65536)
    body = (INTERVIEW if b"/interview" in request.partition(b"\r\n")[0] else ELSEWHERE).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close"
    if request:
        writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    writer.close()
