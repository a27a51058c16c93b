"""Every bash and python block of the documentation does what the text says."""

from __future__ import annotations

import html
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
from mixlaw.laws.catalogue import (
    BASELINES,
    CANDIDATES,
    DEFAULT_MANY_SCALES,
    DEFAULT_ONE_SCALE,
    MANY_SCALES,
    make,
)
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule
from mixlaw.study import Study
from mixlaw.train.recipe import non_embedding_params
from mixlaw.train.sizes import NAMED_SIZES, default_learning_rate

ROOT = Path(__file__).parents[2]
EXAMPLE_REPORT = "example-report.html"
DOCS = [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("docs/*.md"))]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of the fenced blocks that a reader is meant to run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(bash|python)\n(.*?)^```$", text, flags=re.M | re.S)


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    """The examples; the one that most pages use is fitted once for all."""
    folder = tmp_path_factory.mktemp("docs") / "examples"
    shutil.copytree(ROOT / "examples", folder)
    Study(folder / "tiny-env").optimize()
    return folder


@pytest.mark.parametrize("page", [page for page in ["README.md", *DOCS] if blocks(page)])
def test_blocks_run(page, examples, tmp_path):
    pytest.importorskip("torch", reason="the tutorial trains")
    shutil.copytree(examples, tmp_path / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "WORK": str(tmp_path / "work")}
    (tmp_path / "work").mkdir()
    for language, code in blocks(page):
        command = ["bash", "-euc", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", [*(p.name for p in ROOT.glob("*.md")), *DOCS])
def test_links_between_pages_hold(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        made = target == EXAMPLE_REPORT  # with the site
        assert made or (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"


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
    text = html.unescape((ROOT / "docs" / "formats.md").read_text(encoding="utf-8"))
    for row in format_rows():
        assert row in text


def test_the_tables_of_laws():
    """Every law of the catalogue has one row, which says rightly whether it is convex and tried."""
    text = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")
    _, _, text = text.partition("## What competes")
    rows = re.findall(r"^\| `(.+?)` \|.*\| (.*?) \| ?(.*?) ?\|$", text, flags=re.M)
    told = {name: (convex, tried) for name, convex, tried in reversed(rows)}  # the first of each
    defaults = (*DEFAULT_ONE_SCALE, *DEFAULT_MANY_SCALES)
    axes = {"num_params": 1e6, "train_tokens": 1e9}
    for name in CANDIDATES:
        if name in ("implicit-3", "implicit-4"):
            continue  # in the row of implicit-2
        law = make(name, axes if name in {**MANY_SCALES, **BASELINES} else {})
        row = told["implicit-2`, `-3`, `-4" if name == "implicit-2" else name]
        assert row == ("yes" if law.convex else "no", "yes" if name in defaults else "")
    assert told["<law>+gp"][1] == ", ".join(f"`{n}`" for n in defaults if n.endswith("+gp"))
