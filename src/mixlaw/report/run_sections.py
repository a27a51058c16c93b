"""The sections about the evidence: the runs, the domains, the facts of the study."""

from __future__ import annotations

import platform
import shlex

import numpy as np
from scipy import __version__ as scipy_version

from mixlaw import __version__
from mixlaw.files import digest
from mixlaw.laws.splits import scale_ids
from mixlaw.plots.evidence import (
    Swarm,
    swarm_at_largest_scale,
)
from mixlaw.plots.observations import swarm_tiles
from mixlaw.report.blocks import Code, Notes, Section, Stack, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.sections import Facts
from mixlaw.report.words import (
    count,
    listing,
    number_of,
    percent,
    plain,
    scale_words,
    target_names,
    unit_of,
    value,
)
from mixlaw.runs import FAILED, MISSING, higher_is_better
from mixlaw.study import Study
from mixlaw.study.verification import objective_values, seed_noise

MOST_LICENSES = 3
MOST_SCALES = 12
WIDEST_BESIDE = 8
"""With more domains the picture of the runs takes the page's width."""


def runs_section(facts: Facts) -> Section:
    swarm = swarm_at_largest_scale(facts.runs, facts.objective)
    recommended = facts.decision.recommended.array(swarm.domains)
    predicted = _predicted_at(facts, swarm)
    figure = swarm_tiles(swarm, recommended, predicted)
    label = "Tiles: shares of every trained mixture; dots: its objective."
    says, wide = _swarm_words(facts, swarm), len(swarm.domains) > WIDEST_BESIDE
    picture = drawn(figure, name="runs", label=label, says=says, wide=wide)
    tables: list[Table | Notes] = [_scales_table(facts), _range_table(facts)]
    failed, missing = (
        sorted(set(facts.runs.label[facts.runs.status == status])) for status in (FAILED, MISSING)
    )
    notes = []
    if failed:
        notes.append(
            f"Failed (kept, and left out of every fit): {listing(map(plain, failed), 12)}."
        )
    if missing:
        notes.append(f"Planned, without a result: {listing(map(plain, missing), 12)}.")
    if notes:
        tables.append(Notes(tuple(notes)))
    runs = facts.runs.select(facts.runs.role != "verify").trained()
    lead = (
        f"{number_of(len(set(runs.run)), 'run')} of {number_of(_num_mixtures(runs), 'mixture')}, "
        f"{number_of(len(runs), 'row')} (run, horizon); {len(failed) or 'none'} failed."
    )
    return Section("runs", "The runs it learnt from", lead, (picture, Stack(tuple(tables))))


def _num_mixtures(runs) -> int:
    return int(runs.mixture_ids().max()) + 1


def _predicted_at(facts: Facts, swarm: Swarm) -> float | None:
    """Objective that the law expects of the recommended mixture at the swarm's scale."""
    fitted = facts.laws
    for axis in ("num_params", "train_tokens"):
        if axis in fitted.needs and getattr(swarm, axis) is None:
            return None
    weights = facts.decision.recommended.array(fitted.domains)[None]
    values = fitted.predict(weights, swarm.num_params, swarm.train_tokens)
    return float(facts.objective.values(values, fitted.targets)[0])


def _swarm_words(facts: Facts, swarm: Swarm) -> str:
    means = swarm.means
    main = int(np.argmax(swarm.weights[0]))
    text = (
        f"Mixtures by their objective at {scale_words(swarm.num_params, swarm.train_tokens)}, "
        f"best first: {plain(swarm.labels[0])} ({value(means[0])}) is best with "
        f"{percent(swarm.weights[0, main])} {plain(swarm.domains[main])}, "
        f"{plain(swarm.labels[-1])} ({value(means[-1])}) worst"
    )
    here = (swarm.num_params, swarm.train_tokens)
    noise = {scale: sd for scale, sd in _noise(facts).items() if scale == here}
    if noise and (sd := next(iter(noise.values()))) > 0:
        text += f"; between them lie {(means[-1] - means[0]) / sd:.0f} times the seed noise"
    if swarm.left_out:
        text += f". Shown are {len(means)} mixtures from best to worst, {swarm.left_out} are not"
    return text + "."


def _noise(facts: Facts) -> dict[tuple[float, float], float]:
    return seed_noise(facts.swarm, facts.objective)


def _scales_table(facts: Facts) -> Table:
    """One row per scale: how much was trained there, and how the objective came out."""
    runs = facts.swarm
    scales, scores = scale_ids(runs), objective_values(runs, facts.objective)
    noise = _noise(facts)
    rows = []
    found = np.unique(scales)
    for scale in found[np.linspace(0, len(found) - 1, min(MOST_SCALES, len(found))).astype(int)]:
        at = np.flatnonzero(scales == scale)
        where = (float(runs.num_params[at].max()), float(runs.train_tokens[at].max()))
        deviation = noise.get(where)
        rows.append(
            [
                count(where[0]) if np.isfinite(where[0]) else "unknown",
                count(where[1]) if np.isfinite(where[1]) else "unknown",
                f"{len(set(runs.run[at]))}",
                f"{_num_mixtures(runs.select(at))}",
                value(scores[at].min()),
                value(scores[at].max()),
                "-" if deviation is None else f"{deviation:.4f}",
            ]
        )
    columns = ["parameters", "tokens", "runs", "mixtures", "best", "worst", "seed noise"]
    note = f"Shown are {len(rows)} of {len(found)} scales." if len(rows) < len(found) else ""
    note += " Seed noise: standard deviation of the objective between seeds of one mixture."
    caption = f"Trained scales, objective ({facts.unit})"
    return Table(caption, columns, rows, text=frozenset(), note=note.strip())


def _range_table(facts: Facts) -> Table:
    """Best and worst run for each target at the largest scale."""
    runs = facts.swarm
    scales = scale_ids(runs)
    at = runs.select(scales == scales.max())
    rows = []
    for target, name in target_names(facts.laws.targets).items():
        column = at.column(target)
        known = np.flatnonzero(np.isfinite(column))
        if not len(known):
            continue
        lower = -column[known] if higher_is_better(target) else column[known]
        best, worst = known[np.argmin(lower)], known[np.argmax(lower)]
        rows.append(
            [
                name,
                value(float(column[best])),
                plain(str(at.label[best])),
                value(float(column[worst])),
                plain(str(at.label[worst])),
            ]
        )
    columns = ["target", "best", "by mixture", "worst", "by mixture"]
    where = scale_words(_only(at.num_params), _only(at.train_tokens))
    caption = f"Best and worst run of each target at {where} ({unit_of(facts.laws.targets)})"
    return Table(caption, columns, rows, text=frozenset({0, 2, 4}))


def _only(counts: np.ndarray) -> float | None:
    return float(counts.max()) if np.isfinite(counts).all() else None


def domains_section(study: Study) -> Section | None:
    """None for a study from a table."""
    if study.from_table:
        return None
    summary = study.corpus().summary()
    rows, measured = [], []
    for domain in summary["domains"]:
        if not domain["trained"]:
            measured.append(plain(domain["name"]))
        rows.append(_domain_row(domain))
    columns = ["domain", "documents", "training tokens", "natural share", "validation tokens"]
    columns += ["duplicates removed", "licences (documents)"]
    note = "Duplicates: exact + near."
    if not all(domain.get("found_is_exact", True) for domain in summary["domains"]):
        note += " Natural shares are estimated from a sample where the text was capped."
    caption = f"Domains, in tokens of {summary['tokenizer']} ({summary['vocab_size']:,} ids)"
    table = Table(caption, columns, rows, frozenset({0, 6}), note=note, wide=True)
    trained = [domain for domain in summary["domains"] if domain["trained"]]
    lead = f"{number_of(len(trained), 'domain')} can be trained on"
    if measured:
        lead += f"; {listing(measured)} {'is' if len(measured) == 1 else 'are'} only measured"
    return Section("domains", "The domains", lead + ".", (table,))


def _domain_row(domain: dict) -> list[str]:
    trained = domain["trained"]
    licences = sorted(domain.get("licenses", {}).items(), key=lambda item: -item[1])
    words = [f"{plain(name)} ({number:,})" for name, number in licences[:MOST_LICENSES]]
    if len(licences) > MOST_LICENSES:
        words.append(f"{len(licences) - MOST_LICENSES} more")
    documents = domain.get("train_documents" if trained else "valid_documents")
    return [
        plain(domain["name"]) + ("" if trained else " (only measured)"),
        "unknown" if documents is None else f"{documents:,}",
        count(domain["train_tokens"]) if trained else "-",
        f"{domain['natural_share']:.1%}" if trained else "-",
        count(domain["valid_tokens"]),
        f"{domain.get('removed_exact', 0):,} + {domain.get('removed_near', 0):,}",
        ", ".join(words) or "unknown",
    ]


def versions() -> list[list[str]]:
    """Of what the numbers on the page were worked out with."""
    return [
        ["mixlaw", __version__],
        ["Python, NumPy, SciPy", f"{platform.python_version()}, {np.__version__}, {scipy_version}"],
    ]


def facts_section(facts: Facts) -> Section:
    study, decision = facts.study, facts.decision
    rows = [
        *versions(),
        ["seed", f"{study.config.seed} (of design, folds, starts and refits)"],
        ["law", f"{facts.fitted.law}: {next(iter(facts.fitted.laws.values())).recipe.formula}"],
        [
            "rivals that widen the intervals",
            listing(facts.fitted.rivals) if facts.fitted.rivals else "-",
        ],
        ["study file", digest(study.file.read_text(encoding="utf-8"))],
        ["runs", digest(facts.fitted.cross_validation.runs.rows())],
        ["fit", digest(facts.fitted.to_dict())],
        ["decision", digest(decision.to_dict())],
    ]
    if not study.from_table:
        rows.append(["corpus", study.corpus().digest])
    table = Table("Versions and digests", ["what", "value"], rows, frozenset({0, 1}), wide=True)
    folder = shlex.quote(plain(study.folder.name))
    steps = ["fit", "optimize", "report"]
    if not study.from_table:
        steps = ["corpus", "design", "train", "fit", "optimize", "verify", "report"]
    if study.schedule_decision() is not None:
        steps.insert(-1, "schedule")
    commands = "\n".join(f"mixlaw {step} {folder}" for step in steps)
    lead = (
        "The same study file, seed and version give the same numbers; every step can be repeated "
        "and does again only what has changed."
    )
    return Section("facts", "Facts", lead, (table, Code("To reproduce", commands)))


def warnings_of(facts: Facts) -> tuple[str, ...]:
    """What to read before trusting the decision, each once."""
    found = [*facts.decision.warnings, *facts.laws.warnings]
    found += [f"outside the trained range: {text}" for text in facts.decision.forecast.extrapolates]
    return tuple(dict.fromkeys(map(plain, found)))
