"""The sections about the evidence: runs, fits, forecast curves, domains, facts."""

from __future__ import annotations

import numpy as np

from mixlaw import __version__
from mixlaw.files import digest
from mixlaw.laws.validation import MIXTURE_SPLIT, SCALE_SPLIT, Scores, scale_ids
from mixlaw.report import figures
from mixlaw.report.blocks import Code, Key, Notes, Part, Picture, Section, Table
from mixlaw.report.evidence import Swarm, centred, curves_of, size_levels, swarm_at_largest_scale
from mixlaw.report.sections import Facts
from mixlaw.report.style import size_look
from mixlaw.report.svg import inline_svg
from mixlaw.report.words import (
    count,
    listing,
    number_of,
    percent,
    plain,
    scale_words,
    short_count,
    signed,
    target_names,
    unit_of,
    value,
)
from mixlaw.runs import FAILED
from mixlaw.study.verification import objective_values, seed_noise

POOR_RATIO = 0.5
"""A target whose held-out error is above this share of predicting the mean is called out."""
MOST_LICENSES = 3
MOST_SCALES = 12


def runs_section(facts: Facts) -> Section:
    swarm = swarm_at_largest_scale(facts.runs, facts.objective)
    recommended = facts.decision.recommended.array(swarm.domains)
    predicted = _predicted_at(facts, swarm)
    figure = figures.trained_mixtures(swarm, recommended, predicted)
    label = "Tiles: shares of every trained mixture; dots: its objective."
    keys = (Key("ink", "circle", "observed, one per seed"),)
    if predicted is not None:
        keys += (Key("recommended", "ring", "predicted for the recommended mixture"),)
    parts: list[Part] = [
        Picture(
            _swarm_words(facts, swarm),
            (inline_svg(figure, name="runs", label=label),),
            keys,
            wide=len(swarm.domains) > 12,
        ),
        _scales_table(facts),
        _range_table(facts, swarm),
    ]
    failed = sorted(set(facts.runs.label[facts.runs.status == FAILED]))
    if failed:
        names = listing(map(plain, failed), 12)
        parts.append(Notes((f"Failed (kept, and left out of every fit): {names}.",)))
    runs = facts.runs.select(facts.runs.role != "verify")
    lead = (
        f"{number_of(len(set(runs.run)), 'run')} of {number_of(_num_mixtures(runs), 'mixture')}, "
        f"{number_of(len(runs), 'row')} (run, horizon); {len(failed) or 'none'} failed."
    )
    return Section("runs", "The runs it learnt from", lead, tuple(parts))


def _num_mixtures(runs) -> int:
    return int(runs.mixture_ids().max()) + 1


def _predicted_at(facts: Facts, swarm: Swarm) -> float | None:
    """Objective that the law expects of the recommended mixture at the swarm's scale."""
    fitted = facts.fitted
    for axis in ("num_params", "train_tokens"):
        if axis in fitted.needs and getattr(swarm, axis) is None:
            return None
    weights = facts.decision.recommended.array(fitted.domains)[None]
    values = fitted.predict(weights, swarm.num_params, swarm.train_tokens)
    return float((values @ facts.objective.coefficients(fitted.targets))[0])


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


def _range_table(facts: Facts, swarm: Swarm) -> Table:
    """Best and worst loss of each target at the largest scale."""
    runs = facts.swarm
    scales = scale_ids(runs)
    at = runs.select(scales == scales.max())
    rows = []
    for target, name in target_names(facts.fitted.targets).items():
        column = at.column(target)
        known = np.flatnonzero(np.isfinite(column))
        if not len(known):
            continue
        best, worst = known[np.argmin(column[known])], known[np.argmax(column[known])]
        rows.append(
            [
                name,
                value(column[best]),
                plain(at.label[best]),
                value(column[worst]),
                plain(at.label[worst]),
            ]
        )
    columns = ["target", "best", "by mixture", "worst", "by mixture"]
    where = scale_words(_only(at.num_params), _only(at.train_tokens))
    caption = f"Best and worst run of each target at {where} ({unit_of(facts.fitted.targets)})"
    return Table(caption, columns, rows, text=frozenset({0, 2, 4}))


def _only(counts: np.ndarray) -> float | None:
    return float(counts.max()) if np.isfinite(counts).all() else None


def fits_section(facts: Facts) -> Section:
    fitted, validation = facts.fitted, facts.fitted.cross_validation
    label = "Held-out error of every candidate law; 1 is predicting the mean."
    keys = [Key("natural", "square", "unseen mixtures, trained scales")]
    if SCALE_SPLIT in validation.splits:
        keys.append(Key("recommended", "circle", "unseen mixtures at an unseen scale (decides)"))
    laws = Picture(
        _laws_words(facts),
        (inline_svg(figures.law_errors(validation, fitted.law), name="laws", label=label),),
        tuple(keys),
    )
    parts = [laws, _laws_table(facts), _panels(facts), _targets_table(facts)]
    decides = validation.deciding_split == SCALE_SPLIT
    lead = (
        f"The law {fitted.law} was chosen among {len(validation.scores)} by cross-validation that "
        "holds out whole mixtures"
        + (
            " and the largest trained scale"
            if decides
            else "; the runs have too few scales to hold one out as well"
        )
        + ", never random rows. Every error here is on runs that the fit had not seen."
    )
    return Section("fits", "The fits, on runs held out", lead, tuple(parts))


def _laws_words(facts: Facts) -> str:
    validation = facts.fitted.cross_validation
    ranking = validation.ranking()
    error = ranking[facts.fitted.law]
    text = (
        f"On the deciding split {facts.fitted.law} leaves {percent(error)} of the squared error of "
        "predicting the mean"
    )
    others = [name for name in ranking if name != facts.fitted.law]
    if others:
        text += f"; next is {others[0]} with {percent(ranking[others[0]])}"
    return text + "."


def _laws_table(facts: Facts) -> Table:
    validation = facts.fitted.cross_validation
    ranking = list(validation.ranking())
    refused = [name for name in validation.refused if name not in ranking]
    splits = [split for split in (SCALE_SPLIT, MIXTURE_SPLIT) if split in validation.splits]
    rows = []
    for name in [*ranking, *refused]:
        row = [f"{name} (chosen)" if name == facts.fitted.law else name]
        for split in splits:
            row += _score_cells(validation.scores[name].get(split))
        reasons = dict.fromkeys(validation.refused.get(name, {}).values())
        rows.append([*row, "; ".join(map(plain, reasons))])
    titles = {SCALE_SPLIT: "unseen scale", MIXTURE_SPLIT: "unseen mixtures"}
    columns = ["law"]
    for split in splits:
        columns += [f"{titles[split]}: error", "mean abs. error", "rank correlation"]
    if any(row[-1] for row in rows):
        columns.append("refused because")
    else:
        rows = [row[:-1] for row in rows]
    text = {0, len(columns) - 1} if columns[-1].startswith("refused") else {0}
    note = (
        "Averages over targets. Error: squared error as a share of that of predicting the mean of "
        "the other mixtures at the same scale. Rank correlation: over mixtures within a scale."
    )
    caption = "Every candidate law on held-out runs"
    return Table(caption, columns, rows, frozenset(text), frozenset({0}), note, wide=True)


def _score_cells(scores: Scores | None) -> list[str]:
    if scores is None:
        return ["-", "-", "-"]
    error = float(np.mean(scores.normalised_error))
    return [
        f"{error:.3f}" if error < 1000 else f"{error:.1e}",
        f"{np.mean(scores.mae):.4f}" if np.mean(scores.mae) < 1000 else f"{np.mean(scores.mae):.1e}",
        f"{np.mean(scores.spearman):.3f}",
    ]


def _panels(facts: Facts) -> Picture:
    """Small multiples of predicted against observed."""
    validation, law = facts.fitted.cross_validation, facts.fitted.law
    svgs = tuple(
        inline_svg(
            figures.held_out(validation, law, target),
            name=f"held{i}",
            label=f"Predicted against observed for {plain(target)}, held out.",
        )
        for i, target in enumerate(facts.drawn_targets())
    )
    text = (
        "Each loss less the observed mean of its scale, so that only differences between mixtures "
        "and errors of level remain; on the diagonal is right, the dashed line predicts the mean. "
    )
    return Picture(
        text + _level_words(facts) + facts.not_drawn(), svgs, _size_keys(facts), wide=True
    )


def _level_words(facts: Facts) -> str:
    """How much of the error at the unseen scale is shared by all mixtures."""
    validation, law = facts.fitted.cross_validation, facts.fitted.law
    if SCALE_SPLIT not in validation.splits:
        return _rank_words(validation.scores[law][MIXTURE_SPLIT])
    shift = {
        target: float(np.mean(found.predicted - found.observed))
        for target in facts.fitted.targets
        for found in [centred(validation, law, SCALE_SPLIT, target)]
    }
    worst = max(shift, key=lambda target: abs(shift[target]))
    name = target_names(facts.fitted.targets)[worst]
    side = "too high" if shift[worst] > 0 else "too low"
    return (
        f"At the unseen scale the level is missed most on {name}: on average predicted "
        f"{abs(shift[worst]):.3f} {side}."
    )


def _rank_words(scores: Scores) -> str:
    low, high = scores.spearman.min(), scores.spearman.max()
    return f"Rank correlations over held-out mixtures run from {low:.2f} to {high:.2f}."


def _size_keys(facts: Facts) -> tuple[Key, ...]:
    runs = facts.fitted.cross_validation.runs
    levels = size_levels(runs)
    num_levels = int(levels.max()) + 1
    keys = {}
    for level in range(num_levels):
        sizes = runs.num_params[levels == level]
        known = np.isfinite(sizes).all()
        name = f"{short_count(float(sizes.max()))} parameters" if known else "held-out mixture"
        keys.setdefault(size_look(level, num_levels), name)
    out = tuple(Key(*look, text) for look, text in keys.items())
    if SCALE_SPLIT in facts.fitted.cross_validation.splits:
        out += (Key("ink", "ring", "unseen scale"),)
    return out


def _targets_table(facts: Facts) -> Table:
    validation, law = facts.fitted.cross_validation, facts.fitted.law
    splits = [s for s in (SCALE_SPLIT, MIXTURE_SPLIT) if s in validation.scores[law]]
    titles = {SCALE_SPLIT: "unseen scale", MIXTURE_SPLIT: "unseen mixtures"}
    rows, poor = [], []
    names = target_names(validation.targets)
    for t, target in enumerate(validation.targets):
        row = [names[target]]
        for split in splits:
            scores = validation.scores[law][split]
            ratio = scores.mae[t] / scores.mae_of_mean[t]
            row += [value(scores.mae[t]), f"{ratio:.2f}", f"{scores.spearman[t]:.3f}"]
            if split == validation.deciding_split and ratio > POOR_RATIO:
                poor.append(names[target])
        rows.append(row)
    columns = ["target"]
    for split in splits:
        columns += [f"{titles[split]}: mean abs. error", "ratio to the mean", "rank correlation"]
    note = "Ratio to the mean: the error divided by that of predicting the mean; below 0.5 is good."
    if poor:
        note += f" Above it on the deciding split: {listing(poor)}: lean on these with care."
    caption = f"The chosen law by target ({unit_of(validation.targets)})"
    return Table(caption, columns, rows, note=note, wide=True)


def curves_section(facts: Facts) -> Section | None:
    """None when the law reads no scale."""
    curves = curves_of(facts.fitted, facts.decision, facts.objective, facts.runs)
    if curves is None:
        return None
    seen = {}
    if facts.verification is not None and curves.target is not None:
        seen = {curves.target[0]: facts.verification.mixtures["recommended"].observed}
        if "tokens" in curves.x_label:
            seen |= {x: [y] for x, y in facts.verification.mixtures["recommended"].curve[:-1]}
    label = "The law's forecast for the recommended mixture along scale, with observations."
    svg = inline_svg(figures.forecast_curves(curves, seen), name="scale", label=label)
    keys = [Key(line.look[0], "line", line.text) for line in curves.lines]
    name, distance = curves.nearest
    keys.append(Key("muted", "bar", "range of the trained mixtures"))
    keys.append(Key("muted", "circle", f"{plain(name)}, the trained mixture nearest to it"))
    keys.append(Key("recommended", "diamond", "forecast with interval"))
    if seen:
        keys.append(Key("ink", "star", "recommended mixture, observed"))
    says = (
        f"The lines are the law for the recommended mixture; the nearest trained mixture, "
        f"{plain(name)}, differs from it in {percent(distance)} of the tokens, so its points lie "
        f"near the lines where the law is right. {_reach_words(facts)}"
    )
    picture = Picture(says, (svg,), tuple(keys), wide=True)
    return Section("curves", "The forecast along scale", _formula_words(facts), (picture,))


def _formula_words(facts: Facts) -> str:
    law = next(iter(facts.fitted.laws.values())).recipe
    return f"The law {law.name}, fitted to each target: {law.formula}"


def _reach_words(facts: Facts) -> str:
    decision, runs = facts.decision, facts.swarm
    parts = []
    for name, target, seen in (
        ("parameters", decision.num_params, runs.num_params),
        ("tokens", decision.train_tokens, runs.train_tokens),
    ):
        if target is not None and np.isfinite(seen).all():
            parts.append(f"{target / seen.max():.3g} times the {name}")
    return f"The target has {listing(parts)} of the largest run." if parts else ""


def domains_section(facts: Facts) -> Section | None:
    """None for a study from a table."""
    if facts.study.from_table:
        return None
    summary = facts.study.corpus().summary()
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


def facts_section(facts: Facts) -> Section:
    study, decision = facts.study, facts.decision
    rows = [
        ["mixlaw", __version__],
        ["seed", f"{study.config.seed}"],
        ["law", f"{facts.fitted.law}: {next(iter(facts.fitted.laws.values())).recipe.formula}"],
        ["rivals in the intervals", listing(facts.fitted.rivals) if facts.fitted.rivals else "-"],
        ["runs", digest(facts.fitted.cross_validation.runs.rows())],
        ["fit", digest(facts.fitted.to_dict())],
        ["decision", digest(decision.to_dict())],
    ]
    if not study.from_table:
        rows.insert(4, ["corpus", study.corpus().digest])
    table = Table("Versions and digests", ["what", "value"], rows, frozenset({0, 1}), wide=True)
    folder = plain(study.folder.name)
    steps = ["fit", "optimize", "report"]
    if not study.from_table:
        steps = ["corpus", "design", "train", "fit", "optimize", "verify", "report"]
    commands = "\n".join(f"mixlaw {step} {folder}" for step in steps)
    lead = (
        "The same study file, seed and version give the same numbers; every step can be repeated "
        "and does again only what has changed."
    )
    return Section("facts", "Facts", lead, (table, Code("To reproduce", commands)))


def warnings_of(facts: Facts) -> tuple[str, ...]:
    """What to read before trusting the decision, each once."""
    found = [*facts.decision.warnings, *facts.fitted.warnings]
    found += [f"outside the trained range: {text}" for text in facts.decision.forecast.extrapolates]
    return tuple(dict.fromkeys(map(plain, found)))
