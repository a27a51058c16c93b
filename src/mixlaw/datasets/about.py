"""What a published run table is, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RAW = "https://raw.githubusercontent.com"
"""Where a file of a public repository is served as it is, by commit."""


@dataclass(frozen=True)
class Info:
    """A published run table.

    Attributes:
        name: how `load` knows it.
        title: what was trained, in a few words.
        paper: title and arXiv number; "" where there is none.
        repository: "owner/name" of the source; "" where the table is hosted nowhere.
        files: "commit/path" of each file in it that is read.
        licence: as the source states it.
        rows: what one row is, and how runs and labels are called.
        unit: of the targets.
        left_out: what the source has beyond these rows; "" for nothing.
        oddities: what to know before a law is fitted.
        local: the Parquet file in the folder of MIXLAW_DATA.
        checksum: SHA-256 of the table's values, see `mixlaw.datasets.checksum`.
    """

    name: str
    title: str
    paper: str
    repository: str
    files: tuple[str, ...]
    licence: str
    rows: str
    unit: str
    left_out: str
    oddities: tuple[str, ...]
    local: str
    checksum: str

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the files are downloaded from, each pinned by its commit."""
        return tuple(f"{RAW}/{self.repository}/{file}" for file in self.files)

    def __str__(self) -> str:
        said = {
            key: getattr(self, key) for key in ("paper", "repository", "licence", "rows", "unit")
        }
        said |= {"left out": self.left_out, "checksum": self.checksum}
        lines = [f"{self.name}: {self.title}"]
        lines += [f"  {key}: {text}" for key, text in said.items() if text]
        return "\n".join([*lines, *(f"  - {note}" for note in self.oddities)])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**vars(self), "addresses": list(self.addresses)}
