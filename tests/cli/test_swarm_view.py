"""The view of a swarm fits its terminal and never cuts a number; elsewhere it is plain lines."""

from __future__ import annotations

import io
import logging
import math
import re

import pytest
from rich.console import Console

from mixlaw.claims import Heartbeat, RunStatus, WorkStatus
from mixlaw.cli.swarm_view import LINE_SECONDS, SwarmView, _duration, swarm_view
from mixlaw.launch.driver import Progress


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def heartbeat(worker: int, runs: int = 1, steps_done: int = 100, **fields) -> Heartbeat:
    label = fields.pop("label", f"m{worker}")
    losses = [2 + k / 8 for k in range(runs)]
    status = tuple(
        RunStatus(f"r{worker}-{k}", f"{label}-{k}", "55k", loss) for k, loss in enumerate(losses)
    )
    work = WorkStatus(status, steps_done, steps_total=1200, tokens_per_second=8000.0)
    host = fields.pop("host", "node")
    return Heartbeat(f"w{worker}", host, "", worker, "", 1, 60.0, work, **fields)


def progress(*workers: Heartbeat, **fields) -> Progress:
    given = {"runs_done": 3, "runs_failed": 0, "runs_total": 40, "share_done": 0.25}
    given |= {"tokens_per_second": 12_345.6}
    return Progress(**given | {"seconds_left": 3723.0, "doing": "", "workers": workers} | fields)


def draw(*shown: Progress, width: int = 80, height: int = 24, seconds: float = 10.0) -> list[str]:
    """The lines of the view after the progresses, so many seconds apart."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    console._color_system = None
    clock = Clock()
    view = SwarmView(console, clock)
    for now in shown:
        view(now)
        clock.seconds += seconds
    lines = console.render_lines(view, console.options, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def test_the_whole_swarm_in_two_lines():
    first, second = draw(progress())
    assert first.endswith("25.0 %  12,346 tokens/s, 1:02:03 left")
    assert second == "3 of 40 runs done, 0 in training"
    second = draw(progress(heartbeat(1, 8, host="a"), heartbeat(2, 8, host="b")))[1]
    assert second == "3 of 40 runs done, 16 in training in 2 stacks on 2 machines"
    assert draw(progress(runs_failed=2))[1] == "3 of 40 runs done, 0 in training, 2 failed"


def test_a_line_per_run():
    lines = draw(progress(heartbeat(1, 2, 100)), progress(heartbeat(1, 2, 200)))
    # 100 steps in 10 s: 1,000 steps are 100 s. Tokens of a stack are shared by its runs.
    assert lines[3].split() == ["run", "size", "steps", "loss", "tokens/s", "left"]
    assert lines[4].split() == ["m1-0", "55k", "200/1,200", "2.000", "4,000", "1:40"]
    assert lines[5].split() == ["m1-1", "55k", "200/1,200", "2.125", "4,000", "1:40"]


def test_speed_is_of_the_stack_in_training():
    """What another stack of the same worker did, or a resume brought back, says nothing."""
    other = heartbeat(1, 1, 10)
    lines = draw(progress(heartbeat(1, 2, 1100)), progress(other))
    assert lines[4].split()[-1] == "?"


def test_stacks_where_runs_do_not_fit():
    lines = draw(progress(*(heartbeat(w, 8) for w in range(10))))
    rows = lines[4:]
    assert len(rows) == 10
    assert rows[3].split()[:6] == ["m3-0", "+", "7", "more", "55k", "100/1,200"]
    assert rows[3].split()[6:] == ["2.000", "to", "2.875", "8,000", "?"]


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("stacks", [1, 8, 64, 500])
def test_it_fits_the_terminal(width, stacks):
    name, hosts = "uniform-without-the-code-of-python", ["gpu-node-000.cluster.example", "b"]
    beats = [heartbeat(w, 8, 100, label=name, host=hosts[w % 2]) for w in range(stacks)]
    # Later workers are slower, so that they take longest.
    later = [heartbeat(w, 8, 700 - w, label=name, host=hosts[w % 2]) for w in range(stacks)]
    lines = draw(progress(*beats), progress(*later), width=width)
    assert len(lines) <= 23
    assert max(map(len, lines)) <= width
    rows = [line for line in lines[4:] if "/1,200" in line]
    assert all("8,000" in row or "1,000" in row for row in rows)
    if stacks > 18:
        assert len(rows) == 18
        hidden = stacks - 18
        assert lines[-1] == f"and {hidden} more stacks ({8 * hidden:,} runs), sooner done"
        steps = [int(row.split("/")[0].split()[-1]) for row in rows]
        assert steps == [700 - w for w in range(stacks - 18, stacks)]


def test_names_of_users_are_no_markup():
    assert draw(progress(heartbeat(1, label="[red]x[/]")))[4].startswith("[red]x[/]-0")


def test_names_cannot_move_the_cursor():
    shown = "\n".join(draw(progress(heartbeat(1, label="a\x1b[2Jb", host="h\x9b1m"))))
    assert r"a\x1b[2Jb-0" in shown
    console = Console(file=io.StringIO(), width=80)
    SwarmView(console).note("worker \x1b[2J died")
    assert r"worker \x1b[2J died" in console.file.getvalue()  # pyright: ignore


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm"}])
def test_nothing_is_drawn_over_without_escape_codes(environment):
    """In a dumb terminal, or where colours are unwanted: plain lines."""
    written, clock = io.StringIO(), Clock()
    console = Console(
        file=written, force_terminal=True, width=80, color_system=None, _environ=environment
    )
    with swarm_view(console) as view:
        view._clock = clock
        clock.seconds = view._next_line + 1
        view(progress(heartbeat(1)))
    assert written.getvalue().startswith("25.0 %, 12,346 tokens/s")
    assert "\x1b" not in written.getvalue()


def test_plain_lines_where_there_is_no_terminal():
    written, clock = io.StringIO(), Clock()
    console = Console(file=written, width=40)
    view = SwarmView(console, clock)
    for seconds in (0, 4, 5, 6, 4 + LINE_SECONDS, 5 + LINE_SECONDS, 6 + LINE_SECONDS):
        clock.seconds = seconds
        view(progress(heartbeat(1, 8), seconds_left=math.inf))
    text = "25.0 %, 12,346 tokens/s, ? left, 3 of 40 runs done, 8 in training\n"
    assert written.getvalue() == 2 * text


@pytest.mark.parametrize("terminal", [True, False])
def test_an_interrupt_ends_the_view(terminal):
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=terminal, width=80, color_system="standard", _environ={}
    )

    def interrupted() -> None:
        with swarm_view(console) as view:
            view(progress(heartbeat(1)))
            view.note("the tracker is left out")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    shown = written.getvalue()
    assert ("tokens/s" in shown) == terminal  # a line only after some seconds
    assert "the tracker is left out" in shown


def test_durations():
    assert [_duration(s) for s in (0, 187, 7387, 360_000, math.inf)] == [
        "0:00",
        "3:07",
        "2:03:07",
        "4 d 04:00",
        "?",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_logged_becomes_a_note(terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80)
    with swarm_view(console):
        logging.getLogger("mixlaw.launch.driver").warning("2 x 55k: the worker %s died", "w1")
    logging.getLogger("mixlaw.launch.driver").debug("nothing")
    assert "note: 2 x 55k: the worker w1 died" in re.sub(
        r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()
    )
    assert not logging.getLogger("mixlaw").handlers
