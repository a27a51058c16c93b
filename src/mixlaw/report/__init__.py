"""The report of a study: one self-contained HTML file, and its pictures as functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlaw.report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    # On first use: the words of the report serve the command line, which draws nothing.
    if name != "write_report":
        raise AttributeError(f"module 'mixlaw.report' has no attribute {name!r}")
    from mixlaw.report.page import write_report

    return write_report
