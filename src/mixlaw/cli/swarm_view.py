"""A swarm in training, as people watch it: live in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mixlaw.cli.terminal import GAP, err, moves, shown

if TYPE_CHECKING:
    from mixlaw.claims import Heartbeat, RunStatus, WorkStatus
    from mixlaw.launch.driver import Progress

FIRST_LINE_SECONDS, LINE_SECONDS = 5.0, 30.0
SPEED_SECONDS = 120.0
"""Steps per second are those of this last time: heartbeats come every few seconds."""
BAR_WIDTH = 24
LEAST_NAME, LEAST_HOST, MOST_NAME = 8, 6, 32
FRAME_LINES = 6
"""Lines that are not rows: two of the swarm, a blank one, the header, "and 9 more", the cursor."""


@contextlib.contextmanager
def swarm_view(console: Console = err) -> Iterator[SwarmView]:
    """Shows progress until the block ends."""
    view = SwarmView(console)
    live = Live(view, console=console, refresh_per_second=4, transient=True)
    with live if moves(console) else contextlib.nullcontext(), _log_as_notes(view):
        yield view


@contextlib.contextmanager
def _log_as_notes(view: SwarmView) -> Iterator[None]:
    """What mixlaw logs (a lost worker, a run that is given up) must not tear the view."""
    handler, log = logging.Handler(logging.WARNING), logging.getLogger("mixlaw")
    handler.emit = lambda record: view.note(record.getMessage())
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


class SwarmView:
    """Call it with each progress. In a terminal it is what `Live` draws; elsewhere it prints."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic):
        self._console, self._clock = console, clock
        self._now: Progress | None = None
        self._speeds: dict[str, _Speed] = {}
        self._next_line = clock() + FIRST_LINE_SECONDS

    def __call__(self, now: Progress) -> None:
        self._now, seconds = now, self._clock()
        working = {beat.worker: beat.work for beat in now.workers if beat.work is not None}
        self._speeds = {
            worker: self._speeds.get(worker, _Speed()).at(seconds, work)
            for worker, work in working.items()
        }
        if not moves(self._console) and seconds >= self._next_line:
            self._next_line = seconds + LINE_SECONDS
            share = f"{now.share_done:.1%}".replace("%", " %")
            self._console.print(
                f"{share}, {_speed(now)}, {_runs(now)}", soft_wrap=True, markup=False
            )

    def note(self, text: str) -> None:
        """Say something above the view, on stderr. May be called from any thread."""
        self._console.print(Text.assemble(("note: ", "yellow"), shown(text)), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._now is None:
            yield Text("preparing")
            return
        now, width = self._now, options.max_width
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=1.0, completed=now.share_done, width=min(BAR_WIDTH, width // 3)),
            f"{now.share_done:.1%}".replace("%", " %"),
            _speed(now),
        )
        yield bar
        yield Text(_runs(now), no_wrap=True, overflow="ellipsis")
        rows = [
            _Row.of_stack(beat, beat.work, self._speeds[beat.worker].seconds_left)
            for beat in now.workers
            if beat.work is not None
        ]
        if rows:
            yield Text()
            yield from _table(rows, width, max(console.height - FRAME_LINES, 1))


class _Speed:
    """Steps per second of a worker's stack."""

    def __init__(self):
        self.runs: tuple[str, ...] = ()
        self.seen: deque[tuple[float, int]] = deque()
        self.steps_left = 0

    def at(self, seconds: float, work: WorkStatus) -> _Speed:
        runs = tuple(run.run_id for run in work.runs)
        if runs != self.runs:
            self.runs = runs
            self.seen.clear()
        self.steps_left = work.steps_total - work.steps_done
        if not self.seen or self.seen[-1][1] != work.steps_done:
            self.seen.append((seconds, work.steps_done))
        while len(self.seen) > 2 and self.seen[0][0] < seconds - SPEED_SECONDS:
            self.seen.popleft()
        return self

    @property
    def seconds_left(self) -> float:
        (first, before), (last, after) = self.seen[0], self.seen[-1]
        return self.steps_left * (last - first) / (after - before) if after > before else math.inf


@dataclass(frozen=True)
class _Row:
    """One or more runs of a stack."""

    runs: tuple[RunStatus, ...]
    work: WorkStatus
    seconds_left: float
    host: str

    @classmethod
    def of_stack(cls, beat: Heartbeat, work: WorkStatus, seconds_left: float) -> _Row:
        return cls(work.runs, work, seconds_left, shown(beat.host.partition(".")[0]))

    def split(self) -> list[_Row]:
        return [_Row((run,), self.work, self.seconds_left, self.host) for run in self.runs]

    def name(self, width: int = MOST_NAME) -> str:
        """The first label, cut to fit, and how many more there are."""
        label, more = shown(self.runs[0].label), len(self.runs) - 1
        end = f" + {more} more" if more else ""
        if cell_len(label + end) > width:
            label = set_cell_size(label, max(width - 1 - cell_len(end), 1)) + "…"
        return label + end

    @property
    def cells(self) -> list[str]:
        found = sorted(run.loss for run in self.runs if run.loss is not None)
        low, high = (f"{found[0]:.3f}", f"{found[-1]:.3f}") if found else ("-", "-")
        tokens_per_second = self.work.tokens_per_second * len(self.runs) / len(self.work.runs)
        return [
            self.runs[0].size,
            f"{self.work.steps_done:,}/{self.work.steps_total:,}",
            low if low == high else f"{low} to {high}",
            f"{tokens_per_second:,.0f}",
            _duration(self.seconds_left),
        ]


def _table(stacks: Sequence[_Row], width: int, lines: int) -> RenderResult:
    """A line per run if there is room, else per stack; of too many stacks, those that take
    longest: it is they that one waits for."""
    rows = [row for stack in stacks for row in stack.split()]
    if len(rows) > lines:
        rows = list(stacks)
    shown = rows
    if len(rows) > lines:
        longest = sorted(range(len(rows)), key=lambda i: rows[i].seconds_left, reverse=True)
        # Drawn in the order of the workers, so that lines do not jump about.
        shown = [rows[i] for i in sorted(longest[:lines])]
    yield _grid(shown, width)
    if hidden := len(rows) - len(shown):
        runs = sum(len(row.runs) for row in rows) - sum(len(row.runs) for row in shown)
        yield Text(f"and {hidden} more stacks ({runs:,} runs), sooner done", style="dim")


def _grid(rows: Sequence[_Row], width: int) -> Table:
    """Numbers are never cut; names, and hosts if there are several, share what they leave."""
    header = ["size", "steps", "loss", "tokens/s", "left"]
    cells = [row.cells for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
    room = width - sum(widths) - GAP * len(widths)
    hosts = len({row.host for row in rows}) > 1
    name = max(cell_len(row.name()) for row in rows)
    host = min(max(cell_len(row.host) for row in rows), room - GAP - min(name, room // 2))
    hosts = hosts and host >= LEAST_HOST
    name = max(LEAST_NAME, min(name, room - (GAP + host if hosts else 0)))
    grid = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    grid.add_column("run", width=name, no_wrap=True)
    for title, cut in zip(header, widths, strict=True):
        grid.add_column(title, width=cut, no_wrap=True, justify="right")
    if hosts:
        grid.add_column("host", width=host, no_wrap=True, overflow="ellipsis")
    for row, numbers in zip(rows, cells, strict=True):
        line = [row.name(name), *numbers, *([row.host] if hosts else [])]
        grid.add_row(*map(Text, line))
    return grid


def _speed(now: Progress) -> str:
    return f"{now.tokens_per_second:,.0f} tokens/s, {_duration(now.seconds_left)} left"


def _runs(now: Progress) -> str:
    works = [beat.work for beat in now.workers if beat.work is not None]
    hosts = len({beat.host for beat in now.workers if beat.work is not None})
    active = sum(len(work.runs) for work in works)
    text = f"{now.runs_done:,} of {now.runs_total:,} runs done, {active:,} in training"
    text += f" in {len(works)} stacks" if len(works) > 1 else ""
    text += f" on {hosts} machines" if hosts > 1 else ""
    return text + (f", {now.runs_failed:,} failed" if now.runs_failed else "")


def _duration(seconds: float) -> str:
    """ "3:07", "2:03:07", "4 d 02:03"; "?" when it is not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d}:{minute:02d}"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
