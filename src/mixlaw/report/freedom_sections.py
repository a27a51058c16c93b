"""Where the mixture may move: nearly as good mixtures, sensitivities, other scales, trade-offs."""

from __future__ import annotations

from mixlaw.optimize.decision import Decision
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.report import figures
from mixlaw.report.blocks import Key, Notes, Picture, Section, Stack, Table
from mixlaw.report.sections import Facts
from mixlaw.report.svg import inline_svg
from mixlaw.report.words import listing, percent, plain, short_count, target_names
from mixlaw.study.verification import RECOMMENDED

MOST_TARGETS = 3


def freedom_section(facts: Facts) -> Section:
    """How far each share may move, and what that costs."""
    decision = facts.decision
    figure = figures.freedom(decision)
    label = "Bars: the range of each share among mixtures that are nearly as good."
    keys = (
        Key("muted", "bar", "nearly as good"),
        Key("recommended", "circle", "recommended"),
    )
    picture = Picture(_free_words(decision), (inline_svg(figure, name="free", label=label),), keys)
    beside: list[Table | Notes] = [_sensitivities(facts)]
    if decision.scales:
        beside.append(_other_scales(decision))
    lead = (
        "The law predicts an objective within "
        f"{decision.region.tolerance:.2g} of the best for every share in these ranges, if the "
        "other domains move along. So choose within them by what the data costs you."
    )
    return Section("freedom", "Where you are free", lead, (picture, Stack(tuple(beside))))


def _free_words(decision: Decision) -> str:
    widths = {name: high - low for name, (low, high) in decision.region.ranges.items()}
    loose, tight = max(widths, key=widths.__getitem__), min(widths, key=widths.__getitem__)

    def words(name: str) -> str:
        low, high = decision.region.ranges[name]
        return f"{plain(name)} ({percent(low)} to {percent(high)})"

    return f"{words(loose)} is freest, {words(tight)} is decided most sharply."


def _sensitivities(facts: Facts) -> Table:
    decision = facts.decision
    targets = facts.drawn_targets()[:MOST_TARGETS]
    names = target_names(targets)
    rows = []
    for domain, found in decision.sensitivities.items():
        low, high = decision.region.ranges[domain]
        changes = [f"{found.objective:+.4f}", *(f"{found.targets[t]:+.4f}" for t in targets)]
        rows.append([plain(domain), f"{low:.1%} to {high:.1%}", *changes])
    return Table(
        "One more percentage point of a domain, the others giving in proportion",
        ["domain", "nearly as good", "objective", *(names[t] for t in targets)],
        rows,
        note="Changes of the forecast; below 0 is better for the objective and for losses, above 0 "
        "for scores. Bounds are not regarded: a "
        "domain at its cap shows what the cap costs.",
    )


def _other_scales(decision: Decision) -> Table:
    mixtures = [decision.recommended, *(scale.mixture for scale in decision.scales)]
    rows = [
        [plain(d), *(f"{mixture.get(d, 0.0):.1%}" for mixture in mixtures)]
        for d in decision.recommended
    ]
    costs = [scale.recommended - scale.objective for scale in decision.scales]
    rows.append(["cost of the recommended", "-", *(f"{cost:.4f}" for cost in costs)])
    counts = ((scale.num_params, scale.train_tokens) for scale in decision.scales)
    names = [" × ".join(short_count(n) for n in pair if n) for pair in counts]
    return Table(
        "The optimum at other scales (parameters × tokens)",
        ["domain", RECOMMENDED, *names],
        rows,
        strong=frozenset({len(rows) - 1}),
        note="Last row: how much lower the objective of that optimum is predicted there than that "
        "of the recommended mixture.",
    )


def tradeoffs_section(front: ParetoFront | None) -> Section | None:
    """What the objectives cost each other; None for a study without trade-offs."""
    if front is None:
        return None
    names = [plain(name) for name in front.objectives]
    figure = figures.pareto_front(front)
    label = "The Pareto front between the objectives."
    picture = Picture(_front_words(front), (inline_svg(figure, name="front", label=label),))
    domains = list(front.mixtures[0])
    rows = [
        [f"{values[0]:.4f}", *(f"{v:.4f}" for v in values[1:]), *(f"{m[d]:.1%}" for d in domains)]
        for values, m in zip(front.values, front.mixtures, strict=True)
    ]
    table = Table("Mixtures on the front", [*names, *map(plain, domains)], rows, wide=True)
    lead = f"No mixture is predicted better in all of {listing(names)} than one of these."
    return Section("tradeoffs", "Trade-offs", lead, (picture, table))


def _front_words(front: ParetoFront) -> str:
    """What the last objective's best costs the first."""
    first, last = front.values[0], front.values[-1]
    gained, paid = first[-1] - last[-1], last[0] - first[0]
    return (
        f"From the best mixture for {plain(front.objectives[0])} to the other end, "
        f"{plain(front.objectives[-1])} falls by {gained:.3f} and "
        f"{plain(front.objectives[0])} rises by {paid:.3f}."
    )
