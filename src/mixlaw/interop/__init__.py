"""The ecosystem: runs that others trained come in, mixtures go out to other trainers.

>>> from mixlaw.interop import import_runs
>>> imported = import_runs(["runs.csv"])
>>> imported.table, imported.columns, imported.notes
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixlaw.interop.columns import Columns
    from mixlaw.interop.exporters import EXPORTERS
    from mixlaw.interop.guess import Hints
    from mixlaw.interop.handover import Exported, Handover
    from mixlaw.interop.importers import IMPORTERS
    from mixlaw.interop.importing import Imported, from_frame, import_runs
    from mixlaw.interop.snippet import Snippet, snippet_for, snippets
    from mixlaw.schedule import Schedule

# Loaded on first use: who imports a table needs no exporter, and the other way round.
_HOME = {
    "Columns": "columns",
    "EXPORTERS": "exporters",
    "Exported": "handover",
    "Handover": "handover",
    "Hints": "guess",
    "IMPORTERS": "importers",
    "Imported": "importing",
    "Snippet": "snippet",
    "from_frame": "importing",
    "import_runs": "importing",
    "snippet_for": "snippet",
    "snippets": "snippet",
}

__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "Columns",
    "Exported",
    "Handover",
    "Hints",
    "Imported",
    "Snippet",
    "export",
    "from_frame",
    "import_runs",
    "read_mixture",
    "snippet_for",
    "snippets",
]


def export(handover: Handover, to: str) -> Exported:
    """A mixture or schedule as the trainer called `to` wants it; see `EXPORTERS`.

    Raises: ExportError: no such trainer, or what it cannot be told.
    """
    from mixlaw.interop.exporters import exporter

    return exporter(to).export(handover)


def read_mixture(path: str | Path, kind: str, domains: Sequence[str]) -> Schedule:
    """The mixture of a trainer's config, or its schedule.

    Args:
        kind: the trainer, as in `export`.
        domains: names to look for in it.
    Raises: ExportError: no such trainer, or a config without a mixture of these domains.
    """
    from mixlaw.interop.exporters import exporter

    return exporter(kind).read(Path(path), domains)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixlaw.interop' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mixlaw.interop.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
