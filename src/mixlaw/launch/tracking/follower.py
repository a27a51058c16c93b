"""Brings new lines of a store's runs to trackers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from mixlaw.claims import Worker
from mixlaw.errors import MixlawError
from mixlaw.launch.tracking.base import EVENTS, Tracker, events, points
from mixlaw.runs import RunResult, RunSpec
from mixlaw.store import METRICS, RunStore

STATE, TRACKING = "tracking.json", "tracking"
"""What trackers have whole, and what the one that works holds by a claim."""
PAUSE_SECONDS = 5.0
PAUSE_PER_WORK = 4.0
"""It pauses so many times longer than it worked: with thousands of runs in a bucket, or a slow
tracker, it must not take the machine from the training."""
CLOSE_SECONDS = 120.0


class Follower:
    """Follows runs until they have their results, in a thread of its own.

    Runs that others trained, or that were trained while nobody followed, are caught up with. The
    store remembers in `tracking.json` which runs a tracker has whole; of the others the tracker
    tells how far it came. Of several followers of one store only one works, which holds it by a
    claim; another takes over when that one is gone.

    >>> with Follower(store, specs, trackers, on_note=print):
    ...     train_swarm(swarm, specs, launcher)
    """

    def __init__(
        self,
        store: RunStore,
        specs: Sequence[RunSpec],
        trackers: Sequence[Tracker],
        *,
        on_note: Callable[[str], None],
        lease_seconds: float = 60,
    ):
        """Args:
        on_note: told, from the thread, what could not be tracked and why.
        lease_seconds: as of the workers.
        """
        self.store, self.specs, self.on_note = store, list(specs), on_note
        self._feeds = [_Feed(tracker) for tracker in trackers]
        self._worker = Worker(store, lease_seconds=lease_seconds)
        self._holds = self._hurries = False
        self._noted: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="tracking", daemon=True)

    def __enter__(self) -> Self:
        self._worker.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._hurries = kind is not None  # the next training catches up
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._note(
                f"{', '.join(feed.destination for feed in self._feeds)} did not answer for "
                f"{CLOSE_SECONDS:.0f} s; the next training sends what is lacking"
            )
        self._worker.__exit__(kind, *rest)

    def _live(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            self.advance()
            pause = max(PAUSE_SECONDS, PAUSE_PER_WORK * (time.monotonic() - began))
        self.advance()
        for feed in list(self._feeds):
            self._attempt(feed, feed.restart)

    def advance(self) -> None:
        """Bring what is new to every tracker, if this follower holds the store."""
        try:
            if self._feeds and self._hold():
                self._advance()
        except Exception as error:  # of the store, or a damaged file; perhaps not next time
            kind = "" if isinstance(error, MixlawError) else f"{type(error).__name__}: "
            self._note(f"the runs' metrics could not be tracked: {kind}{error}")

    def _hold(self) -> bool:
        held = self._holds and self._worker.holds(TRACKING)
        if self._holds and not held:  # this process was stopped for a while, and another works now
            for feed in list(self._feeds):
                self._attempt(feed, feed.restart)
        self._holds = held or self._worker.claim([TRACKING]) == [TRACKING]
        if self._holds and not held:
            state = self._state()
            for feed in self._feeds:
                feed.whole = set(state.get(feed.destination, []))
        return self._holds

    def _advance(self) -> None:
        finished = self.store.finished()  # first: a result is written after the run's last line
        begun = finished | self.store.storage.folders_with(METRICS)
        for spec in self.specs:
            run_id = spec.run_id
            behind = [feed for feed in self._feeds if run_id not in feed.whole]
            if run_id not in begun or not behind:
                continue
            if self._hurries:
                return
            lines = self.store.metrics(run_id)
            result = self.store.load(spec) if run_id in finished else None
            for feed in behind:
                self._attempt(feed, partial(feed.bring, spec, lines, result))
            if result is not None:
                self._remember()

    def _remember(self) -> None:
        state = self._state()  # of other trackers, too
        state |= {feed.destination: sorted(feed.whole) for feed in self._feeds}
        self.store.storage.write(STATE, (json.dumps(state) + "\n").encode())

    def _state(self) -> dict[str, list[str]]:
        """Destination -> ids of the runs that it has whole."""
        try:
            state = json.loads(self.store.storage.read(STATE) or b"{}")
            return {destination: list(run_ids) for destination, run_ids in state.items()}
        except (ValueError, TypeError, AttributeError):  # damaged: then the trackers are asked
            return {}

    def _attempt(self, feed: _Feed, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a tool raises: no tracker is worth a training
            self._feeds.remove(feed)
            self._note(
                f"{feed.destination} is left out from now on ({type(error).__name__}: {error}); "
                "the training goes on, and the next one sends what is lacking"
            )

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.on_note(text)


class _Feed:
    """One tracker and what it has.

    Attributes:
        whole: ids of runs that it has to their end.
        sent: run id -> series -> tokens of the last point, for runs that were begun.
    """

    def __init__(self, tracker: Tracker):
        self.tracker, self.destination = tracker, tracker.destination
        self.whole: set[str] = set()
        self.sent: dict[str, dict[str, int]] = {}

    def restart(self) -> None:
        self.sent.clear()
        self.tracker.close()

    def bring(
        self, spec: RunSpec, lines: Sequence[Mapping[str, Any]], result: RunResult | None
    ) -> None:
        run_id = spec.run_id
        if run_id not in self.sent:
            self.sent[run_id] = dict(self.tracker.begin(spec))
        sent = self.sent[run_id]
        new = [p for p in points(spec, lines, result) if p.tokens > sent.get(p.series, -1)]
        told = [event for event in events(lines) if event.number > sent.get(EVENTS, 0)]
        if new or told:
            self.tracker.log(spec, new, told)
            sent |= {point.series: point.tokens for point in new}
            sent[EVENTS] = sent.get(EVENTS, 0) + len(told)
        if result is not None:
            self.tracker.finish(spec, result)
            self.whole.add(run_id)
            del self.sent[run_id]
