"""What people see of imports, exports and configs of runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mixlaw.cli import show_plans
from mixlaw.cli.terminal import command, heading, line, notes, table
from mixlaw.interop.handover import DOCUMENT
from mixlaw.report.schedule_words import stage_names
from mixlaw.report.words import number_of, plain, short_count
from mixlaw.runs import FAILED, RunTable, higher_is_better
from mixlaw.study.taking import some

if TYPE_CHECKING:
    from mixlaw.interop import Imported
    from mixlaw.study.exported_design import ExportedDesign
    from mixlaw.study.exporting import Export
    from mixlaw.study.importing import Outcome

FIRST_ROWS, MOST_MEANINGS, MOST_IGNORED = 4, 40, 12
MOST_DOMAINS, MOST_TARGETS = 6, 3


def look_json(found: Imported) -> dict[str, Any]:
    """All that a look at a source gives."""
    return {
        "kind": found.kind,
        "sources": list(found.sources),
        "columns": found.columns.to_dict(),
        "ignored": list(found.ignored),
        "notes": list(found.notes),
        "inputs": dict(found.inputs),
        "rows": found.table.rows(),
    }


def import_json(done: Outcome) -> dict[str, Any]:
    """All that became of an import."""
    return {
        **look_json(done.imported),
        "study": str(done.study.file),
        "new_study": done.new,
        "changed_inputs": list(done.inputs),
        "gone": list(done.gone),
        "taken": done.taken.to_dict(),
    }


def look(found: Imported) -> None:
    """What would be imported."""
    _columns(found)
    _first_rows(found.table)
    notes([plain(note) for note in found.notes])
    line("nothing is written. If this is right, add: --into STUDY (a study, or a new folder)")


def repeated(done: Sequence[Outcome]) -> None:
    """What became of all imports of a study."""
    for one in done:
        heading(plain(", ".join(one.imported.sources)))
        _became(one)
    _next(done[-1])


def taken(done: Outcome) -> None:
    """What was imported, and what became of it."""
    _became(done)
    _next(done)


def _became(done: Outcome) -> None:
    found, became = done.imported, done.taken
    if done.new:
        _columns(found)
    for change in done.inputs:
        line(f"files {plain(change)}")
    notes([plain(note) for note in (*found.notes, *became.notes)])
    if done.gone:
        some_runs = plain(some(done.gone))
        notes(
            [
                f"{len(done.gone)} runs that were there before are not there now ({some_runs}), "
                "and stay in the study; to drop them, delete their rows of "
                f"{done.study.config.table}"
            ]
        )
    added = len(became.added)
    parts = ["1 run is new" if added == 1 else f"{added} runs are new"]
    parts += [f"{len(became.changed)} replaced"] if became.changed else []
    parts += [f"{len(became.completed)} completed"] if became.completed else []
    parts += [f"{len(became.same)} as before"] if became.same else []
    parts += [f"{len(became.kept)} others kept"] if became.kept else []
    line(f"{', '.join(parts)}: {_counts(became.runs)}")
    if became.answered:
        line(f"{became.answered} of the runs that were asked for have arrived")
    if done.new:
        line(
            f"wrote {done.study.file}: its objective is a first guess, read it; and import.yaml "
            "beside it"
        )


def _next(done: Outcome) -> None:
    study = shlex.quote(str(done.study.home))
    if all(map(higher_is_better, done.taken.runs.targets)):
        notes(["these runs have scores alone: a fit needs a loss of each run beside them"])
    else:
        line(f"next: mixlaw fit {study}, mixlaw optimize {study}")


def _columns(found: Imported) -> None:
    """Which column was read as what."""
    rows = [(plain(column), plain(meaning)) for column, meaning in found.columns.meanings()]
    what = found.sources[0] if len(found.sources) == 1 else f"{len(found.sources)} sources"
    title = f"{plain(what)} read as {found.kind}: {_counts(found.table)}"
    table(["column", "read as"], rows[:MOST_MEANINGS], title=title)
    if len(rows) > MOST_MEANINGS:
        line(f"and {len(rows) - MOST_MEANINGS} more; --json has all")
    if found.ignored:
        shown = ", ".join(map(plain, found.ignored[:MOST_IGNORED]))
        more = len(found.ignored) - MOST_IGNORED
        line(f"ignored: {shown}{f' and {more} more' if more > 0 else ''}")


def _counts(runs: RunTable) -> str:
    failed = len(set(runs.run[runs.status == FAILED].tolist()))
    counted = {"run": len(set(runs.run.tolist())), "row": len(runs)}
    counted |= {"domain": len(runs.domains), "target": len(runs.targets)}
    text = ", ".join(number_of(number, what) for what, number in counted.items())
    return text + (f", {failed} failed" if failed else "")


def _first_rows(runs: RunTable) -> None:
    """A few rows, of wide tables a few columns."""
    domains, targets = runs.domains[:MOST_DOMAINS], runs.targets[:MOST_TARGETS]
    counts = {"params": runs.num_params, "tokens": runs.train_tokens}
    known = {name: found for name, found in counts.items() if np.isfinite(found).any()}
    rows = []
    for i in range(min(FIRST_ROWS, len(runs))):
        cells = [short_count(found[i]) if found[i] == found[i] else "-" for found in known.values()]
        cells += [f"{runs.weights[i, j]:.3f}" for j in range(len(domains))]
        values = runs.values[i, : len(targets)]
        cells += [f"{value:.3f}" if value == value else "-" for value in values]
        rows.append([plain(runs.run[i]), *cells])
    columns = ["run", *known, *map(plain, domains), *map(plain, targets)]
    table(columns, rows, title="the first rows")
    left = len(runs.domains) + len(runs.targets) - len(domains) - len(targets)
    if left:
        line(f"and {left} more domains and targets")


def exported(found: Export) -> None:
    """What was wanted, what the trainer draws, and how to give it the files."""
    unit = found.exported.unit
    known = any(share.tokens is not None for share in found.shares)
    epochs = any(share.epochs is not None for share in found.shares)
    rows = []
    for share in found.shares:
        row = [plain(share.domain), f"{share.wanted:.4f}", f"{share.realised:.4f}"]
        row += [_count(share.tokens)] if known else []
        row += ["-" if share.epochs is None else f"{share.epochs:.2f}"] if epochs else []
        rows.append(row)
    realised = "of documents" if unit == DOCUMENT else "realised"
    columns = ["share", "wanted", realised, *["tokens"] * known, *["epochs"] * epochs]
    tokens = found.handover.train_tokens
    run = f", {short_count(tokens)} tokens" if tokens else ""
    table(columns, rows, title=f"{found.choice.source} for {found.to}{run}")
    if not found.exported.realised.is_static:
        _stages(found)
    line(f"the weights count {unit}s; checked against {found.checked}")
    notes([plain(note) for note in found.notes])
    files = ", ".join([*found.exported.files, "export.json"])
    line(f"wrote {found.folder}: {plain(files)}")
    heading("use it")
    for text in found.exported.how.splitlines():
        command(text)


def _stages(found: Export) -> None:
    """The realised mixture of each stage."""
    schedule = found.exported.realised
    rows = [
        [plain(name), *(f"{stage.mixture.get(name, 0.0):.4f}" for stage in schedule.stages)]
        for name in found.handover.schedule.domains
    ]
    title = "realised stages, by the share of training that is done"
    table(["share", *stage_names(schedule)], rows, title=title)


def _count(tokens: float | None) -> str:
    if tokens is None:
        return "-"
    return f"{tokens:,.0f}" if tokens < 1e7 else short_count(tokens)


def planned(found: ExportedDesign) -> None:
    """Which runs have a config now, or why none."""
    if found.plan is not None:
        show_plans.plan(found.plan)
        if found.plan.stop:
            line(f"no run is worth doing, so nothing was written to {found.folder}")
            return
    rows = [[run.config, _count(run.num_params), _count(run.train_tokens)] for run in found.runs]
    table(["config", "params", "tokens"], rows, title=f"{len(rows)} runs for {found.to}")
    notes([plain(note) for note in found.notes])
    folder, into = (shlex.quote(str(path)) for path in (found.folder, found.into))
    line(f"wrote {found.folder}. Train each run under the name of its folder, then:")
    command(f"mixlaw import RESULTS --design {folder} --into {into}")
    if found.folder == found.into:
        line("its study.yaml asks what this study asks, of the results of the other trainer")
    if found.how:
        heading(f"use {found.runs[0].config}")
        for text in found.how.splitlines():
            command(text)
