"""Results as Markdown tables with the facts of the machine that made them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from mixlaw.launch.local import available_cores

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """One line: processor, cores, versions."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        processor = names[0].partition(":")[2].strip() if names else processor
    versions = []
    for package in ("mixlaw", "torch", "numpy", "scipy", "transformers"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = available_cores()
    return f"{processor}, {cores} cores, Python {platform.python_version()}, {', '.join(versions)}"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def publish(name: str, title: str, command: str, body: str) -> None:
    """Write `results/<name>.md` and show it."""
    text = f"# {title}\n\n`{command}` on {machine()}\n\n{body}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
