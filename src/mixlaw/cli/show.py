"""What people see in the terminal; nothing here computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from mixlaw.laws.noise import Noise, measured_noise
from mixlaw.report.words import short_count
from mixlaw.runs import FAILED, REPLICATE, RunSpec, RunTable

if TYPE_CHECKING:
    from mixlaw.launch.local import Progress as SwarmProgress
    from mixlaw.laws import CrossValidation, FittedLaws
    from mixlaw.optimize import Decision, Interval
    from mixlaw.optimize.pareto import ParetoFront
    from mixlaw.study import Study
    from mixlaw.study.verification import Verification

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def error(message: str) -> None:
    err.print(f"[bold red]error:[/] {_plain(message)}", soft_wrap=True)


def line(text: str) -> None:
    out.print(_plain(text), soft_wrap=True)


def step(number: int, title: str) -> None:
    out.print(f"\n[bold cyan]{number}.[/] [bold]{_plain(title)}[/]")


def _plain(text: str) -> str:
    # Names come from users; square brackets in them are not markup.
    return text.replace("[", r"\[")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    if title:
        out.print(f"[italic]{_plain(title)}[/]", soft_wrap=True)
    table = Table(header_style="bold", box=None)
    for i, column in enumerate(columns):
        table.add_column(_plain(column), justify="left" if i == 0 else "right", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(_plain(str(cell)) for cell in row))
    out.print(table)


@contextlib.contextmanager
def swarm_progress() -> Iterator[Callable[[SwarmProgress], None]]:
    """A line on stderr with share done, tokens/s and time left."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>5.1f} %  {task.fields[speed]}"),
        console=err,
        transient=True,
    )
    with bar:
        task = bar.add_task("preparing", total=1.0, speed="")

        def update(now: SwarmProgress) -> None:
            minutes, seconds = divmod(round(now.seconds_left), 60)
            speed = f"{now.tokens_per_second:,.0f} tokens/s, {minutes}:{seconds:02d} left"
            doing = f"runs {now.runs_done}/{now.runs_total}, {now.doing}"
            bar.update(task, completed=now.share_done, description=doing, speed=speed)

        try:
            yield update
        except KeyboardInterrupt:
            bar.stop()
            error("stopped; run the same command to go on from the last checkpoint")
            raise typer.Exit(130) from None


def status(found: dict[str, Any]) -> None:
    rows = [(step, line or "-") for step, line in found["steps"].items()]
    table(["step", "state"], rows, title=found["folder"])
    if found["runs"]["planned"]:
        line("{done} of {planned} runs finished, {failed} failed".format(**found["runs"]))
    following = found["next"]
    line(f"next: mixlaw {following} {found['folder']}" if following else "all done")


def design(specs: Sequence[RunSpec]) -> None:
    first = {spec.label: spec.mixture for spec in specs}
    names = list(next(iter(first.values())))
    rows = [[label, *(f"{m[name]:.3f}" for name in names)] for label, m in first.items()]
    table(["mixture", *names], rows)
    sizes = list(dict.fromkeys(spec.size for spec in specs))
    extra = sum(spec.role == REPLICATE for spec in specs)
    line(f"{len(first)} mixtures at {', '.join(sizes)}: {len(specs)} runs, {extra} of them")
    line("replicates with another seed, so that the noise is known")


def runs(found: RunTable) -> None:
    """Loss range per size at the longest horizon."""
    rows = []
    done = found.done()
    for num_params in np.unique(done.num_params):
        at_size = done.select(done.num_params == num_params)
        last = at_size.select(at_size.train_tokens == at_size.train_tokens.max())
        for t, target in enumerate(last.targets):
            if target.startswith("bpb/") or not any(t.startswith("bpb/") for t in last.targets):
                low, high = last.values[:, t].min(), last.values[:, t].max()
                rows.append([f"{num_params:,.0f}", target, f"{low:.3f}", f"{high:.3f}"])
    table(["parameters", "target", "best mixture", "worst mixture"], rows)
    failed = sorted(set(found.label[found.status == FAILED]))
    if failed:
        line(f"failed, kept and left out of every fit: {', '.join(failed)}")


def corpus(summary: dict[str, Any]) -> None:
    rows = [
        [
            d["name"] + ("" if d["trained"] else " (only measured)"),
            f"{d['train_documents']:,}",
            f"{d['train_tokens']:,}",
            f"{d['natural_share']:.1%}" if d["trained"] else "-",
            f"{d['valid_tokens']:,}",
            f"{d['removed_exact']} + {d['removed_near']}",
        ]
        for d in summary["domains"]
    ]
    columns = ["domain", "documents", "training tokens", "natural share", "validation tokens"]
    table([*columns, "duplicates (exact + near)"], rows)
    line(f"tokenizer {summary['tokenizer']}, {summary['vocab_size']:,} ids")


def fit(study: Study) -> None:
    """Every candidate on held-out runs, the chosen law by target, and what to read first."""
    fitted, findings = study.fit(), study.diagnose()
    validation = fitted.cross_validation
    _candidates(validation, fitted.law)
    noise = measured_noise(validation.runs)
    _by_target(fitted, study.half_widths(), noise, study.config.fit.level)
    if fitted.at_largest is not None:
        best = list(fitted.at_largest.ranking().items())[:MOST_COMPARED]
        found = ", ".join(f"{name} {error:.3f}" for name, error in best)
        line(f"for comparison, laws of the mixture alone at the largest scale: {found}")
    for name, reasons in validation.refused.items():
        for reason in dict.fromkeys(reasons.values()):
            line(f"refused {name}: {reason}")
    if findings:
        out.print("\n[bold]Read this[/]")
    for finding in findings:
        out.print(f"[yellow]{finding.kind}:[/] {_plain(finding.text)}", soft_wrap=True)
    told = {finding.text for finding in findings}
    notes([text for text in fitted.warnings if text not in told])


SPLITS = {"scale": "new scale", "mixture": "new mixtures"}
MOST_COMPARED, MOST_TARGETS = 3, 15


def _candidates(validation: CrossValidation, chosen: str) -> None:
    splits = [split for split in SPLITS if split in validation.splits]
    deciding = validation.deciding_split
    rows = []
    ranked = list(validation.ranking())
    for name in [*ranked, *(name for name in validation.refused if name not in ranked)]:
        row = [("* " if name == chosen else "  ") + name]
        for split in splits:
            scores = validation.scores.get(name, {}).get(split)
            if scores is None:
                row += ["refused", ""]
            else:
                row += [_short(scores.normalised_error.mean()), f"{scores.spearman.mean():.3f}"]
        scores = validation.scores.get(name, {}).get(deciding)
        row.append("" if scores is None else _short(scores.mae.mean(), 4))
        rows.append(row)
    columns = [text for split in splits for text in (SPLITS[split], "rank corr.")]
    of_mean = validation.scores[chosen][deciding].mae_of_mean.mean()
    table(["law (* chosen)", *columns, "abs. error"], rows, title="squared error, held out")
    decides = f"; {SPLITS[deciding]} decide" + ("s" if deciding == "scale" else "")
    line(
        "squared error: as a share of that of predicting the mean, over targets (0 perfect, 1 "
        f"useless){decides if len(splits) > 1 else ''}; the mean's abs. error is {of_mean:.4f}"
    )


def _by_target(
    fitted: FittedLaws,
    half_widths: Mapping[str, tuple[float, float]],
    noise: Noise,
    level: float,
) -> None:
    """The chosen law, worst targets first where they are many."""
    validation = fitted.cross_validation
    scores = validation.scores[fitted.law]["mixture"]
    ratio = scores.mae / scores.mae_of_mean
    overall = dict(zip(noise.targets, noise.overall.tolist(), strict=True))
    order = range(len(ratio))
    if len(ratio) > MOST_TARGETS:
        order = sorted(order, key=lambda t: -ratio[t])[:MOST_TARGETS]
    far = any(near != target for near, target in half_widths.values())
    rows = []
    for t in order:
        target = fitted.targets[t]
        near, at_target = half_widths[target]
        row = [target, f"{scores.mae[t]:.4f}", f"{scores.mae_of_mean[t]:.4f}", f"{ratio[t]:.2f}"]
        row += [f"{scores.spearman[t]:.3f}", f"± {near:.4f}"]
        row += [f"± {at_target:.4f}"] if far else []
        known = overall[target] == overall[target]
        rows.append([*row, f"{overall[target]:.4f}" if known else "-"])
    columns = ["target", "abs. error", "the mean's", "ratio", "rank corr.", f"{level:.0%} here"]
    columns += ["at target", "seed noise"] if far else ["seed noise"]
    table(columns, rows, title=f"\n{fitted.law}: new mixtures at the trained scales")
    if len(ratio) > MOST_TARGETS:
        line(f"the {MOST_TARGETS} worst of {len(ratio)} targets; --json has all")


def _short(number: float, digits: int = 3) -> str:
    return f"{number:.{digits}f}" if number < 1000 else f"{number:.1e}"


def forecasts(names: Sequence[str], data: dict[str, Any]) -> None:
    targets = list(data["forecasts"][0]["targets"])
    rows = [
        [target]
        + [
            f"{f['targets'][target]['value']:.4f} ± {f['targets'][target]['half_width']:.4f}"
            for f in data["forecasts"]
        ]
        for target in targets
    ]
    table(["target", *names], rows, title=_scale_text(**data["scale"], level=data["level"]))
    for name, forecast in zip(names, data["forecasts"], strict=True):
        if forecast["extrapolates"]:
            outside = "; ".join(forecast["extrapolates"])
            notes([f"{name} lies outside the trained range ({outside}): a guess"])


def decision(found: Decision) -> None:
    names = list(found.recommended)
    others = {name: comparison.forecast for name, comparison in found.baselines.items()}
    everyone = {"recommended": found.forecast, **others}
    rows = [
        [domain, *(f"{forecast.mixture.get(domain, 0.0):.3f}" for forecast in everyone.values())]
        for domain in names
    ]
    table(["share", *everyone], rows)
    rows = [["objective", *(_interval(f.objective) for f in everyone.values())]]
    rows += [
        [f"  {target} ({found.objective.shares.get(target, 0):.2g})"]
        + [_interval(f.targets[target]) for f in everyone.values()]
        for target in found.forecast.targets
    ]
    title = _scale_text(found.num_params, found.train_tokens, found.level)
    table(["forecast (weight)", *everyone], rows, title=title)
    _freedom(found)
    _other_scales(found)
    for name, comparison in found.baselines.items():
        line(
            f"better than {name} by {comparison.gain:.4f}, "
            f"with probability {comparison.probability_better:.2f}"
        )
    if found.regret is not None:
        line(
            f"expected to be {found.regret.expected:.2g} from the best allowed mixture, "
            f"{found.regret.level:.0%} sure of less than {found.regret.bound:.2g}"
        )
    if found.gap is not None:
        line(f"certificate: no allowed mixture is predicted lower by more than {found.gap:.1e}")
    else:
        line(f"no certificate: the problem is not convex; starts agree within {found.spread:.1e}")
    if found.robust is not None:
        over = found.robust.over
        what = f"{over:.0%} quantile" if isinstance(over, float) else over
        line(f"chosen for the {what} of {found.robust.num_draws} refits to resampled mixtures")
    if found.rounding_cost is not None:
        line(f"rounding the shares costs {found.rounding_cost:.1e}")
    for bound in found.active_bounds:
        line(str(bound))
    notes(found.warnings)


def _freedom(found: Decision) -> None:
    """Where the mixture may move, and what one more point of a domain buys."""
    rows = []
    for domain, share in found.recommended.items():
        low, high = found.region.ranges[domain]
        change = found.sensitivities[domain].objective
        rows.append([domain, f"{share:.3f}", f"{low:.3f} to {high:.3f}", f"{change:+.5f}"])
    title = f"nearly as good: objective within {found.region.tolerance:.2g}"
    table(["domain", "recommended", "nearly as good", "one more point"], rows, title=title)


def _other_scales(found: Decision) -> None:
    """How the optimum moves with scale."""
    if not found.scales:
        return
    names = [
        "recommended",
        *(
            " x ".join(short_count(n) for n in (s.num_params, s.train_tokens) if n)
            for s in found.scales
        ),
    ]
    mixtures = [found.recommended, *(scale.mixture for scale in found.scales)]
    rows = [[d, *(f"{m.get(d, 0.0):.3f}" for m in mixtures)] for d in found.recommended]
    table(["share", *names], rows, title="the optimum at other scales (parameters x tokens)")


def front(found: ParetoFront) -> None:
    """The Pareto front, one mixture a row."""
    domains = list(found.mixtures[0])
    rows = [
        [*(f"{value:.4f}" for value in values), *(f"{mixture[d]:.3f}" for d in domains)]
        for values, mixture in zip(found.values, found.mixtures, strict=True)
    ]
    title = "no mixture is better in all objectives than one of these"
    table([*found.objectives, *domains], rows, title=title)


def verification(found: Verification) -> None:
    rows = [
        [
            name,
            _interval(verified.predicted),
            f"{verified.mean:.4f}",
            ", ".join(f"{value:.4f}" for value in verified.observed),
            "yes" if verified.inside else "NO",
        ]
        for name, verified in found.mixtures.items()
    ]
    table(["mixture", "predicted", "observed", "by seed", "in the interval"], rows)
    for name, gain in found.gains.items():
        text = f"against {name}: gain {gain.mean:.4f} observed, {gain.predicted:.4f} predicted; "
        if gain.tokens_share is None:
            text += "never as good"
        else:
            most = "at most " if gain.tokens_share_is_bound else ""
            text += (
                f"its final objective was reached with {most}{gain.tokens_share:.0%} of its tokens"
            )
        line(text)
    for failed in found.failed:
        line(f"diverged and left out: {failed}")


def _interval(interval: Interval) -> str:
    return f"{interval.value:.4f} ± {interval.half_width:.4f}"


def _scale_text(num_params: float | None, train_tokens: float | None, level: float) -> str:
    parts = []
    if num_params is not None:
        parts.append(f"{num_params:,.0f} parameters")
    if train_tokens is not None:
        parts.append(f"{train_tokens:,.0f} tokens")
    return f"at {' and '.join(parts) or 'the scale of the runs'}, {level:.0%} intervals"


def notes(warnings: Sequence[str]) -> None:
    for warning in dict.fromkeys(warnings):
        out.print(f"[yellow]note:[/] {_plain(warning)}", soft_wrap=True)
