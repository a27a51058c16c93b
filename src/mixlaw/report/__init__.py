"""The report of a study: one self-contained HTML file, and its pictures as functions."""

from mixlaw.report.page import write_report

__all__ = ["write_report"]
