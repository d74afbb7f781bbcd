"""The package's own few texts, in the languages of the server's sentences; `texts.json` holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

Catalogue = Mapping[str, Mapping[str, str]]
FALLBACK = "en"


@cache
def own_texts() -> Catalogue:
    """Language to key to text, as in `texts.json`."""
    catalogue: Catalogue = json.loads(files(__package__).joinpath("texts.json").read_text(encoding="utf-8"))
    return catalogue


class Texts:
    """The texts, with those of the app's own in front: `{"de": {"title": "Bitte warten"}}`."""

    def __init__(self, overrides: Catalogue | None = None) -> None:
        self._overrides = overrides or {}

    def find(self, key: str, language_code: str | None = None, **values: Any) -> str:  # noqa: ANN401
        """The text for `key`; `de-AT` falls back to `de`, and all to English. `values` fill its placeholders."""
        for language in _languages(language_code):
            for catalogue in (self._overrides, own_texts()):
                if key in catalogue.get(language, {}):
                    return catalogue[language][key].format(**values)
        raise LookupError(f"no text for {key!r}")


def _languages(language_code: str | None) -> tuple[str, ...]:
    code = (language_code or FALLBACK).lower().replace("_", "-")
    return (code, code.split("-")[0], FALLBACK)
