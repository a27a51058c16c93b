"""Is anything lost, trained twice or changed when trainers and drivers are killed?

`mixlaw train` with two workers trains a small study undisturbed, then a copy of it under SIGKILLs
at random moments: of a worker, of the driver, or of all at once. The driver is started again each
time, as a user would. The victims are stopped (SIGSTOP) before the kill, to see what they do.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.table import markdown, publish
from mixlaw.claims import NOBODY, Heartbeat, Watch, _highest, _holder
from mixlaw.runs import RunSpec
from mixlaw.store import METRICS, RESULT, RunStore

STUDY = """\
domains:
  abc: {paths: [text/abc]}
  digits: {paths: [text/digits]}
  words: {paths: [text/words]}
validation_bytes: 1500
tokenizer: {kind: byte}
sizes:
  3k: {width: 16, layers: 1}
  6k: {width: 16, layers: 2}
design: {mixtures: 8, replicated_mixtures: 2, replicate_seeds: 2}
training:
  sizes: [3k, 6k]
  batch_size: 2
  sequence_length: 16
  warmup_steps: 4
  horizon_steps: [2000, 4000]
  evaluation_tokens: 512
hardware: {checkpoint_seconds: 0, report_steps: 10}
objective: {bpb/words: 1, bpb/abc: 1}
target: {train_tokens: 960000}
"""
ALPHABETS = {"abc": "abcdef", "digits": "0123456789", "words": "etaoinshrdlu"}

COMMAND = [sys.executable, "-c", "from mixlaw.cli import main; main()", "train", "--workers", "2"]
KINDS = ("a worker", "the driver", "all at once")
ROUND = (*KINDS, "a worker", "a worker")
"""What is killed in five kills, in random order."""
STARTING, TRAINING = "starting", "training"
SAVING, STORING = "saving checkpoints", "storing results"
DOING = (STARTING, TRAINING, SAVING, STORING)
WAIT_SECONDS = 300.0


@dataclass(frozen=True)
class Kill:
    """One moment: what was killed, and what each of the driver's workers that it hit did."""

    kind: str
    doing: tuple[str, ...]


@dataclass
class Story:
    """What came of a study under kills.

    Attributes:
        gave_up: drivers that ended with exit code 1, since runs were lost thrice at one place.
        written: run id -> the different files that were seen as its result.
    """

    kills: list[Kill] = field(default_factory=list)
    gave_up: int = 0
    seconds: float = 0.0
    written: dict[str, set[tuple[int, int]]] = field(default_factory=dict)


def disturb(folder: Path, kills: int, *, seed: int = 0, pause_seconds: float = 1.5) -> Story:
    """Train a study to its end with SIGKILLs at random moments on the way.

    Args:
        folder: of a study with its design; its runs lie in runs/.
        kills: as many, if the training lasts so long.
        pause_seconds: the longest from the moment that something trains to the next kill.
    """
    store, story, chance = RunStore(folder / "runs"), Story(), random.Random(seed)
    rounds = [chance.sample(ROUND, len(ROUND)) for _ in range(0, kills, len(ROUND))]
    kinds = list(itertools.chain(*rounds))
    began = time.monotonic()
    with _results_watched(store, story.written), (folder / "drivers.log").open("wb") as log:
        driver = _start(folder, log)
        try:
            while True:
                if len(story.kills) < kills and _something_trains(store, driver):
                    time.sleep(chance.uniform(0, pause_seconds))
                    if kill := _kill(kinds[len(story.kills)], store, driver, chance):
                        story.kills.append(kill)
                    if driver.poll() is None:
                        continue
                code = driver.wait(WAIT_SECONDS)
                if code == 0:
                    break
                story.gave_up += code == 1
                driver = _start(folder, log)
        finally:
            driver.kill()
            driver.wait()
    story.seconds = time.monotonic() - began
    return story


def _start(folder: Path, log) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, str(folder)], stdout=log, stderr=log, start_new_session=True)


def _something_trains(store: RunStore, driver: subprocess.Popen) -> bool:
    """Waits for it; False when the driver ended instead."""
    deadline = time.monotonic() + WAIT_SECONDS
    while driver.poll() is None and time.monotonic() < deadline:
        if any(pid in _beats(store) for pid in _children(driver.pid)):
            return True
        time.sleep(0.02)
    return False


def _kill(
    kind: str, store: RunStore, driver: subprocess.Popen, chance: random.Random
) -> Kill | None:
    """None: there was nobody to kill."""
    workers = _children(driver.pid)
    hit = [chance.choice(workers)] if kind == "a worker" and workers else workers
    victims = {"a worker": hit, "the driver": [driver.pid], "all at once": [driver.pid, *hit]}[kind]
    if driver.poll() is not None or not victims:
        return None
    for pid in victims:
        _send(pid, signal.SIGSTOP)
    doing = tuple(_doing(store, pid) for pid in hit)
    for pid in victims:
        _send(pid, signal.SIGKILL)
    if driver.pid in victims:
        driver.wait()
    return Kill(kind, doing)


def _send(pid: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def _children(pid: int) -> list[int]:
    """Living child processes, zombies left out."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return [child for child in found if _state(child) not in "ZX"]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def _beats(store: RunStore) -> dict[int, Heartbeat]:
    """Process number -> heartbeat of those who have begun to train. Not by a Watch, which would
    clear away what the dead left."""
    found = {}
    for name in store.storage.names("workers"):
        if content := store.storage.read(f"workers/{name}"):
            heartbeat = Heartbeat.from_dict(json.loads(content))
            if heartbeat.work is not None:
                found[heartbeat.pid] = heartbeat
    return found


def _doing(store: RunStore, pid: int) -> str:
    """Of a worker process, from what it has left in the run folder."""
    heartbeat = _beats(store).get(pid)
    if heartbeat is None or heartbeat.work is None:
        return STARTING
    numbers = []
    for run in heartbeat.work.runs:
        names = os.listdir(Path(store.root, run.run_id))
        told = store.metrics(run.run_id)
        if RESULT in names or any(line.get("event") == "done" for line in told):
            return STORING
        if any(name.endswith(".tmp") for name in names):
            return SAVING
        numbers.append(store.checkpoints(run.run_id))
    return TRAINING if all(found == numbers[0] for found in numbers) else SAVING


@contextlib.contextmanager
def _results_watched(store: RunStore, written: dict[str, set[tuple[int, int]]]) -> Iterator[None]:
    """Keeps looking whether a result is replaced by another, though it be the same in content."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for run_id in store.storage.names():
                with contextlib.suppress(OSError):  # not yet; or no folder of a run
                    found = os.stat(Path(store.root, run_id, RESULT))
                    written.setdefault(run_id, set()).add((found.st_ino, found.st_mtime_ns))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join()


# What came of it


Place = tuple[int | None, int]
"""Horizon in tokens (None: the trunk) and step."""


@dataclass(frozen=True)
class Damage:
    """The study that was disturbed against the one that was not; all counts of runs but the last.

    Attributes:
        lost: without a result.
        duplicated: whose result was written again.
        differing: whose result is another.
        curves: whose metrics, read as the trackers read them, are others.
        told_done: whose "done" was told twice: killed after that, before the result was there.
        left: checkpoints, heartbeats, claims that seem held.
        temporary: files that killed writers left; nobody reads them.
        same_table: runs.csv is the same to the last byte.
        steps_needed, steps_trained: of all runs; trained as far as metrics were written.
    """

    lost: int
    duplicated: int
    differing: int
    curves: int
    told_done: int
    left: int
    temporary: int
    same_table: bool
    steps_needed: int
    steps_trained: int


def damage(reference: Path, disturbed: Path, specs: Sequence[RunSpec], story: Story) -> Damage:
    before, after = RunStore(reference / "runs"), RunStore(disturbed / "runs")
    expected, found, runs = before.results(specs), after.results(specs), [s.run_id for s in specs]
    lines = {run: _lines(after, run) for run in runs}
    steps = {run: _steps_of_lines(before, run) for run in runs}
    done = [sum(line.get("event") == "done" for line in lines[run]) for run in runs]
    places = {run: [_place(line) for line in lines[run] if "loss" in line] for run in runs}
    watch = Watch(after)
    left = len(after.storage.names("workers")) + sum(len(after.checkpoints(run)) for run in runs)
    for run in runs:
        holder = _holder(after, run, _highest(after.storage.names(run)))
        left += holder != NOBODY and watch.alive(holder)
    return Damage(
        lost=len(set(runs) - set(found)),
        duplicated=sum(len(story.written.get(run, ())) > 1 for run in runs),
        differing=sum(run in found and found[run] != expected[run] for run in runs),
        curves=sum(_curve(before, run) != _curve(after, run) for run in runs),
        told_done=sum(count > 1 for count in done),
        left=left,
        temporary=sum(1 for _ in Path(after.root).rglob(".*.tmp")),
        same_table=(reference / "runs.csv").read_bytes() == (disturbed / "runs.csv").read_bytes(),
        steps_needed=sum(sum(of.values()) for of in steps.values()),
        steps_trained=sum(steps[run].get(place, 0) for run in runs for place in places[run]),
    )


def _lines(store: RunStore, run_id: str) -> list[dict]:
    """All lines as they were written, but torn ones."""
    found = []
    for line in (store.storage.read(f"{run_id}/{METRICS}") or b"").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def _place(line: dict) -> Place:
    return line["horizon"], line["step"]


def _curve(store: RunStore, run_id: str) -> dict[Place, list[dict]]:
    """The lines of a run's curve and evaluations by their place."""
    found: dict[Place, list[dict]] = {}
    for line in store.metrics(run_id):
        if "horizon" in line:
            found.setdefault(_place(line), []).append(line)
    return found


def _steps_of_lines(store: RunStore, run_id: str) -> dict[Place, int]:
    """How many steps each line of an undisturbed run tells of."""
    found, last = {}, {}
    for line in _lines(store, run_id):
        if "loss" in line:
            horizon, step = _place(line)
            found[horizon, step] = step - last.get(horizon, last.get(None, 0))
            last[horizon] = step
    return found


# The benchmark


def write_study(folder: Path) -> None:
    chance = random.Random(0)
    for name, letters in ALPHABETS.items():
        text = folder / "text" / name
        text.mkdir(parents=True)
        for i in range(30):
            words = ("".join(chance.choices(letters, k=5)) for _ in range(2000))
            (text / f"{i}.txt").write_text(" ".join(words), encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")


def report(story: Story, found: Damage) -> str:
    rows = []
    for kind in KINDS:
        kills = [kill for kill in story.kills if kill.kind == kind]
        doing = Counter(itertools.chain.from_iterable(kill.doing for kill in kills))
        rows.append([kind, len(kills), *(doing[what] for what in DOING)])
    rows.append(["sum", *(sum(column) for column in zip(*(r[1:] for r in rows), strict=True))])
    text = markdown(["killed", "times", *(f"workers {what}" for what in DOING)], rows)
    text += "\n\n" + markdown(
        ["what came of it", ""],
        [
            ["runs lost", found.lost],
            ["results written twice", found.duplicated],
            ["results that differ from the undisturbed training", found.differing],
            ["curves that differ", found.curves],
            ["run table", "the same bytes" if found.same_table else "DIFFERS"],
            ["runs killed between saying done and storing their result", found.told_done],
            ["checkpoints, heartbeats, held claims left", found.left],
            ["temporary files left, which nobody reads", found.temporary],
            ["drivers that gave up a run lost three times at one place", story.gave_up],
            ["steps trained / steps needed", f"{found.steps_trained / found.steps_needed:.3f}"],
        ],
    )
    return text + (
        f"\n\n{found.steps_needed:,} steps of all runs; checkpoints at every tenth. Steps after the"
        " last line of metrics before a kill, fewer than ten a run, are not among those trained. "
        f"{story.seconds:.0f} s, most of it the start of processes. Workers of a killed driver are "
        "interrupted, which lets go of their runs."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from mixlaw.study import Study

    with tempfile.TemporaryDirectory() as folder:
        reference, disturbed = Path(folder, "reference"), Path(folder, "disturbed")
        write_study(reference)
        study = Study(reference)
        specs = study.design()
        shutil.copytree(reference, disturbed)
        study.train()
        story = disturb(disturbed, given.kills, seed=given.seed)
        found = damage(reference, disturbed, specs, story)
        publish("chaos", "Kills", "python -m benchmarks.chaos", report(story, found))


if __name__ == "__main__":
    main()
