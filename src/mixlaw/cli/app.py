"""Subcommands. Each opens a study, makes one library call and shows the result.

Exit codes: 0 done; 1 an error that the user can mend (its message says how); 2 wrong usage;
130 interrupted (the same command goes on).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from mixlaw import __version__
from mixlaw.cli import (
    export,
    import_runs,
    show,
    show_continual,
    show_decision,
    show_interop,
    show_plans,
    show_schedule,
)
from mixlaw.cli.arguments import Json, StudyPath, a_path, answer, parse_mixture
from mixlaw.cli.demo import run_demo, template
from mixlaw.cli.edits import parse_edits
from mixlaw.cli.swarm_view import swarm_view
from mixlaw.cli.terminal import error, line
from mixlaw.errors import MissingExtraError, MixlawError, StudyError, TrainError
from mixlaw.files import write_text
from mixlaw.plan.budget import plan_budget
from mixlaw.plan.question import RunScale
from mixlaw.report import write_report
from mixlaw.study import Scale, Study
from mixlaw.study.launch_config import LaunchConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Choose the data mixture of a language model before the model is trained.",
)

LauncherName = Annotated[
    str | None, typer.Option(help="local, ray or slurm; default: as the study says.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes on this machine; default: one a core or GPU.")
]
Track = Annotated[
    list[str] | None,
    typer.Option("--track", help="Show curves in tensorboard, wandb or mlflow; repeatable."),
]

EXTRAS = {"torch": "train", "safetensors": "train", "tokenizers": "train", "zstandard": "train"}


def main() -> None:
    """Run the command line; turn mixlaw's errors into a message and an exit code."""
    try:
        app()
    except MixlawError as failed:
        error(str(failed))
        sys.exit(1)
    except ModuleNotFoundError as failed:
        if failed.name not in EXTRAS:
            raise
        error(str(MissingExtraError(failed.name, EXTRAS[failed.name])))
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mixlaw {__version__}")
        raise typer.Exit


def _launch(
    study: Study, launcher: str | None, workers: int | None, track: list[str] | None
) -> LaunchConfig:
    """The study's launch section with what the command line says instead."""
    given = {"launcher": launcher, "workers": workers, "track": track}
    try:
        return LaunchConfig(
            **{**study.config.launch.model_dump(), **{k: v for k, v in given.items() if v}}
        )
    except ValidationError as wrong:
        told = [f"--{e['loc'][0]} {e['input']}: {e['msg']}" for e in wrong.errors()]
        raise StudyError("; ".join(told)) from None


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="New folder for the study.")]) -> None:
    """Write a commented study.yaml to fill in."""
    path = folder / "study.yaml"
    if path.exists():
        raise StudyError(f"{path} exists already; edit it, or name another folder")
    write_text(path, template("study.yaml"))
    line(f"wrote {path}: name your domains and paths in it, then: mixlaw status {folder}")


@app.command()
def status(study: StudyPath, as_json: Json = False) -> None:
    """What is done and what is next."""
    found = Study(study).status()
    answer(found, as_json, lambda: show.status(found))


@app.command()
def corpus(study: StudyPath, as_json: Json = False) -> None:
    """Read the text, remove duplicates, split, tokenise."""
    built = Study(study).corpus()
    answer(built.summary(), as_json, lambda: show.corpus(built.summary()))


@app.command()
def design(
    study: StudyPath,
    following: Annotated[
        int | None,
        typer.Option("--next", min=1, help="The next runs worth doing, given those so far."),
    ] = None,
    export_to: Annotated[
        str | None,
        typer.Option(
            metavar="TRAINER",
            help="Write these runs as configs for another trainer, one of those of mixlaw export; "
            "paths and lengths are of the study's export section. mixlaw import --design reads "
            "the results.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="With --export-to: the folder of the configs.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the mixtures and sizes of the proxy runs; with --next, of the runs to do next."""
    if (export_to is None) != (out is None):
        raise StudyError("--export-to writes configs into the folder --out; give both")
    if out is not None:
        written = Study(study).export_design(out, export_to, count=following)
        answer(written.to_dict(), as_json, lambda: show_interop.planned(written))
        return
    if following is not None:
        found = Study(study).ask(following)
        answer(found.to_dict(), as_json, lambda: show_plans.plan(found))
        return
    specs = Study(study).design()
    answer([spec.to_dict() for spec in specs], as_json, lambda: show.design(specs))


@app.command()
def plan(
    budget: Annotated[float, typer.Option(help="FLOPs for proxy runs, for instance 1e20.")],
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY]", help="Folder or YAML file of a study.")
    ] = None,
    num_params: Annotated[
        float | None, typer.Option(min=1, help="Parameters of the big run, without a study.")
    ] = None,
    train_tokens: Annotated[
        float | None, typer.Option(min=1, help="Its training tokens, without a study.")
    ] = None,
    domains: Annotated[
        int | None, typer.Option(min=2, help="Number of domains, without a study.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a budget buys: how many proxies of which sizes, and how sure they make the decision."""
    if study is not None:
        if num_params or train_tokens or domains:
            raise StudyError(
                "a study knows its own big run; give either a study, or --num-params, "
                "--train-tokens and --domains"
            )
        found = Study(study).plan_budget(budget)
    elif num_params and train_tokens and domains:
        target = RunScale(num_params, train_tokens)
        found = plan_budget(budget, num_domains=domains, target=target)
    else:
        raise StudyError(
            "a plan is for a big run: name a study, or give --num-params, --train-tokens and "
            "--domains"
        )
    answer(found.to_dict(), as_json, lambda: show_plans.budget(found))


@app.command()
def edit(
    study: StudyPath,
    add: Annotated[list[str] | None, typer.Option(help="name, or name=tokens.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="name.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="web=news:0.3,forums:0.7.")] = None,
    merge: Annotated[list[str] | None, typer.Option(help="web=news,forums.")] = None,
    revise: Annotated[list[str] | None, typer.Option(help="name, or name=tokens.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the runs that can be kept, over the new domains.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a change of domains costs: which runs are kept, which are needed, what reuse saves."""
    opened = Study(study)
    edits = parse_edits(
        add=add or [],
        remove=remove or [],
        split=split or [],
        merge=merge or [],
        revise=revise or [],
    )
    found = opened.plan_edit(edits)
    if out is not None:
        opened.carry(edits).runs.write(out)

    def shown() -> None:
        show_plans.edit(found, out)
        show.left_out(opened)

    answer(found.to_dict(), as_json, shown)


@app.command()
def train(
    study: StudyPath,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    print_commands: Annotated[
        bool,
        typer.Option(
            "--print-commands",
            help="Train nothing: print one command a stack, for Kubernetes, SkyPilot, ...",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train the proxy runs that are still missing. Interrupt and repeat at will."""
    opened = Study(study)
    if print_commands:
        commands = opened.train_commands(workers or opened.config.launch.workers or 1)
        answer(commands, as_json, lambda: typer.echo("\n".join(commands)))
        return
    launch = _launch(opened, launcher, workers, track)
    with swarm_view() as view:
        runs = opened.train(view, launch=launch, on_note=view.note)
    answer(runs.rows(), as_json, lambda: show.runs(runs))


@app.command()
def work(
    runs: Annotated[str, typer.Argument(metavar="RUNS", help="Run folder of a study, or its URL.")],
    only: Annotated[
        str | None, typer.Option("--runs", help="Ids of some of its runs, with commas.")
    ] = None,
    workers: Workers = None,
) -> None:
    """Train here what a run folder says is to train, beside whoever else does."""
    from mixlaw.launch.commands import work_until_done

    ids = only.split(",") if only else None
    with swarm_view() as view:
        missing = work_until_done(runs, run_ids=ids, workers=workers, on_progress=view)
    if missing:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        raise TrainError(f"{len(missing)} runs have no result: {reasons}; run this again")


@app.command()
def fit(study: StudyPath, as_json: Json = False) -> None:
    """Fit the laws, choose by held-out mixtures and scales."""
    opened = Study(study)
    fitted, findings = opened.fit(), opened.diagnose()
    data = {**fitted.to_dict(), "findings": [finding.to_dict() for finding in findings]}
    answer(data, as_json, lambda: show.fit(opened))


@app.command()
def predict(
    study: StudyPath,
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            "--mixture", "-m", help="For instance web=0.6,code=0.4; default: the baselines."
        ),
    ] = None,
    num_params: Annotated[
        int | None, typer.Option(min=1, help="Non-embedding parameters; default: the target's.")
    ] = None,
    train_tokens: Annotated[
        int | None, typer.Option(min=1, help="Training tokens; default: the target's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Forecast mixtures at the target scale, or at another."""
    opened = Study(study)
    mixtures = {text: parse_mixture(text) for text in mixture or []} or opened.baselines()
    scale = Scale(num_params, train_tokens)
    if num_params is None or train_tokens is None:
        target = opened.scale
        scale = Scale(num_params or target.num_params, train_tokens or target.train_tokens)
    forecasts = opened.predict(list(mixtures.values()), scale)
    data = {
        "scale": vars(scale),
        "level": opened.config.fit.level,
        "forecasts": [
            {
                "mixture": dict(m),
                "targets": {t: {"value": v, "half_width": h} for t, (v, h) in f.items()},
                "extrapolates": opened.extrapolates(m),
            }
            for m, f in zip(mixtures.values(), forecasts, strict=True)
        ],
    }
    answer(data, as_json, lambda: show_decision.forecasts(list(mixtures), data))


@app.command()
def optimize(study: StudyPath, as_json: Json = False) -> None:
    """The mixture to train, how much better it is, and how sure."""
    decision = Study(study).optimize()
    answer(decision.to_dict(), as_json, lambda: show_decision.decision(decision))


@app.command()
def pareto(
    study: StudyPath,
    points: Annotated[int, typer.Option(min=2, help="Points along each edge.")] = 11,
    as_json: Json = False,
) -> None:
    """What the objective and the study's trade-offs cost each other."""
    front = Study(study).pareto(points)
    answer(front.to_dict(), as_json, lambda: show_decision.front(front))


@app.command()
def verify(
    study: StudyPath,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train the target size on the recommended mixture and the baselines; compare."""
    opened = Study(study)
    launch = _launch(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.verify(view, launch=launch, on_note=view.note)
    answer(found.to_dict(), as_json, lambda: show_decision.verification(found))


@app.command()
def continual(
    study: StudyPath,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """How much new data a trained model takes without losing the old: base, runs, laws, answer."""
    opened = Study(study)
    launch = _launch(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.continual(view, launch=launch, on_note=view.note)
    answer(found.to_dict(), as_json, lambda: show_continual.answer(found))


@app.command()
def schedule(
    study: StudyPath,
    verifying: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Train the target size on the schedule and on static mixtures; compare.",
        ),
    ] = False,
    online: Annotated[
        bool,
        typer.Option("--online", help="With --verify: also runs that adapt their own mixture."),
    ] = False,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Whether, and how, to change the mixture during training: a few staged runs tell."""
    opened = Study(study)
    if online and not verifying:
        raise StudyError("--online trains online runs beside those of --verify; give both")
    launch = _launch(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.schedule(view, launch=launch, on_note=view.note)
    if verifying:
        with swarm_view() as view:
            seen = opened.verify_schedule(view, online=online, launch=launch, on_note=view.note)
        answer(seen.to_dict(), as_json, lambda: show_schedule.verification(found, seen))
        return
    fitted = opened.fit_stages()
    data = show_schedule.as_json(found, fitted)
    answer(data, as_json, lambda: show_schedule.schedule(found, fitted))


app.command("import")(import_runs.import_runs)
app.command()(export.export)


@app.command()
def report(study: StudyPath, as_json: Json = False) -> None:
    """Write report.html: one file, readable offline."""
    path = write_report(Study(study))
    answer({"report": str(path)}, as_json, lambda: line(f"wrote {path}"))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the demo study.")] = Path("demo-study"),
    short: Annotated[bool, typer.Option("--short", help="About a minute, less exact.")] = False,
    continual: Annotated[
        bool, typer.Option("--continual", help="Continue a model on new text instead.")
    ] = False,
) -> None:
    """The whole job on text of the installed Python environment, in minutes."""
    run_demo(folder, short=short, continual=continual)
