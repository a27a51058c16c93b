"""Renew the pictures of the explorer in docs/images, of the report on the example table:

python -m benchmarks.screenshots

Needs a Chromium (`make browser`). Look at the pictures before they are committed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import FloatRect, Page, sync_playwright

from mixlaw.report import write_report
from mixlaw.study import Study

ROOT = Path(__file__).parent.parent
EXAMPLE, IMAGES = ROOT / "examples" / "tiny-env", ROOT / "docs" / "images"
SHOTS: dict[str, tuple[int, Literal["light", "dark"]]] = {
    "explorer-1440": (1440, "light"),
    "explorer-dark": (1440, "dark"),
    "explorer-390": (390, "light"),
}
MARGIN = 20
MOST_BYTES = 350_000


def try_another_mixture(page: Page) -> None:
    """A state that shows something: a locked share, and another one raised by the keyboard."""
    page.get_by_role("button", name="Lock \u2068docs\u2069").click()
    page.get_by_role("slider", name="Share of \u2068cpp\u2069").focus()
    page.keyboard.press("PageUp")
    page.wait_for_timeout(600)  # until the texts are written
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)


def around(page: Page) -> FloatRect:
    """The explorer with the page's margin."""
    page.evaluate("scrollTo(0, 0)")
    box = page.locator("#explorer").bounding_box()
    assert box is not None
    width = box["width"] + 2 * MARGIN
    return {"x": box["x"] - MARGIN, "y": box["y"], "width": width, "height": box["height"]}


def main() -> None:
    """Write the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        study = Path(shutil.copytree(EXAMPLE, Path(folder) / EXAMPLE.name))
        report = write_report(Study(study))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (width, scheme) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(report.as_uri())
            try_another_mixture(page)
            path = IMAGES / f"{name}.png"
            page.screenshot(path=path, full_page=True, clip=around(page))
            page.close()
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"{path} has {path.stat().st_size} bytes, above {MOST_BYTES}")
        browser.close()


if __name__ == "__main__":
    main()
