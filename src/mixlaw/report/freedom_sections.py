"""Where the mixture may move: nearly as good mixtures, other scales, trade-offs."""

from __future__ import annotations

from collections.abc import Sequence

from mixlaw import plots
from mixlaw.optimize.decision import AtOtherScale, Decision
from mixlaw.optimize.pareto import ParetoFront
from mixlaw.report.blocks import Notes, Section, Stack, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.sections import Facts
from mixlaw.report.verdict import other_scales
from mixlaw.report.words import listing, percent, plain, short_count
from mixlaw.study.verification import RECOMMENDED


def freedom_section(facts: Facts) -> Section:
    """How far each share may move, and what that costs."""
    decision = facts.decision
    figure = plots.flat_region(decision)
    label = "Bars: the range of each share among mixtures that are nearly as good."
    picture = drawn(figure, name="free", label=label, says=_free_words(decision))
    beside: list[Table | Notes] = [_ranges(decision)]
    if scales := other_scales(facts.laws.needs, decision):
        beside.append(_other_scales(decision, scales))
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


def _ranges(decision: Decision) -> Table:
    rows = [
        [plain(name), f"{share:.1%}", *(f"{end:.1%}" for end in decision.region.ranges[name])]
        for name, share in decision.recommended.items()
    ]
    columns = ["domain", RECOMMENDED, "least", "most"]
    return Table("Shares that are nearly as good", columns, rows)


def _other_scales(decision: Decision, scales: Sequence[AtOtherScale]) -> Table:
    mixtures = [decision.recommended, *(scale.mixture for scale in scales)]
    rows = [
        [plain(d), *(f"{mixture.get(d, 0.0):.1%}" for mixture in mixtures)]
        for d in decision.recommended
    ]
    costs = [scale.recommended - scale.objective for scale in scales]
    rows.append(["cost of the recommended", "-", *(f"{cost:.4f}" for cost in costs)])
    counts = ((scale.num_params, scale.train_tokens) for scale in scales)
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
    figure = plots.pareto(front)
    label = "The Pareto front between the objectives."
    picture = drawn(figure, name="front", label=label, says=_front_words(front))
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
