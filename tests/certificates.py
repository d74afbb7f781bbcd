"""Certificates of the tests' own: a CA, and what it signs. Made by the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.prerequisites import demand

DAYS = "2"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files of a certificate and its key."""

    file: Path
    key: Path


def make_ca(folder: Path, name: str) -> Certificate:
    """A new CA."""
    made = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    subject = ("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl("req", "-x509", *KEY, *subject, "-days", DAYS, "-keyout", str(made.key), "-out", str(made.file))
    return made


def sign(ca: Certificate, host: str) -> Certificate:
    """A server's certificate for the name `host`, signed by `ca`."""
    folder = ca.file.parent
    made = Certificate(folder / f"{host}.crt", folder / f"{host}.key")
    named = ("-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")
    signed = ("-CA", str(ca.file), "-CAkey", str(ca.key), "-addext", "basicConstraints=critical,CA:FALSE")
    files = ("-keyout", str(made.key), "-out", str(made.file))
    _openssl("req", "-x509", *KEY, *named, *signed, "-days", DAYS, *files)
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run([demand("openssl"), *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
