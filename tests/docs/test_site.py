"""The site builds without a warning, its links hold, and it is read without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import mixlaw
from mixlaw import plots
from mixlaw.cli.app import app
from mixlaw.cli.entry import EXIT_CODES

ROOT = Path(__file__).parents[2]
ASSETS = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Seen(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self):
        super().__init__()
        self.links: list[str] = []
        self.assets: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ASSETS and ASSETS[tag] in given:
            self.assets.append(given[ASSETS[tag]])


@cache
def seen(path: Path) -> Seen:
    page = Seen()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    for package in ("mkdocs", "mkdocstrings", "material", "matplotlib"):
        pytest.importorskip(package, reason=f"the site needs {package}")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_link_of_the_site_holds(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for path in pages:
        for link in seen(path).links + seen(path).assets:
            url = urlsplit(link)
            if url.scheme in ("http", "https", "mailto", "data") or link == "#":
                continue
            at = path if not url.path else (path.parent / unquote(url.path)).resolve()
            if path.name == "404.html":  # read from anywhere, so its links begin with a slash
                at = site / unquote(url.path).lstrip("/")
            assert at.is_file() or (at / "index.html").is_file(), f"{path.name}: {link}"
            if url.fragment and at.suffix == ".html" and "=" not in url.fragment:
                assert unquote(url.fragment) in seen(at).anchors, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site):
    for path in site.rglob("*.html"):
        outside = [asset for asset in seen(path).assets if re.match(r"(https?:)?//", asset)]
        assert not outside, f"{path.name} loads {outside}"
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), path.name


def test_the_command_line_is_all_there(site):
    text = (site / "cli.html").read_text(encoding="utf-8")
    for info in app.registered_commands:
        name = info.name or info.callback.__name__
        assert f'id="mixlaw-{name}"' in text
        assert f"mixlaw {name}" in text
    for code, meaning in EXIT_CODES.items():
        assert f"<td>{code}</td>" in text
        assert meaning.split("`")[0] in text


def test_every_public_name_is_there(site):
    anchors = seen(site / "python.html").anchors
    missing = [name for name in mixlaw.__all__ if f"mixlaw.{name}" not in anchors]
    assert not missing
    report = (site / "report.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in report for name in plots.__all__)


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["index", "laws", "intervals", "cli", "python"])
def test_pages_fit_the_window(site, page, name, width):
    """What is wide (a table, a line of code) scrolls by itself; the page does not."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_search_works_from_disk(site, page):
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").fill("critical share")
    found = page.locator(".md-search-result__item a").first
    found.wait_for(timeout=20_000)
    assert "continual" in (found.get_attribute("href") or "")


def test_the_example_report_has_its_explorer(site, page):
    page.goto((site / "example-report.html").as_uri())
    assert page.locator("#explorer input[type=range]").count() >= 5
