"""Every bash and python block of the documentation does what the text says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.interop.handover import Handover
from mixlaw.interop.importers import IMPORTERS, importer
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule
from mixlaw.train.recipe import non_embedding_params
from mixlaw.train.sizes import NAMED_SIZES, default_learning_rate

ROOT = Path(__file__).parents[2]
NAMES = ("tutorial", "interop", "laws", "deciding", "training", "continual", "schedules")
PAGES = ["README.md", *(f"docs/{name}.md" for name in NAMES)]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of the fenced blocks that a reader is meant to run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```$", text, flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page, tmp_path):
    pytest.importorskip("torch", reason="the tutorial trains")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "WORK": str(tmp_path / "work")}
    (tmp_path / "work").mkdir()
    found = blocks(page)
    assert found, f"{page} has no block to run"
    for language, code in found:
        command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "page", [p.relative_to(ROOT) for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
)
def test_links_between_pages_hold(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page.parent / target).exists(), f"{page} links to {target}"


def test_the_table_of_sizes():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    for name, size in NAMED_SIZES.items():
        params = non_embedding_params(size.width, size.layers, size.mlp_ratio)
        rate = size.learning_rate or default_learning_rate(size.width)
        cells = [f"`{name}`", f"{params:,}", f"{size.width} x {size.layers}", size.head_width]
        cells += [f"{size.batch_size} x {size.sequence_length}", f"{rate:.2g}", size.warmup_steps]
        assert f"| {' | '.join(map(str, cells))} |\n" in text
    assert {size.mlp_ratio for name, size in NAMED_SIZES.items() if name != "regmix-1m"} == {4}


def format_rows() -> list[str]:
    """Rows of the tables of formats, as the catalogues have them."""
    handover = Handover(
        Schedule.static(Mixture({"web": 0.75, "code": 0.25})),
        paths={"web": ("/data/web",), "code": ("/data/code",)},
        train_tokens=2**22,
        sequence_length=512,
        batch_sequences=8,
    )
    rows = []
    for name in IMPORTERS:
        reads = importer(name)
        rows.append(f"| `{name}` | {reads.what} | {reads.checked} |\n")
    for name in EXPORTERS:
        writes = exporter(name)
        cells = [f"`{name}`", writes.what, f"{writes.export(handover).unit}s"]
        rows.append(f"| {' | '.join(cells)} | {'yes' if writes.schedules else 'no'} | ")
        rows[-1] += f"{writes.checked} |\n"
    return rows


def test_the_tables_of_formats():
    text = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
    for row in format_rows():
        assert row in text
