"""Write the report of a study: collect, render, one file."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mixlaw.errors import StudyError
from mixlaw.files import write_text
from mixlaw.plots.style import PALETTE, matplotlib_context
from mixlaw.report import (
    continual_sections,
    effects_sections,
    fit_sections,
    freedom_sections,
    run_sections,
    scale_sections,
    schedule_sections,
    sections,
    verified_sections,
)
from mixlaw.report.blocks import Picture, Section, kind
from mixlaw.report.explorer import explorer
from mixlaw.report.explorer.embed import Embedded, embed
from mixlaw.report.explorer.payload import NUM_DRAWS
from mixlaw.report.next_steps import Known, command_of, next_steps, place_of
from mixlaw.report.verdict import Headline, headline, level_words
from mixlaw.report.words import plain
from mixlaw.study import Study
from mixlaw.study.artefacts import CONTINUAL, SCHEDULE, VERIFICATION

RENEWED_BY = {VERIFICATION: "verify", SCHEDULE: "schedule", CONTINUAL: "continual"}
"""Command that makes an answer anew."""


def write_report(study: Study, *, draws: int = NUM_DRAWS, path: Path | None = None) -> Path:
    """Write the report of a study: self-contained, readable offline.

    The same study gives the same bytes.

    Args:
        draws: refits to resampled runs for the mixture explorer, at most; 0: none.
        path: default: `report.html` in the study's folder.
    Returns: the path.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: nothing to report yet.
    """
    path = path or study.folder / "report.html"
    write_text(path, render(study, draws=draws))
    return path


@dataclass(frozen=True)
class _Page:
    """What fills the template; sections that are None are left out."""

    head: Headline
    warnings: tuple[str, ...]
    sections: Sequence[Section | None]


def render(study: Study, *, draws: int = NUM_DRAWS) -> str:
    """The report as HTML; names of domains, targets and runs are escaped."""
    with matplotlib_context():  # a missing package is told before anything is computed
        page = _continual_page(study) if study.only_continual else _page(study)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found = Embedded()
    if not study.only_continual:
        found = embed(explorer(study, num_draws=draws), environment)
    source = (files("mixlaw.report") / "template.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=plain(study.folder.resolve().name),
        head=page.head,
        warnings=page.warnings,
        sections=[section for section in page.sections if section is not None],
        palette=PALETTE,
        kind=kind,
        drawings=_drawings,
        explorer=found,
    )


def _page(study: Study) -> _Page:
    """Of a study that decides a mixture."""
    facts, continued = sections.Facts.of(study), study.continual_answer()
    head = headline(
        facts.decision,
        facts.verification,
        facts.noise,
        level=level_words(facts.laws.needs, facts.swarm, facts.decision),
    )
    known = Known(study, facts.decision, facts.runs, head.mood, place_of(study))
    head = replace(head, steps=next_steps(known))
    scheduled, seen = study.schedule_decision(), study.schedule_verification()
    answers = {VERIFICATION: facts.verification, SCHEDULE: scheduled, CONTINUAL: continued}
    return _Page(
        schedule_sections.with_schedule(study, head, scheduled, seen),
        (
            *run_sections.warnings_of(facts),
            *_stale(study, answers),
        ),
        [
            sections.mixture_section(facts),
            sections.forecast_section(facts),
            verified_sections.verification_section(facts),
            freedom_sections.freedom_section(facts),
            effects_sections.effects_section(facts),
            freedom_sections.tradeoffs_section(facts.front),
            scheduled and schedule_sections.schedule_section(study, scheduled, seen),
            *(continual_sections.sections(continued) if continued else ()),
            run_sections.runs_section(facts),
            fit_sections.fits_section(facts),
            scale_sections.drift_section(facts),
            scale_sections.curves_section(facts),
            run_sections.domains_section(study),
            run_sections.facts_section(facts),
        ],
    )


def _stale(study: Study, answers: Mapping[str, object | None]) -> list[str]:
    """One sentence for each answer that lies in the folder and is not of the present state.

    Args: answers: file -> what it gave; None: not of the present state.
    """
    asked = {SCHEDULE} if study.from_table else {SCHEDULE, VERIFICATION}
    asked |= set() if study.config.continual is None else {CONTINUAL}
    return [
        f"{name} is of an earlier state (the runs, the study file or mixlaw changed since) and is "
        f"not shown; renew it: {command_of(study, RENEWED_BY[name])}"
        for name, answer in answers.items()
        if answer is None and name in asked and (study.folder / name).exists()
    ]


def _continual_page(study: Study) -> _Page:
    """Of a study that only continues a model. Raises: StudyError: it has not yet."""
    found = study.continual_answer()
    if found is None:
        raise StudyError(
            f"{study.folder} has no answer of its present settings; first: "
            f"mixlaw continual {shlex.quote(str(study.folder))}"
        )
    head = continual_sections.headline(found)
    return _Page(
        replace(head, steps=continual_sections.next_steps(study, found)),
        continual_sections.warnings_of(found),
        [
            *continual_sections.page_sections(found),
            run_sections.domains_section(study),
            continual_sections.facts_section(study, found),
        ],
    )


def _drawings(picture: Picture) -> list[Markup]:
    # SVG from `inline_svg`, where every name went through an XML serialiser.
    return [Markup(svg) for svg in picture.svgs]
