"""JSON Schemas of our types, as they validate and encode."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

Json = dict[str, Any]


class Schemas:
    """The schemas of `types`; what they share is in `components`, where `ref_template` leads to."""

    def __init__(self, types: Iterable[Any], ref_template: str) -> None:
        distinct = list(dict.fromkeys(types))
        schemas, self.components = msgspec.json.schema_components(distinct, ref_template=ref_template)
        self._schemas = dict(zip(distinct, schemas, strict=True))
        _tidy(self.components)

    def of(self, kind: Any) -> Json:  # noqa: ANN401 - any annotation
        """The schema of one of the types."""
        return dict(self._schemas[kind])


def _tidy(schema: Any) -> None:  # noqa: ANN401 - any part of a schema
    """Docstrings come with the indentation of the source."""
    if isinstance(schema, dict):
        if isinstance(schema.get("description"), str):
            schema["description"] = inspect.cleandoc(schema["description"])
        for each in schema.values():
            _tidy(each)
    elif isinstance(schema, list):
        for each in schema:
            _tidy(each)
