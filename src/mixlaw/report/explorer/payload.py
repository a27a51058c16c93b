"""All that the page needs of a study to forecast any mixture by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np

from mixlaw.errors import MixlawError
from mixlaw.interop import snippet_for
from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.laws.coding import coded
from mixlaw.laws.links import LinkedLaws
from mixlaw.laws.portable import NotPortable, Portable, javascript, portable, portable_links
from mixlaw.laws.selection import FittedLaws
from mixlaw.optimize.decide import Question
from mixlaw.optimize.evidence import distance_from_trained
from mixlaw.plots.words import objective_unit, plain, target_names
from mixlaw.report.explorer import asked, doubt
from mixlaw.report.explorer.draws import Drawn, drawn
from mixlaw.report.explorer.places import Counts, Places
from mixlaw.report.explorer.presets import compared, mixtures_of, presets
from mixlaw.report.words import objective_words
from mixlaw.runs import UNITS, RunTable, higher_is_better
from mixlaw.study import Study
from mixlaw.study.exploring import handover_for, question_of

NUM_DRAWS = 200
FORMAT_VERSION = 1

ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def escaped_json(data: Any) -> str:
    """JSON for a `<script type="application/json">`: no text in it can end the element, or begin
    a comment.

    Raises: ValueError: a NaN or infinity, which JSON lacks.
    """
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    # Half a surrogate pair is no character that a file can hold; JSON can say it.
    return text.translate(ESCAPES).encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, eq=False)
class Explorer:
    """The mixture explorer of a study.

    Attributes:
        payload: JSON-able; see `explorer`.
        pages: the laws, as the page works them out.
    """

    payload: Mapping[str, Any]
    pages: tuple[Portable, ...]

    @cached_property
    def script(self) -> str:
        """JavaScript that gives a page the object `mixlaw`, with `mixlaw.engine(payload)`."""
        engine = files("mixlaw.report.explorer") / "engine.js"
        return f"{javascript(self.pages)}\n{engine.read_text(encoding='utf-8')}"


def explorer(study: Study, *, num_draws: int = NUM_DRAWS) -> Explorer | str:
    """The explorer of a study that decides, or, in a sentence, why it has none.

    Args: num_draws: refits to resampled runs, at most so many as the page has room for; 0: none.
    Raises: StudyError: there is nothing to decide yet.
    """
    question, runs = question_of(study), study.runs().trained().static().done()
    fitted = question.fitted
    if not isinstance(fitted, FittedLaws | LinkedLaws):
        return f"the law {fitted.law!r} is not one of mixlaw's own, so this page cannot work it out"
    try:
        return _Builder(study, question, fitted, runs).build(num_draws)
    except NotPortable as error:
        return f"this page cannot try other mixtures: {error}"


class _Builder:
    """One study on its way to a page."""

    def __init__(
        self, study: Study, question: Question, fitted: FittedLaws | LinkedLaws, runs: RunTable
    ):
        self.study, self.question, self.fitted = study, question, fitted
        self.laws = fitted.laws if isinstance(fitted, LinkedLaws) else fitted
        self.places = Places.of(question, runs, fitted.needs)
        self.counts: list[Counts] = self.places.counts()
        self.level, self.seed = study.config.fit.level, study.config.seed
        self.terms = asked.terms_of(question.objective, fitted.targets)

    def build(self, num_draws: int) -> Explorer:
        laws = portable(list(self.laws.laws.values()), scales=self.counts)
        in_folds = [law for fold in self.laws.folds for law in fold.values()]
        folds = portable(in_folds, scales=self.counts, short=True)
        taken = len(json.dumps([laws.data, folds.data]))
        draws = drawn(self.study, self.fitted, self.terms, self.places, num_draws, taken=taken)
        links, linked = self._links()
        mixtures = mixtures_of(self.question, self.study.optimize().recommended)
        payload = {
            **self._said(),
            "presets": presets(self.question, mixtures, self.seed),
            "draws": {"count": draws.count, "note": draws.note},
            "trainers": trainers(self.study),
            "engine": {
                "laws": laws.data,
                "folds": folds.data,
                "links": links,
                **self._engine(draws, mixtures),
            },
        }
        pages = (laws, folds, *linked, *([draws.page] if draws.page else ()))
        return Explorer(payload, pages)

    def _links(self) -> tuple[dict[str, Any] | None, list[Portable]]:
        fitted = self.fitted
        if not isinstance(fitted, LinkedLaws):
            return None, []
        losses = fitted.laws.targets
        full = portable_links([link.link for link in fitted.links.values()], losses)
        folds = [portable_links(list(links.values()), losses) for links in fitted.fold_links]
        return {"full": full.data, "folds": [fold.data for fold in folds]}, [full, *folds]

    def _said(self) -> dict[str, Any]:
        """What the page shows."""
        question, fitted = self.question, self.fitted
        objective, domains, support = question.objective, question.ordered(), question.support
        assert support is not None, "a study compares with the mixtures that were trained"
        labels, shares = target_names(fitted.targets), objective.shares
        return {
            "version": FORMAT_VERSION,
            "study": plain(self.study.folder.resolve().name),
            "unit": objective_unit(objective),
            "law": fitted.law,
            "domains": list(fitted.domains),
            "available_tokens": [domain.available_tokens for domain in domains],
            "level": self.level,
            "targets": [
                {
                    "name": name,
                    "label": labels[name],
                    "unit": UNITS[name.partition("/")[0]],
                    "weight": shares.get(name, 0.0),
                    "higher_is_better": higher_is_better(name),
                }
                for name in fitted.targets
            ],
            "objective": {
                "words": objective_words(objective),
                "unit": objective_unit(objective),
                "linear": objective.linear,
            },
            "scale": self.places.to_dict(),
            "bounds": asked.bounds(question),
            "trained_range": {
                "low": support.min(axis=0).tolist(),
                "high": support.max(axis=0).tolist(),
            },
        }

    def _engine(self, draws: Drawn, mixtures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the forecasts are made from, beside the laws."""
        question, fitted = self.question, self.fitted
        names = [mixture["name"] for mixture in mixtures]
        counts = dict(zip(("num_params", "train_tokens"), self.places.fixed, strict=True))
        relative = question.objective.relative_to
        # A baseline of the study may be called as the decision's own mixture is not.
        baseline = None if relative is None else names.index(relative)
        unit_rows = np.eye(len(fitted.targets))
        rows = unit_rows if relative else np.vstack([unit_rows, self.terms])
        return {
            "at": counts,
            "num_folds": len(self.laws.folds),
            "draws": draws.data,
            "objective": {"rows": self.terms.tolist(), "relative": baseline},
            "multipliers": (shares := asked.multipliers(question, self.terms, self.seed)),
            "mixtures": list(mixtures),
            "against": compared(question),
            "floors": asked.floors(question, names),
            "constants": asked.constants(self.level),
            "within": doubt.within_data(fitted, self.level),
            "far": doubt.far_widths(fitted, rows, self.level),
            "scales": self._scales(np.array(shares)),
            "distance": self._distance(),
        }

    def _scales(self, multipliers: np.ndarray) -> dict[str, Any]:
        """What differs from place to place of the sliders."""
        distance, widening = doubt.distances(self.fitted, self.counts)
        rivals = doubt.rival_levels(self.fitted, self.counts)
        relative = self.question.objective.relative_to is not None
        terms = np.stack([self._terms_at(place) for place in self.counts])
        pressing = np.einsum("c,gct->gt", multipliers, terms)
        own = doubt.own_scales(self.fitted, pressing[:, None], self.counts)[:, 0]
        own_terms = None
        if relative:
            several = len(multipliers) > 1
            own_terms = (
                doubt.own_scales(self.fitted, terms, self.counts) if several else own[:, None]
            )
        return {
            "distance": distance,
            "widening": widening,
            "num_rivals": rivals.shape[1],
            "rivals": coded(rivals, "f32"),
            "own": own.tolist(),
            "own_terms": None if own_terms is None else own_terms.tolist(),
        }

    def _terms_at(self, place: Counts) -> np.ndarray:
        num_params, train_tokens = place
        there = replace(self.question, num_params=num_params, train_tokens=train_tokens)
        return asked.terms_at(there, self.terms)

    def _distance(self) -> dict[str, Any]:
        support, names = self.question.support, self.fitted.domains
        assert support is not None
        trained = np.unique(np.round(support, 9), axis=0)
        found = distance_from_trained(self.study.optimize().recommended, names, support)
        return {
            "trained": coded(trained, "f32"),
            "typical": found.typical,
            "largest": found.largest,
        }


def trainers(study: Study) -> list[dict[str, Any]]:
    """Each trainer's config for any mixture, or why it has none."""
    out = []
    for name in EXPORTERS:
        try:
            told = snippet_for(handover_for(study, name), name).to_dict()
        except MixlawError as error:  # it has none, or the study's export section is wrong
            told = {"why": str(error)}
        out.append({"name": name, "what": exporter(name).what, **told})
    return out
