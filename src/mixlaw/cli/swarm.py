"""Commands on the runs to learn from: `mixlaw plan`, `corpus`, `design`, `train`, ..., `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixlaw.cli.arguments import (
    Json,
    LauncherName,
    StudyPath,
    Track,
    Workers,
    a_count,
    a_number,
    a_path,
    answer,
    count_from,
    launch_of,
)
from mixlaw.cli.names import one_of, studies, trainers
from mixlaw.cli.terminal import data, note, plain, working
from mixlaw.errors import StudyError, TrainError

WITHOUT = "Without a study"


def plan(
    budget: Annotated[
        float,
        typer.Option(
            "--budget",
            parser=a_number,
            metavar="FLOPS",
            help="FLOPs for proxy runs, for instance 1e20.",
        ),
    ],
    study: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]",
            autocompletion=studies,
            help="Folder or YAML file of a study.",
        ),
    ] = None,
    num_params: Annotated[
        int | None,
        typer.Option(
            parser=a_count, metavar="N", rich_help_panel=WITHOUT, help="Parameters of the big run."
        ),
    ] = None,
    train_tokens: Annotated[
        int | None,
        typer.Option(
            parser=a_count, metavar="N", rich_help_panel=WITHOUT, help="Its training tokens."
        ),
    ] = None,
    domains: Annotated[
        int | None,
        typer.Option(
            parser=count_from(2), metavar="N", rich_help_panel=WITHOUT, help="Number of domains."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What a budget buys: how many proxies, of which sizes.

    Also how sure each way to spend it makes the decision. Reads the study's target, or the big run
    of the options; writes nothing.
    """
    from mixlaw.cli import show_plans
    from mixlaw.plan.budget import plan_budget
    from mixlaw.plan.question import RunScale
    from mixlaw.study import Study

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


def corpus(study: StudyPath, as_json: Json = False) -> None:
    """Read the text, remove duplicates, split, tokenise.

    Reads the paths of study.yaml's domains; writes token files (Megatron's .bin and .idx) into the
    study's corpus/. Needs the extra: pip install 'mixlaw[train]'.
    """
    from mixlaw.cli import show
    from mixlaw.study import Study

    opened = Study(study)
    with working("reading and tokenising the text"):
        built = opened.corpus()
    answer(built.summary(), as_json, lambda: show.corpus(built.summary()))


def design(
    study: StudyPath,
    following: Annotated[
        int | None,
        typer.Option(
            "--next",
            parser=a_count,
            metavar="N",
            help="The next runs worth doing, given those so far.",
        ),
    ] = None,
    export_to: Annotated[
        str | None,
        typer.Option(
            metavar="TRAINER",
            autocompletion=one_of(trainers),
            rich_help_panel="For your own trainer",
            help="Write these runs as configs for it, one of {trainers}; paths and lengths are of "
            "the study's export section. mixlaw import --design reads the results.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            rich_help_panel="For your own trainer",
            help="The folder of the configs.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the mixtures and sizes of the proxy runs.

    With --next: of the runs to do next, given those so far, or the advice to stop. Reads study.yaml
    and the runs; writes design.json, with --next asked.json.
    """
    from mixlaw.cli import show, show_interop, show_plans
    from mixlaw.study import Study

    if (export_to is None) != (out is None):
        raise StudyError("--export-to writes configs into the folder --out; give both")
    opened = Study(study)
    choosing = working("choosing runs")
    if out is not None:
        with choosing:
            written = opened.export_design(out, export_to, count=following)
        answer(written.to_dict(), as_json, lambda: show_interop.planned(written))
    elif following is not None:
        with choosing:
            found = opened.ask(following)
        answer(found.to_dict(), as_json, lambda: show_plans.plan(found))
    else:
        with choosing:
            specs = opened.design()
        answer([spec.to_dict() for spec in specs], as_json, lambda: show.design(specs))


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
    """Train the proxy runs that are still missing.

    Interrupt and repeat at will: it goes on from the last checkpoints. Reads corpus/ and
    design.json (and makes them where they are missing); writes runs/ and runs.csv. Needs the extra:
    pip install 'mixlaw[train]'.
    """
    from mixlaw.cli import show
    from mixlaw.cli.swarm_view import swarm_view
    from mixlaw.study import Study

    opened = Study(study)
    if print_commands:
        commands = opened.train_commands(workers or opened.config.launch.workers or 1)
        answer(commands, as_json, lambda: [plain(command) for command in commands])
        if not commands:
            note("nothing is left to train")
        return
    launch = launch_of(opened, launcher, workers, track)
    with swarm_view() as view:
        runs = opened.train(view, launch=launch, on_note=view.note)
    answer(runs.rows(), as_json, lambda: show.runs(runs))


def work(
    runs: Annotated[str, typer.Argument(metavar="RUNS", help="Run folder of a study, or its URL.")],
    only: Annotated[
        str | None,
        typer.Option("--runs", metavar="IDS", help="Ids of some of its runs, with commas."),
    ] = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Train here what a run folder says is to train.

    Beside whoever else does: on each further machine that shares the folder or bucket. Ends when
    nothing is left to train. Reads and writes RUNS. Needs the extra: pip install 'mixlaw[train]'.
    """
    from mixlaw.cli.swarm_view import swarm_view
    from mixlaw.launch.commands import work_until_done

    ids = only.split(",") if only else None
    with swarm_view() as view:
        missing = work_until_done(runs, run_ids=ids, workers=workers, on_progress=view)
    if missing:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        raise TrainError(f"{len(missing)} runs have no result: {reasons}; run this again")
    if as_json:
        data({"runs": runs, "missing": {}})


def edit(
    study: StudyPath,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=TOKENS]", help="A new domain, of so many tokens; repeatable."),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A domain that goes; repeatable.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A:0.3,B:0.7", help="A domain in parts; repeatable."),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B", help="Domains that become one; repeatable."),
    ] = None,
    revise: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=TOKENS]", help="A domain with other text; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FILE",
            help="Write the runs that can be kept, over the new domains.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """What a change of domains costs, and what reuse saves.

    Which runs are kept, which are needed. Reads the runs, the fit and the decision, and makes them
    where they are missing; writes nothing else, but --out.
    """
    from mixlaw.cli import show, show_plans
    from mixlaw.cli.edits import parse_edits
    from mixlaw.study import Study

    opened = Study(study)
    edits = parse_edits(
        add=add or [],
        remove=remove or [],
        split=split or [],
        merge=merge or [],
        revise=revise or [],
    )
    with working("planning the change"):
        found = opened.plan_edit(edits)
        if out is not None:
            opened.carry(edits).runs.write(out)

    def shown() -> None:
        show_plans.edit(found, out)
        show.left_out(opened)

    answer(found.to_dict(), as_json, shown)
