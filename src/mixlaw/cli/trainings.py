"""Commands that train beyond the swarm: `mixlaw verify`, `continual` and `schedule`."""

from __future__ import annotations

from typing import Annotated

import typer

from mixlaw.cli.arguments import Json, LauncherName, StudyPath, Track, Workers, answer, launch_of
from mixlaw.cli.terminal import working
from mixlaw.errors import StudyError


def verify(
    study: StudyPath,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Train the target size on the decision and the baselines.

    Compares what was predicted with what is seen. Interrupt and repeat at will. Reads the study and
    its decision; writes runs/, runs.csv and verification.json. Needs the extra: pip install
    'mixlaw[train]'.
    """
    from mixlaw.cli import show_decision
    from mixlaw.cli.swarm_view import swarm_view
    from mixlaw.study import Study

    opened = Study(study)
    launch = launch_of(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.verify(view, launch=launch, on_note=view.note)
    answer(found.to_dict(), as_json, lambda: show_decision.verification(found))


def continual(
    study: StudyPath,
    launcher: LauncherName = None,
    workers: Workers = None,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """How much new data a trained model takes, with how much replay.

    Trains a base and runs that continue it at shares of the new data (or reads a table of such
    runs), fits laws of the share, and answers: the most that does not lose the old. Writes
    continual.csv and continual.json.
    """
    from mixlaw.cli import show_continual
    from mixlaw.cli.swarm_view import swarm_view
    from mixlaw.study import Study

    opened = Study(study)
    launch = launch_of(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.continual(view, launch=launch, on_note=view.note)
    answer(found.to_dict(), as_json, lambda: show_continual.answer(found))


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
    """Whether, and how, to change the mixture during training.

    A few staged runs tell; the answer is always compared with the static mixture of the same dose.
    Reads the swarm, or a table with staged runs; writes staged.csv, stages.json and schedule.json.
    """
    from mixlaw.cli import show_schedule
    from mixlaw.cli.swarm_view import swarm_view
    from mixlaw.study import Study

    opened = Study(study)
    if online and not verifying:
        raise StudyError("--online trains online runs beside those of --verify; give both")
    launch = launch_of(opened, launcher, workers, track)
    with swarm_view() as view:
        found = opened.schedule(view, launch=launch, on_note=view.note)
    if verifying:
        with swarm_view() as view:
            seen = opened.verify_schedule(view, online=online, launch=launch, on_note=view.note)
        answer(seen.to_dict(), as_json, lambda: show_schedule.verification(found, seen))
        return
    with working("fitting what the order does"):
        fitted = opened.fit_stages()
    data = show_schedule.as_json(found, fitted)
    answer(data, as_json, lambda: show_schedule.schedule(found, fitted))
