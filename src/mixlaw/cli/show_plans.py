"""What people see of plans: the next runs, budgets, changes of domains."""

from __future__ import annotations

from pathlib import Path

from mixlaw.cli.terminal import line, notes, table
from mixlaw.plan.budget import BudgetPlan
from mixlaw.plan.edit_plan import EditPlan
from mixlaw.plan.proposals import Plan
from mixlaw.report.words import short_count

MOST_ALTERNATIVES = 6


def plan(found: Plan) -> None:
    """The next runs, or the advice to stop."""
    domains = list(found.proposals[0].mixture) if found.proposals else []
    rows = [
        [
            "" if p.num_params is None else short_count(p.num_params),
            "" if p.train_tokens is None else short_count(p.train_tokens),
            *(f"{p.mixture[d]:.3f}" for d in domains),
            "" if p.expected_gain is None else f"{p.expected_gain:.2g}",
        ]
        for p in found.proposals
    ]
    title = "not worth doing" if found.stop else "the next runs"
    if rows:
        table(["params", "tokens", *domains, "expected gain"], rows, title=title)
    if found.expected_regret is not None:
        line(
            f"the plan's own mixture of now is expected to be {found.expected_regret:.2g} from the "
            "best one"
        )
    line(found.reason)
    notes(found.warnings)


def budget(found: BudgetPlan) -> None:
    """The ways to spend a budget, best first."""
    shown = [found.recommended, *(a for a in found.alternatives if a != found.recommended)]
    rows = [
        [
            ", ".join(
                f"{g.num_runs} x {short_count(g.num_params)} x {short_count(g.train_tokens)}"
                for g in item.proxies
            ),
            f"{item.flops:.2g}",
            f"{item.half_width:.2g}",
            f"{item.expected_regret:.2g}",
        ]
        for item in shown[:MOST_ALTERNATIVES]
    ]
    columns = ["runs x parameters x tokens", "FLOPs", "half width*", "expected regret"]
    table(columns, rows, title=f"ways to spend {found.flops:.3g} FLOPs, the recommended first")
    line(f"half widths and regrets are in {found.unit}")
    line(
        "* 90 % sure: of how far one mixture lies from the mean over mixtures; the interval of its "
        "objective is wider, by the error of the level that all mixtures share"
    )
    line(found.reason)
    line(f"expected errors: {found.source}")


def edit(found: EditPlan, out: Path | None) -> None:
    """What a change of domains costs."""
    line("; ".join(found.edits))
    mixtures = {"keep the ratios": found.kept, "best by the old law": found.interim}
    rows = [[d, *(f"{m.get(d, 0.0):.3f}" for m in mixtures.values())] for d in found.domains]
    table(["share", *mixtures], rows)
    line(
        f"rows kept: {found.exact_rows} exactly, {found.moved_rows} moved with the help of the old "
        "law"
    )
    for reason, count in found.left_out.items():
        line(f"left out: {count} ({reason})")
    moves = "rises" if found.edit_cost >= 0 else "falls"
    line(
        f"the objective {moves} by {abs(found.edit_cost):.4f} with the best mixture by the old law"
    )
    line(f"keeping the ratios costs {found.keeping_cost:.4f} beyond that")
    if found.freezing is not None:
        line(
            f"frozen ratios are expected to lose {found.freezing.mean:.4f} (at worst "
            f"{found.freezing.worst:.4f}, over {found.freezing.probes} probes)"
        )
    line(
        f"with all old ratios kept the objective is expected {found.expected_loss:.4f} higher than "
        "with all free; a refit leaves them free and loses less"
    )
    saved = "" if found.flops_saved is None else f", {found.flops_saved:.2g} FLOPs"
    line(
        f"new mixtures: {len(found.new_mixtures)} for reuse, {found.recompute_mixtures} for a new "
        f"swarm ({found.runs_saved} saved{saved})"
    )
    line(f"{'reuse' if found.reuse else 'train a new swarm'}: {found.reason}")
    if out is not None:
        line(f"wrote the kept runs: {out}")
    notes(found.warnings)
