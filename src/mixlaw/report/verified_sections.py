"""The section about the verification: what the target scale showed."""

from __future__ import annotations

from mixlaw import plots
from mixlaw.optimize import Interval
from mixlaw.report.blocks import Notes, Part, Section, Table
from mixlaw.report.drawn import drawn
from mixlaw.report.sections import Facts
from mixlaw.report.verdict import difference_noise, noise_words, tokens_share
from mixlaw.report.words import (
    interval,
    listing,
    number_of,
    plain,
    scale_words,
    signed,
    target_names,
    unit_of,
    value,
)
from mixlaw.study.verification import Verification


def verification_section(facts: Facts) -> Section | None:
    """None when the target scale was not trained."""
    found = facts.verification
    if found is None:
        return None
    seeds = min(len(gain.observed) for gain in found.gains.values())
    spread = difference_noise(facts.noise, 1)
    label = "Predicted and observed gain of the recommended mixture over each baseline."
    figure = plots.verified_gains(found, facts.decision, noise=spread)
    parts: list[Part] = [drawn(figure, name="gains", label=label, says=_gain_words(facts, found))]
    if any(len(verified.curve) > 1 for verified in found.mixtures.values()):
        label = "Objective against training tokens of each verified mixture."
        figure = plots.verified_curves(found, facts.decision)
        parts.append(drawn(figure, name="curves", label=label, says=_curve_words(found)))
    parts += [
        _objective_table(facts, found),
        _gain_table(found),
        _targets_table(facts, found),
    ]
    if found.failed:
        failed = listing(map(plain, found.failed))
        parts.append(Notes((f"Diverged and left out: {failed}.",)))
    lead = (
        f"A model of {scale_words(facts.decision.num_params, facts.decision.train_tokens)} was "
        f"trained on each mixture, {number_of(seeds, 'seed')} each; none of it was used to fit. "
        + noise_words(facts.noise, found)
    )
    return Section("verification", "Verification", lead, tuple(parts))


def _gain_words(facts: Facts, found: Verification) -> str:
    words = []
    for name, gain in found.gains.items():
        text = f"{signed(gain.mean)} over {plain(name)} (predicted {signed(gain.predicted)}"
        spread = difference_noise(facts.noise, len(gain.observed))
        if spread:
            text += f"; {abs(gain.mean) / spread:.1f} times the noise of such a difference"
        words.append(text + ")")
    return f"Observed gain: {listing(words)}."


def _curve_words(found: Verification) -> str:
    words = []
    for name, gain in found.gains.items():
        if gain.tokens_share is None:
            words.append(f"never gets as low as {plain(name)} ends")
        else:
            words.append(
                f"gets as low as {plain(name)} ends with {tokens_share(gain)} of its tokens"
            )
    return f"The recommended mixture {listing(words)}."


def _objective_table(facts: Facts, found: Verification) -> Table:
    rows = [
        [
            plain(mixture),
            *_against(verified.predicted, verified.mean),
            ", ".join(value(seen) for seen in verified.observed),
        ]
        for mixture, verified in found.mixtures.items()
    ]
    columns = ["mixture", "predicted", "observed", "error", "in the interval", "by seed"]
    return Table(f"The objective, predicted and observed ({facts.unit})", columns, rows)


def _targets_table(facts: Facts, found: Verification) -> Table:
    """One row per target: for each mixture what was predicted, observed, and whether inside."""
    columns = ["target"]
    for mixture in found.mixtures:
        columns += [f"{plain(mixture)}: predicted", "observed", "inside"]
    rows = []
    for target, name in target_names(facts.laws.targets).items():
        row = [name]
        for verified in found.mixtures.values():
            forecast, seen, _, inside = _against(*verified.targets[target])
            row += [forecast, seen, inside]
        rows.append(row)
    caption = f"Every target, predicted and observed ({unit_of(facts.laws.targets)})"
    return Table(caption, columns, rows, wide=True)


def _against(forecast: Interval, seen: float) -> list[str]:
    inside = forecast.low <= seen <= forecast.high
    return [
        interval(forecast),
        value(seen),
        signed(seen - forecast.value),
        "yes" if inside else "NO",
    ]


def _gain_table(found: Verification) -> Table:
    rows = [
        [
            plain(name),
            signed(gain.predicted),
            signed(gain.mean),
            ", ".join(signed(one) for one in gain.observed),
            tokens_share(gain),
        ]
        for name, gain in found.gains.items()
    ]
    columns = ["over", "predicted gain", "observed gain", "by seed", "tokens to be as good"]
    return Table("Gain of the recommended mixture", columns, rows)
