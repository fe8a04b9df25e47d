"""What a dataclass says of its fields: their types, with bounds, and what they mean."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from functools import cache
from typing import Any, NamedTuple


class Described(NamedTuple):
    """A field of a dataclass."""

    kind: Any
    """Its type, with its bounds."""
    doc: str
    """Its docstring, in one line; "" if it has none or there is no source."""


@cache
def described(owner: type) -> dict[str, Described]:
    """The fields of a dataclass, in their order."""
    kinds, docs = typing.get_type_hints(owner, include_extras=True), _docs(owner)
    return {field.name: Described(kinds[field.name], docs.get(field.name, "")) for field in dataclasses.fields(owner)}


def _docs(owner: type) -> dict[str, str]:
    """{field: its docstring in the source} of a dataclass and its parents."""
    docs: dict[str, str] = {}
    for cls in reversed(owner.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        except (OSError, TypeError, SyntaxError):  # no source available
            continue
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs
