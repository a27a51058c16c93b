"""Commands from runs to a decision: `mixlaw fit`, `optimize`, `predict`, `pareto` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixlaw.cli.arguments import Json, StudyPath, a_count, a_path, answer, count_from, parse_mixture
from mixlaw.cli.names import shares
from mixlaw.cli.terminal import line, working

All = Annotated[
    bool, typer.Option("--all", help="Show every table in full (--json always has all).")
]


def fit(study: StudyPath, everything: All = False, as_json: Json = False) -> None:
    """Fit the laws; choose by held-out mixtures and scales.

    Says first how well the chosen law predicts what it has not seen. Reads the runs (runs.csv, or
    the study's table); writes fit.json.
    """
    from mixlaw.cli import show_fit
    from mixlaw.study import Study

    opened = Study(study)
    with working("fitting every law, judging it on held-out runs"):
        fitted, findings = opened.fit(), opened.diagnose()
    data = {**fitted.to_dict(), "findings": [finding.to_dict() for finding in findings]}
    answer(data, as_json, lambda: show_fit.fit(opened, everything=everything))


def optimize(study: StudyPath, everything: All = False, as_json: Json = False) -> None:
    """The mixture to train, how much better it is, how sure.

    Reads the runs and fit.json, which is made where it is missing; writes decision.json.
    """
    from mixlaw.cli import show_decision
    from mixlaw.study import Study

    opened = Study(study)
    with working("looking for the best mixture"):
        decision = opened.optimize()
    answer(
        decision.to_dict(),
        as_json,
        lambda: show_decision.optimized(opened, decision, everything=everything),
    )


def predict(
    study: StudyPath,
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            "--mixture",
            "-m",
            metavar="SHARES",
            autocompletion=shares,
            help="For instance web=0.6,code=0.4, or JSON; repeatable; default: the baselines.",
        ),
    ] = None,
    num_params: Annotated[
        int | None,
        typer.Option(
            parser=a_count,
            metavar="N",
            rich_help_panel="Scale",
            help="Non-embedding parameters; default: the target's.",
        ),
    ] = None,
    train_tokens: Annotated[
        int | None,
        typer.Option(
            parser=a_count,
            metavar="N",
            rich_help_panel="Scale",
            help="Training tokens; default: the target's.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Forecast mixtures at the target scale, or at another.

    Every target with its interval; says of mixtures outside the trained range that they are a
    guess. Reads the runs and fit.json, which is made where it is missing.
    """
    from mixlaw.cli import show_decision
    from mixlaw.study import Scale, Study

    opened = Study(study)
    given = [(text, parse_mixture(text)) for text in mixture or []]
    named = given or list(opened.baselines().items())
    mixtures = [found for _, found in named]
    with working("forecasting"):
        scale = Scale(num_params, train_tokens)
        if num_params is None or train_tokens is None:
            target = opened.scale
            scale = Scale(num_params or target.num_params, train_tokens or target.train_tokens)
        forecasts = opened.predict(mixtures, scale)
    data = {
        "scale": vars(scale),
        "level": opened.config.fit.level,
        "forecasts": [
            {
                "mixture": dict(m),
                "targets": {t: {"value": v, "half_width": h} for t, (v, h) in f.items()},
                "extrapolates": opened.extrapolates(m),
            }
            for m, f in zip(mixtures, forecasts, strict=True)
        ],
    }
    answer(data, as_json, lambda: show_decision.forecasts([name for name, _ in named], data))


def pareto(
    study: StudyPath,
    points: Annotated[
        int,
        typer.Option(
            parser=count_from(2), metavar="N", help="Points along each edge; default: 11."
        ),
    ] = 11,
    as_json: Json = False,
) -> None:
    """What the objective and the trade-offs cost each other.

    Mixtures of which none is better in every objective. Reads the study's tradeoffs section, the
    runs and fit.json; writes pareto.json.
    """
    from mixlaw.cli import show_decision
    from mixlaw.study import Study

    opened = Study(study)
    with working("tracing the front"):
        front = opened.pareto(points)
    answer(front.to_dict(), as_json, lambda: show_decision.front(front))


def report(
    study: StudyPath,
    draws: Annotated[
        int | None,
        typer.Option(
            parser=count_from(0),
            metavar="N",
            help="Refits to resampled runs, of which the page says how many agree that another "
            "mixture is better; 0: none; default: 200.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path, metavar="FILE", help="Default: report.html in the study's folder."
        ),
    ] = None,
    opened: Annotated[
        bool, typer.Option("--open", help="Open it in a browser when it is written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write report.html: one file, readable offline.

    The decision, a page to try other mixtures on, and the evidence. Reads what the other commands
    wrote, and makes the fit and the decision where they are missing. Needs the extra: pip install
    'mixlaw[report]'.
    """
    from mixlaw.report import write_report
    from mixlaw.study import Study

    given = {} if draws is None else {"draws": draws}
    with working("drawing the report" if draws == 0 else "refitting and drawing the report"):
        path = write_report(Study(study), path=out, **given)
    if opened:
        typer.launch(path.resolve().as_uri())

    def shown() -> None:
        line(f"wrote {path}")
        if not opened:
            line(f"open it in a browser, without a network too: {path.resolve().as_uri()}")

    answer({"report": str(path)}, as_json, shown)
