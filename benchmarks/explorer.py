"""The mixture explorer of a report, in Debian's Chromium: how quick, how large, how right.

    python -m benchmarks.explorer

A move is what the page does while a slider is dragged: the mixture is moved on the simplex and
everything is forecast of it anew. The first moves, while the browser still compiles, stand apart.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, sync_playwright

from benchmarks.table import markdown, publish
from mixlaw import datasets
from mixlaw.mixture import Mixture
from mixlaw.report import write_report
from mixlaw.report.explorer import NUM_DRAWS, Explorer, escaped_json, explorer
from mixlaw.runs import RunTable
from mixlaw.study import Study

EXAMPLE = Path(__file__).parent.parent / "examples" / "tiny-env"
LARGEST = "30 domains, 60 targets"
DOMAINS, TARGETS, MIXTURES = 30, 60, 150
FIRST, MOVES, DRAWN, COMPARED = 20, 1000, 300, 200
FRAME_MS, MOST_BYTES = 16, 2_000_000

CATCH_FRAMES = """
  window.frames_ = [];
  window.requestAnimationFrame = (draw) => frames_.push(draw);
  window.cancelAnimationFrame = () => (frames_.length = 0);
"""
"""For a page whose frames are drawn when the benchmark says so."""

MOVING = """([first, moves]) => {
  const started = performance.now();
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const engine = mixlaw.engine(data), size = data.domains.length;
  engine.forecast(data.presets[0].shares, engine.target);
  const loaded = performance.now() - started;
  const limits = engine.limits(engine.target), locked = new Array(size).fill(false);
  let shares = data.presets[0].shares, state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const times = [];
  for (let k = 0; k < first + moves; k++) {
    const j = Math.floor(random() * size), share = random() * 0.3;
    const before = performance.now();
    shares = engine.move(shares, locked, j, share, limits);
    engine.forecast(shares, engine.target);
    times.push(performance.now() - before);
  }
  return [loaded, times];
}"""

DRAWING = """(moves) => {
  const sliders = [...document.querySelectorAll("#x-domains input[type=range]")];
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const draw = () => {
    frames_.splice(0).forEach((one) => one());
    document.body.getBoundingClientRect();  // lays the page out
  };
  draw();
  const times = [];
  for (let k = 0; k < moves; k++) {
    const slider = sliders[Math.floor(random() * sliders.length)], share = 30 * random();
    const before = performance.now();
    slider.value = share;
    slider.dispatchEvent(new Event("input"));
    draw();
    times.push(performance.now() - before);
  }
  return times;
}"""

FORECASTING = """(mixtures) => {
  const { engine } = mixlaw.explorer;
  return mixtures.map((shares) => {
    const { values, halves } = engine.forecast(shares, engine.target);
    return [Array.from(values), Array.from(halves)];
  });
}"""


def made_up(folder: Path) -> None:
    """Losses that fall with the shares of the domains, each target in its own way."""
    rng = np.random.default_rng(0)
    pull = rng.gamma(0.5, 2.0, (TARGETS, DOMAINS))
    domains = [f"domain {j:02d}" for j in range(DOMAINS)]
    targets = [f"loss/target {t:02d}" for t in range(TARGETS)]
    rows = []
    for m, mixture in enumerate(rng.dirichlet(np.ones(DOMAINS), MIXTURES)):
        losses = 2 + np.exp(-0.3 * np.sqrt(mixture) @ pull.T) + rng.normal(0, 0.003, TARGETS)
        row: dict[str, Any] = {"run": f"r{m}", "num_params": 1e8, "train_tokens": 1e9}
        row |= {f"weight/{name}": share for name, share in zip(domains, mixture, strict=True)}
        rows.append(row | dict(zip(targets, losses, strict=True)))
    known = "".join(f"  {name}: {{available_tokens: 1_000_000_000}}\n" for name in domains)
    rest = f"constraints: {{max_epochs: 4}}\ndomains:\n{known}"
    rest += "target: {num_params: 1_000_000_000, train_tokens: 20_000_000_000}\n"
    write_study(folder, RunTable.from_rows(rows), "effective", rest)


def regmix(law: str) -> Callable[[Path], None]:
    return lambda folder: write_study(folder, datasets.load("regmix/train-1m"), law)


def write_study(folder: Path, runs: RunTable, law: str, rest: str = "") -> None:
    """All targets count alike."""
    runs.write(folder / "runs.csv")
    objective = json.dumps(dict.fromkeys(runs.targets, 1))
    text = f"table: runs.csv\nobjective: {objective}\nfit: {{laws: [{law}]}}\n{rest}"
    (folder / "study.yaml").write_text(text, encoding="utf-8")


def example(folder: Path) -> None:
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)


CASES: Mapping[str, Callable[[Path], None]] = {
    LARGEST: made_up,
    "examples/tiny-env": example,
    "regmix 1M": regmix("effective"),
    "regmix 1M, process": regmix("log-linear+gp"),
}


@dataclass(frozen=True)
class Measured:
    """Of one study.

    Attributes:
        payload: of the explorer; `script`: its laws and engine.
        seconds: what -> wall seconds.
        report_bytes: of the whole page.
        loaded_ms: until the engine has forecast once.
        moves_ms: moves and forecasts, the first ones too; `drawn_ms`: with all that is drawn.
        load: of the machine while these were timed, in processes.
        apart: largest relative differences to Python of values, and of half widths.
    """

    payload: Mapping[str, Any]
    script: str
    seconds: Mapping[str, float]
    report_bytes: int
    loaded_ms: float
    moves_ms: np.ndarray
    drawn_ms: np.ndarray
    load: float
    apart: tuple[float, float]


def measure(make: Callable[[Path], None], browser: Browser) -> Measured:
    """A study from nothing to moves in its page."""
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), {}

        def timed(what: str, step: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            out = step()
            seconds[what] = time.perf_counter() - started
            return out

        make(folder)
        study = Study(folder)
        timed("fit", study.fit)
        timed("optimize", study.optimize)
        found = timed("explorer", lambda: explorer(study))
        assert isinstance(found, Explorer)
        timed("again", lambda: explorer(study))
        path = timed("report", lambda: write_report(study))
        page = browser.new_page()
        page.add_init_script(CATCH_FRAMES)
        page.goto(path.as_uri())
        drawn = page.evaluate(DRAWING, DRAWN)
        loaded, moves = page.evaluate(MOVING, [FIRST, MOVES])
        load, _, _ = os.getloadavg()
        apart = differences(study, page.evaluate(FORECASTING, asked(study)), asked(study))
        page.close()
        return Measured(
            found.payload,
            found.script,
            seconds,
            path.stat().st_size,
            loaded,
            np.array(moves),
            np.array(drawn),
            load,
            apart,
        )


def asked(study: Study) -> list[list[float]]:
    """Random mixtures, from even ones to those of few domains."""
    rng, names = np.random.default_rng(1), study.fit().domains
    concentrations = np.tile([1.0, 0.3, 0.1, 3.0], COMPARED // 4)
    return [rng.dirichlet(np.full(len(names), each)).tolist() for each in concentrations]


def differences(study: Study, found: list, mixtures: list[list[float]]) -> tuple[float, float]:
    """Largest relative differences of values and half widths at the target scale."""
    names = study.fit().domains
    known = study.predict([Mixture.from_array(names, np.array(shares)) for shares in mixtures])
    told = np.array([list(forecast.values()) for forecast in known])  # (n, T, 2)
    values, halves = np.moveaxis(np.abs(np.swapaxes(found, 1, 2) / told - 1), -1, 0)
    return float(values.max()), float(halves.max())


def table_of(found: Mapping[str, Measured]) -> str:
    """A column for each study."""

    def quantile(times: np.ndarray, percent: float) -> str:
        return f"{np.percentile(times[FIRST:], percent):.1f}"

    def size(data: Any) -> str:
        return f"{len(escaped_json(data).encode()):,}"

    def share(of: Measured) -> str:
        return f"{(of.drawn_ms[FIRST:] < FRAME_MS).mean():.0%}"

    lines: dict[str, Callable[[Measured], str]] = {
        "domains": lambda m: f"{len(m.payload['domains'])}",
        "targets": lambda m: f"{len(m.payload['targets'])}",
        "law": lambda m: str(m.payload["law"]),
        "refits": lambda m: f"{m.payload['draws']['count']}",
        "scales on the sliders": lambda m: f"{len(m.payload['engine']['scales']['distance'])}",
        "**a move, ms**: median": lambda m: quantile(m.moves_ms, 50),
        "95 % are faster than": lambda m: quantile(m.moves_ms, 95),
        f"slowest of the first {FIRST}": lambda m: f"{m.moves_ms[:FIRST].max():.1f}",
        "**a move drawn, ms**: median": lambda m: quantile(m.drawn_ms, 50),
        "95 % are faster than ": lambda m: quantile(m.drawn_ms, 95),
        f"within {FRAME_MS} ms": share,
        "the first after loading": lambda m: f"{m.drawn_ms[0]:.1f}",
        f"slowest of the first {FIRST} ": lambda m: f"{m.drawn_ms[:FIRST].max():.1f}",
        "processes that wanted a core": lambda m: f"{m.load:.1f}",
        "the engine's loading, ms": lambda m: f"{m.loaded_ms:.0f}",
        "**bytes**: the whole report": lambda m: f"{m.report_bytes:,}",
        "the explorer's data": lambda m: size(m.payload),
        "of it, the refits": lambda m: size(m.payload["engine"]["draws"]),
        "laws and engine": lambda m: f"{len(m.script):,}",
        "**seconds**: mixlaw fit": lambda m: f"{m.seconds['fit']:.1f}",
        "mixlaw optimize": lambda m: f"{m.seconds['optimize']:.1f}",
        "the explorer, with the refits": lambda m: f"{m.seconds['explorer']:.1f}",
        "the explorer, once more": lambda m: f"{m.seconds['again']:.1f}",
        "the whole report, once refitted": lambda m: f"{m.seconds['report']:.1f}",
        "**to Python**: values, relative": lambda m: f"{m.apart[0]:.0e}",
        "half widths, relative": lambda m: f"{m.apart[1]:.0e}",
    }
    rows = [[name, *map(line, found.values())] for name, line in lines.items()]
    return markdown(["", *found], rows)


def main() -> None:
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        version = browser.version
        found = {name: measure(make, browser) for name, make in CASES.items()}
        browser.close()
    largest = found[LARGEST]
    engine = largest.payload["engine"]
    laws = (1 + engine["num_folds"] + largest.payload["draws"]["count"]) * TARGETS
    p95 = np.percentile(largest.moves_ms[FIRST:], 95)
    body = (
        f"Chromium {version}, {MOVES:,} moves, {DRAWN} drawn, at the study's own target; "
        f"{NUM_DRAWS} refits asked for. A made-up table of {MIXTURES} mixtures of {DOMAINS} "
        f"domains with {TARGETS} targets that all count is the largest case: each move works out "
        f"{laws:,} laws. Wanted there: a move in less than {FRAME_MS} ms ({p95:.1f} ms for 95 %), "
        f"a report of less than {MOST_BYTES:,} bytes ({largest.report_bytes:,}).\n\n"
        + table_of(found)
        + "\n\nA move drawn counts the slider's event, the forecasts, all texts and bars, and the "
        f"layout, not the painting. Differences are of {COMPARED} random mixtures, from even ones "
        "to those of few domains."
    )
    publish("explorer", "The mixture explorer", "python -m benchmarks.explorer", body)


if __name__ == "__main__":
    main()
