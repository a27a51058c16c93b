"""A tiny study on made-up text, trained once for all tests that need a finished swarm."""

from __future__ import annotations

import builtins
import logging
import os
import secrets
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest

PUBLISHED = Path(__file__).parents[2] / "shared" / "data"
"""Where this repository's developers keep the published run tables, beside the checkout."""
if PUBLISHED.is_dir():
    os.environ.setdefault("MIXLAW_DATA", str(PUBLISHED))

TINY_STUDY = """\
seed: 3
domains:
  abc: {paths: [text/abc]}
  digits: {paths: [text/digits]}
  words: {paths: [text/words]}
validation_only:
  mixed: {paths: [text/mixed]}
validation_bytes: 1500
tokenizer: {kind: byte}
sizes:
  3k: {width: 16, layers: 1}
  6k: {width: 16, layers: 2}
  12k: {width: 32, layers: 1}
design:
  mixtures: 8
  replicated_mixtures: 2
  replicate_seeds: 2
training:
  sizes: [3k, 6k]
  batch_size: 2
  sequence_length: 16
  warmup_steps: 4
  horizon_steps: [10, 20, 40]
  evaluation_tokens: 512
hardware: {checkpoint_seconds: 0, report_steps: 5}
objective: {bpb/mixed: 1, bpb/abc: 1}
constraints: {max_epochs: 4}
target: {size: 12k, train_tokens: 1920}
verify: {horizon_steps: [30, 60], seeds: 2}
"""


def write_text_domains(root: Path) -> None:
    """Three domains that differ in their alphabets, and one that mixes two of them."""
    rng = np.random.default_rng(0)
    words = ["tree", "river", "stone", "cloud", "bird", "grass", "light", "wind", "sand", "rain"]

    def letters(n: int) -> str:
        return " ".join("".join(rng.choice(list("abcdef"), 5)) for _ in range(n))

    def numbers(n: int) -> str:
        return " ".join(str(rng.integers(10_000, 99_999)) for _ in range(n))

    def sentences(n: int) -> str:
        return " ".join(rng.choice(words, n))

    makers = {"abc": [letters], "digits": [numbers], "words": [sentences]}
    makers["mixed"] = [letters, numbers]
    for name, styles in makers.items():
        folder = root / "text" / name
        folder.mkdir(parents=True)
        for i in range(30):
            text = "\n".join(style(60) for style in styles)
            (folder / f"{i:02d}.txt").write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A study folder with text and study.yaml, nothing run yet. Copy before use."""
    root = tmp_path_factory.mktemp("tiny")
    write_text_domains(root)
    (root / "study.yaml").write_text(TINY_STUDY, encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def trained_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny study with its swarm trained. Copy before use."""
    pytest.importorskip("torch", reason="training needs torch")
    from mixlaw.study import Study

    root = tmp_path_factory.mktemp("trained") / "study"
    shutil.copytree(tiny_folder, root)
    Study(root).train()
    return root


@pytest.fixture
def tiny_study(tiny_folder, tmp_path) -> Path:
    """An own copy of the untrained study."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "study"))


@pytest.fixture
def trained_study(trained_folder, tmp_path) -> Path:
    """An own copy of the trained study."""
    return Path(shutil.copytree(trained_folder, tmp_path / "study"))


@pytest.fixture(scope="session")
def published():
    """`mixlaw.datasets.load`, skipped without the tables: tests download nothing."""
    if "MIXLAW_DATA" not in os.environ:
        pytest.skip(f"no published run tables at {PUBLISHED}; set MIXLAW_DATA to their folder")
    pytest.importorskip("pyarrow", reason="the published run tables are Parquet; no pyarrow")
    from mixlaw import datasets

    return datasets.load


@pytest.fixture(scope="session")
def s3_server():
    """The URL of an S3 server of this machine, which has the bucket `mixlaw`; this process and its
    children find it by their environment."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        urllib.request.urlopen(
            urllib.request.Request(f"http://{host}:{port}/mixlaw", method="PUT")
        ).close()
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright; skipped where there is none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: `make browser` (as root, on Debian) installs it")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A new page that may not speak to any network; a request, a console error or an uncaught
    exception fails the test."""
    context = browser.new_context(offline=True)
    opened, wrong = context.new_page(), []
    opened.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda asked: asked.url.startswith("http") and wrong.append(asked.url))
    yield opened
    context.close()
    assert not wrong


@pytest.fixture
def no_matplotlib(monkeypatch):
    """As if matplotlib were not installed."""
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture(params=["folder", "memory", "s3"])
def storage_url(request, tmp_path):
    """An empty place of each kind that runs may lie in."""
    if request.param == "folder":
        return str(tmp_path / "runs")
    if request.param == "memory":
        pytest.importorskip("fsspec", reason="fsspec is not installed")
        return f"memory://{tmp_path.name}-{secrets.token_hex(4)}/runs"
    request.getfixturevalue("s3_server")
    return f"s3://mixlaw/{secrets.token_hex(4)}/runs"
