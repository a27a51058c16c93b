"""Write the report of a study: collect, render, one file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mixlaw.files import write_text
from mixlaw.report import (
    fit_sections,
    freedom_sections,
    run_sections,
    sections,
    verified_sections,
)
from mixlaw.report.blocks import Picture, kind
from mixlaw.report.style import PALETTE, matplotlib_context
from mixlaw.report.verdict import headline
from mixlaw.report.words import plain
from mixlaw.study import Study


def write_report(study: Study) -> Path:
    """Write `report.html` into the study's folder: self-contained, readable offline.

    The same study gives the same bytes.
    Raises: MissingExtraError: matplotlib is not installed. StudyError: nothing to report yet.
    """
    path = study.folder / "report.html"
    write_text(path, render(study))
    return path


def render(study: Study) -> str:
    """The report as HTML; names of domains, targets and runs are escaped."""
    with matplotlib_context():  # a missing package is told before anything is computed
        facts = sections.Facts.of(study)
    parts = [
        sections.mixture_section(facts),
        sections.forecast_section(facts),
        freedom_sections.freedom_section(facts),
        freedom_sections.tradeoffs_section(facts.front),
        verified_sections.verification_section(facts),
        run_sections.runs_section(facts),
        fit_sections.fits_section(facts),
        fit_sections.curves_section(facts),
        run_sections.domains_section(facts),
        run_sections.facts_section(facts),
    ]
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (files("mixlaw.report") / "template.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=plain(study.folder.resolve().name),
        head=headline(facts.decision, facts.verification, facts.noise),
        warnings=run_sections.warnings_of(facts),
        sections=[section for section in parts if section is not None],
        palette=PALETTE,
        kind=kind,
        drawings=_drawings,
    )


def _drawings(picture: Picture) -> list[Markup]:
    # SVG from `inline_svg`, where every name went through an XML serialiser.
    return [Markup(svg) for svg in picture.svgs]
