"""A Python source taken apart into its docstrings (prose) and the rest (code)."""

from __future__ import annotations

import ast
import inspect
import warnings
from typing import NamedTuple


class _Docstring(NamedTuple):
    node: ast.Constant
    is_whole_body: bool


def docstrings(source: str) -> str:
    """All docstrings in order, dedented, blank lines between; "" when the source does not parse."""
    found = _find_docstrings(source) or []
    return "\n\n".join(inspect.cleandoc(str(node.value)) for node, _ in found)


def without_docstrings(source: str) -> str:
    """The source with its docstrings cut out (`pass` where one was a whole body), still valid
    Python; "" when the source does not parse."""
    found = _find_docstrings(source)
    if found is None:
        return ""
    lines = source.encode().split(b"\n")  # ast counts columns in UTF-8 bytes
    for node, is_whole_body in reversed(found):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        left = before + (b"pass" + after if is_whole_body else after.lstrip(b"; "))
        lines[first : last + 1] = [left] if left.strip() else []
    return b"\n".join(lines).decode()


def _find_docstrings(source: str) -> list[_Docstring] | None:
    """Docstrings in the order of the text; None when the source does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # templates, code for other versions, tests of parsers
    found = []
    for owner in ast.walk(tree):
        if not isinstance(
            owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            continue
        match owner.body:
            case [ast.Expr(value=ast.Constant(value=str()) as node), *others]:
                found.append(_Docstring(node, not others and not isinstance(owner, ast.Module)))
    return sorted(found, key=lambda docstring: (docstring.node.lineno, docstring.node.col_offset))
