"""The sources' own files, rebuilt from the Parquet tables as their repositories lay them out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mixlaw.datasets.catalogue import (
    GRAPE,
    GRAPE_TRAIN,
    MIXINGLAWS,
    REGMIX,
    REGMIX_FIRST,
)

Row = Mapping[str, Any]
HOME = "/cpfs01/projects-HDD/cfff-173661e84712_HDD/public/jsye"
FOLDERS = {"2Mix": "base2", "3Mix": "Github-Books3-PileCC", "5Mix": "Pile100B", "ct": "ct"}
PILE_NAMES = {
    "arxiv": "ArXiv",
    "freelaw": "FreeLaw",
    "nih_exporter": "NIH ExPorter",
    "pubmed_central": "PubMed Central",
    "wikipedia_en": "Wikipedia (en)",
    "dm_mathematics": "DM Mathematics",
    "github": "Github",
    "philpapers": "PhilPapers",
    "stackexchange": "Stack Exchange",
    "enron_emails": "Enron Emails",
    "gutenberg_pg_19": "Gutenberg (PG-19)",
    "pile_cc": "Pile-CC",
    "ubuntu_irc": "Ubuntu IRC",
    "europarl": "EuroParl",
    "hackernews": "HackerNews",
    "pubmed_abstracts": "PubMed Abstracts",
    "uspto_backgrounds": "USPTO Backgrounds",
}


@pytest.fixture(scope="session")
def tables(published) -> Path:
    """The folder of Parquet tables; skipped without."""
    return Path(os.environ["MIXLAW_DATA"])


@pytest.fixture(scope="session")
def sources(tables, tmp_path_factory) -> Path:
    """A folder laid out as raw.githubusercontent.com: owner/name/commit/path."""
    root = tmp_path_factory.mktemp("raw")
    suites(tables / "mixinglaws", root / f"yegcjs/mixinglaws/{MIXINGLAWS}")
    regmix(read(tables / "regmix_pile/runs.parquet"), root / "sail-sg/regmix")
    tasks(
        read(tables / "grape_regmix_1m/slimpajama_tasks.parquet"),
        root / "Olivia-fsm/multi-target-data-mixing",
    )
    dmsl(
        read(tables / "dmsl_slimpajama/runs.parquet"),
        root / "meiqwq/Explaining-Data-Mixing-Scaling-Laws"
        "/c2bf1106e8e54b8d368cd6de2515d4804f1c8a36/data/dmsl_llm_slimpajama.csv",
    )
    for table, stem in (
        ("dclm_swarm", "dclm"),
        ("full_reuse_update5_seed0", "full_reuse_update_5_seed_0"),
    ):
        olmix(
            read(tables / f"olmix_swarms/{table}.parquet"),
            root / "allenai/olmix/b98f5e39f261518c2f20d52863b6ee5b4f26fad0",
            stem,
        )
    return root


def read(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


def suites(tables: Path, root: Path) -> None:
    """One line for each measurement, some of them twice, in no order."""
    for suite in ("2Mix", "3Mix", "5Mix", "RedPajama", "ct"):
        lines = defaultdict(list)
        for row in read(tables / f"{suite}.parquet"):
            lines[row["model"]] += [suite_line(suite, row)] * row["n_source_lines"]
        for model, found in lines.items():
            shuffled = sorted(found, key=lambda line: line[::-1])
            write(root / f"data/{suite}/{model}.txt", "\n".join(shuffled) + "\n")
    weights = read(tables / "valid_weight.parquet")
    shares = {row["valid_domain"]: row["weight"] for row in weights}
    write(root / "pipeline/valid_weight.json", json.dumps(shares, indent=4) + "\n")


def suite_line(suite: str, row: Row) -> str:
    if row["mixture_raw"] is None:
        run = f"{HOME}/model_configs//{row['run_id']}"
    else:
        folder = FOLDERS.get(suite, suite)
        run = f"{HOME}/ckpts/{folder}//{row['run_id']}-{row['mixture_raw']}/{row['step_label']}"
    part, data = row["valid_domain"], f"{HOME}/data"
    if part == "starcoder_python":
        valid = f"{data}/ct_valid//starcoder.python.valid.bin"
    elif suite == "3Mix":
        run += "/" if row["run_id"] == "8" else ""  # as some lines have it
        valid = f"{data}/pythia-pile.valid.Github-Books-PileCC/pythia-pile.valid.{part}.bin"
    else:
        slash = "/" if suite == "2Mix" else "//"
        valid = f"{data}/pythia-pile.valid.domains{slash}pythia-pile.valid.{part}.bin"
    return f"{run}\t{valid}\t{row['loss']!r}"


def regmix(rows: list[dict[str, Any]], root: Path) -> None:
    by_split = defaultdict(list)
    for row in rows:
        by_split[row["split"]].append(row)
    for split in ("train", "test"):
        found = by_split[f"{split}_1m"]
        folder = root / REGMIX / "data"
        shares = columns(found, "weight/", lambda name: f"train_the_pile_{name}")
        write_csv(folder / f"{split}_mixture_1m.csv", shares)
        losses = columns(found, "loss/", lambda name: f"metric/the_pile_{name}_val_loss")
        write_csv(folder / f"{split}_pile_loss_1m.csv", losses)
    both = by_split["train_1m"] + by_split["extra_1m"]
    folder = root / REGMIX_FIRST / "data/pile"
    write_csv(
        folder / "tiny_config_1M_pile.csv",
        columns(both, "weight/", PILE_NAMES.__getitem__),
    )
    write_csv(
        folder / "tiny_wandb_1M_1000_pile_4B.csv",
        columns(both, "loss/", PILE_NAMES.__getitem__),
    )


def tasks(rows: list[dict[str, Any]], root: Path) -> None:
    for split in ("train", "test"):
        found = [row for row in rows if row["split"] == split]
        folder = root / GRAPE / "misc/regmix/data/redpj"
        shares = columns(found, "weight/", lambda name: f"train_{name}")
        write_csv(folder / f"{split}_mixture_1m.csv", shares)
        if split == "train":
            folder = root / GRAPE_TRAIN / "misc/regmix/data"
        losses = columns(found, "loss/", lambda name: f"metric/{name}_val_loss")
        write_csv(folder / f"{split}_loss_1m.csv", losses)


def dmsl(rows: list[dict[str, Any]], path: Path) -> None:
    """With runs of a size that the tables do not hold, between the others."""
    out = []
    for row, after in pairwise([*rows, {"params": None}]):
        cells = {f"weight_{k.removeprefix('weight/')}": row[k] for k in row if "weight/" in k}
        cells |= {"model_size": row["params"], "n_tokens": row["tokens"]}
        cells |= {f"{k.removeprefix('loss/')}_loss": row[k] for k in row if "loss/" in k}
        out.append(cells)
        if after["params"] != row["params"]:
            out.append(cells | {"model_size": 8e9, "weight_arxiv": 0.5})
    write_csv(path, out)


def olmix(rows: list[dict[str, Any]], folder: Path, stem: str) -> None:
    for kind, prefix in (("ratios", "weight/"), ("metrics", "bpb/")):
        out = []
        for i, row in enumerate(rows):
            cells = {"": i} | {key: row[key] for key in ("run", "name", "index")}
            out.append(
                cells | {k.removeprefix(prefix): row[k] for k in row if k.startswith(prefix)}
            )
        write_csv(folder / f"{stem}_{kind}.csv", out)


def columns(rows: Iterable[Row], prefix: str, name: Callable[[str], str]) -> list[Row]:
    return [
        {"index": row["run"]}
        | {name(k.removeprefix(prefix)): row[k] for k in row if k.startswith(prefix)}
        for row in rows
    ]


def write_csv(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def server(sources, monkeypatch, tmp_path):
    """Serves a copy of `sources` in the place of GitHub, to an empty cache, where no folder of
    tables is known.

    Yields: `root` of the files, `asked` paths, `stop()`.
    """
    root = tmp_path / "raw"
    shutil.copytree(sources, root, copy_function=os.link)
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    monkeypatch.setattr("mixlaw.datasets.about.RAW", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MIXLAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIXLAW_DATA")
    pytest.importorskip("pooch", reason="downloads need pooch")
    yield SimpleNamespace(root=root, asked=asked, stop=stop, cache=tmp_path / "cache")
    stop()
