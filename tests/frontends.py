"""A real nginx or Caddy in front of nodes of the tests, with the example that is shipped; it dies with the test."""

from __future__ import annotations

import os
import signal
import socket
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import ClassVar
from urllib.parse import urlsplit

from server.embedded.child import LOOPBACK, Child, Identity, Server, free_port, start_on
from tests.certificates import Certificate
from tests.prerequisites import demand

EXAMPLES = Path(__file__).parents[1] / "examples/deploy"
HOST = "presence.example"
# What stands around a site in Debian's nginx.conf, without the places that need its packages' folders.
NGINX_CONF = Template("""\
daemon off;
pid $folder/nginx.pid;
error_log $folder/error.log;
$user
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path $folder/body;
    proxy_temp_path $folder/proxy;
    fastcgi_temp_path $folder/fastcgi;
    uwsgi_temp_path $folder/uwsgi;
    scgi_temp_path $folder/scgi;
    include $folder/site.conf;
}
""")
CADDY_OPTIONS = Template("""\
{
	admin off
	auto_https disable_redirects
	storage file_system $folder
}
""")


class Frontend(Server):
    """A reverse proxy that speaks TLS for presence.example, before these nodes."""

    program: ClassVar[str]
    example: ClassVar[str]

    def __init__(
        self,
        folder: Path,
        port: int,
        nodes: Sequence[str],
        certificate: Certificate,
        changes: Mapping[str, str],
    ) -> None:
        self._path = demand(self.program)
        self._folder = folder
        self._certificate = certificate
        self.port = port
        addresses = [urlsplit(node).netloc for node in nodes]
        self._text = substituted(
            (EXAMPLES / self.example).read_text(encoding="utf-8"), {**self._places(addresses), **changes}
        )
        self._child = self._launch()

    @classmethod
    def start(cls, folder: Path, nodes: Sequence[str], certificate: Certificate, **changes: str) -> Frontend:
        """Start it on a free port, when it takes connections. `changes`: further settings, by their names."""
        lines = {f"{name} 60s;": f"{name} {value};" for name, value in changes.items()}
        return start_on(0, lambda port: cls(folder, port, nodes, certificate, lines))

    @property
    def url(self) -> str:
        """How a browser reaches it; the name leads nowhere, so say the address apart."""
        return f"https://{HOST}:{self.port}"

    @abstractmethod
    def _places(self, nodes: Sequence[str]) -> dict[str, str]:
        """What in the example is a port or a path, and what it is here."""

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Nginx(Frontend):
    """nginx with examples/deploy/nginx.conf."""

    program = "nginx"
    example = "nginx.conf"

    def reload(self) -> None:
        """Begin with new workers; the old ones serve their connections to the end."""
        os.kill(self.pid, signal.SIGHUP)

    def _places(self, nodes: Sequence[str]) -> dict[str, str]:
        self.http_port = free_port()
        listed = "\n    ".join(f"server {node};" for node in nodes)
        return {
            "server 127.0.0.1:8000;": listed,
            "listen 80;": f"listen {LOOPBACK}:{self.http_port};",
            "listen 443 ssl http2;": f"listen {LOOPBACK}:{self.port} ssl http2;",
            "/etc/letsencrypt/live/presence.example/fullchain.pem": str(self._certificate.file),
            "/etc/letsencrypt/live/presence.example/privkey.pem": str(self._certificate.key),
        }

    def _launch(self) -> Child:
        user = "user root;" if os.getuid() == 0 else ""
        (self._folder / "site.conf").write_text(self._text, encoding="utf-8")
        configuration = self._folder / "nginx.conf"
        configuration.write_text(NGINX_CONF.substitute(folder=self._folder, user=user), encoding="utf-8")
        child = Child(
            [
                self._path,
                "-p",
                str(self._folder),
                "-e",
                str(self._folder / "error.log"),
                "-c",
                str(configuration),
            ],
            folder=self._folder,
            log=self._folder / "nginx.log",
            farewell=signal.SIGTERM,  # at once; SIGQUIT would wait for the clients
            identity=Identity.ours(),
        )
        child.wait_until(self._takes_connections, "nginx")
        return child


class Caddy(Frontend):
    """Caddy with examples/deploy/Caddyfile."""

    program = "caddy"
    example = "Caddyfile"

    def _places(self, nodes: Sequence[str]) -> dict[str, str]:
        certificate = f"tls {self._certificate.file} {self._certificate.key}"
        return {
            "presence.example {": f"{self.url} {{\n\tbind {LOOPBACK}\n\t{certificate}",
            "reverse_proxy 127.0.0.1:8000 {": f"reverse_proxy {' '.join(nodes)} {{",
        }

    def _launch(self) -> Child:
        configuration = self._folder / "Caddyfile"
        options = CADDY_OPTIONS.substitute(folder=self._folder)
        configuration.write_text(options + self._text, encoding="utf-8")
        command = [self._path, "run", "--adapter", "caddyfile", "--config", str(configuration)]
        child = Child(
            ["/usr/bin/env", f"HOME={self._folder}", *command],
            folder=self._folder,
            log=self._folder / "caddy.log",
            farewell=signal.SIGTERM,
            identity=Identity.ours(),
        )
        child.wait_until(self._takes_connections, "Caddy")
        return child


def substituted(text: str, changes: Mapping[str, str]) -> str:
    """The text with these parts replaced; each must be there."""
    for old, new in changes.items():
        assert old in text, f"the example has no {old!r}"
        text = text.replace(old, new)
    return text
