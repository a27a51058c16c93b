"""All commands, in the order of work, each with its examples.

Nothing here imports the library: commands do, when they run, so that help and the completion of a
shell answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from mixlaw import __version__
from mixlaw.cli import decide, start, swarm, trainings
from mixlaw.cli.export import export
from mixlaw.cli.import_runs import import_runs
from mixlaw.cli.pages import Story, adder

app = typer.Typer(
    cls=Story,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="""
    mixlaw chooses the data mixture of a language model before the model is trained: a few small
    runs on different mixtures, a law fitted to them, and the mixture that it says is best, with
    how sure that is. A study is a folder with a study.yaml.

    Start from
    text         mixlaw init my-study, or see it all first: mixlaw demo
    a table      mixlaw import runs.csv --into my-study
    own trainer  mixlaw design my-study --next 8 --export-to TRAINER --out configs
    """,
    epilog="""
    mixlaw COMMAND --help has examples. With --json a command prints one JSON
    document on stdout; an error is one on stderr. --debug shows where an error is.
    mixlaw --install-completion, once, completes names in your shell; --version.
    Exit codes: 0 done, 1 error to mend, 2 wrong usage, 70 bug, 130 interrupted.
    """,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mixlaw {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


begin = adder(app, "Begin")
begin(start.demo, "mixlaw demo --short", "mixlaw demo my-demo --continual")
begin(start.init, "mixlaw init new-study")
begin(
    import_runs,
    "mixlaw import runs.csv",
    "mixlaw import runs.csv --into imported",
    "mixlaw import runs.csv --rename 'books=novels' --into renamed",
    "mixlaw import wandb://team/project --mixture 'mix.*' --into my-study",
    "mixlaw import logs/ --design configs --into my-study",
    name="import",
)
begin(start.status, "mixlaw status my-study", "mixlaw status my-study --json")

runs = adder(app, "Runs")
runs(
    swarm.plan,
    "mixlaw plan my-study --budget 1e19",
    "mixlaw plan --budget 1e20 --num-params 7e9 --train-tokens 2e11 --domains 12",
)
runs(swarm.corpus, "mixlaw corpus my-study")
runs(
    swarm.design,
    "mixlaw design my-study",
    "mixlaw design my-study --next 4",
    "mixlaw design my-study --next 8 --export-to megatron --out configs",
)
runs(
    swarm.train,
    "mixlaw train my-study",
    "mixlaw train my-study --launcher slurm --track wandb",
    "mixlaw train my-study --print-commands --workers 4",
)
runs(
    swarm.work,
    "mixlaw work my-study/runs",
    "mixlaw work s3://bucket/my-study/runs --workers 8",
)

decision = adder(app, "Decide")
decision(decide.fit, "mixlaw fit my-study", "mixlaw fit my-study --all")
decision(decide.optimize, "mixlaw optimize my-study", "mixlaw optimize my-study --json")
decision(
    decide.predict,
    "mixlaw predict my-study",
    "mixlaw predict my-study -m web=0.5,code=0.3,books=0.2 -m web=0.7,code=0.3",
)
decision(decide.pareto, "mixlaw pareto my-study", "mixlaw pareto my-study --points 5")
decision(
    decide.report,
    "mixlaw report my-study",
    "mixlaw report my-study --draws 0 --out page.html",
)

after = adder(app, "Use it, check it, go on")
after(
    export,
    "mixlaw export my-study --to json",
    "mixlaw export my-study --to yaml -m web=0.6,code=0.4 --out mixture",
    "mixlaw export my-study --to megatron --path '/data/{domain}_text_document'",
)
after(trainings.verify, "mixlaw verify my-study")
after(
    swarm.edit,
    "mixlaw edit my-study --add wiki=5e9",
    "mixlaw edit my-study --split web=news:0.3,forums:0.7 --remove books",
)
after(trainings.continual, "mixlaw continual my-study")
after(trainings.schedule, "mixlaw schedule my-study", "mixlaw schedule my-study --verify")
