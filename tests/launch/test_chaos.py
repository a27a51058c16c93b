"""Real trainers that are killed, hang or run out of disk: nothing is lost, twice or different.

`python -m benchmarks.chaos` kills oftener; its figures are in benchmarks/results/chaos.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

ROOT = str(Path(__file__).parent.parent.parent)
if ROOT not in sys.path:
    sys.path.append(ROOT)

from benchmarks.chaos import COMMAND, KINDS, Story, damage, disturb  # noqa: E402
from mixlaw.runs import DONE, MISSING, RunTable  # noqa: E402
from mixlaw.store import RunStore  # noqa: E402
from mixlaw.study import Study  # noqa: E402

KILLS = 5

FAULT = """\
import os, sys, time
if "mixlaw.launch.worker" in sys.orig_argv:
    from mixlaw.corpus import BatchSampler
    from mixlaw.train.record import StoreJournal
    flag = {flag!r}
    {fault}
"""
"""A sitecustomize: Python runs it at the start of every process, here of workers."""

HANG = """
    real = BatchSampler.batches
    def batches(self, first, count, proportions):
        if first >= 20:
            try:
                os.remove(flag)  # one of them can, however many come at once
            except FileNotFoundError:
                pass
            else:
                time.sleep(3600)
        return real(self, first, count, proportions)
    BatchSampler.batches = batches
"""

DIE = """
    real = StoreJournal.report
    def report(self, report):
        if report.steps_done >= 20 and open(flag).read() in [s.run_id for s in self.specs]:
            os.kill(os.getpid(), 9)
        real(self, report)
    StoreJournal.report = report
"""


DIE_STORING = """
    def dying(real):
        calls = []
        def method(self, *arguments):
            calls.append(1)
            try:
                os.remove(f"{flag}-{real.__name__}-{len(calls)}")
            except FileNotFoundError:
                return real(self, *arguments)
            os.kill(os.getpid(), 9)
        return method
    from mixlaw.store import RunStore
    for name in ("save", "delete_checkpoints"):
        setattr(RunStore, name, dying(getattr(RunStore, name)))
"""


@pytest.fixture(scope="module")
def designed(tiny_folder, tmp_path_factory) -> Path:
    """The tiny study with its corpus and its design, nothing trained. Copy before use."""
    root = tmp_path_factory.mktemp("designed") / "study"
    shutil.copytree(tiny_folder, root)
    Study(root).design()
    return root


@pytest.fixture(scope="module")
def undisturbed(designed, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "study"
    shutil.copytree(designed, root)
    Study(root).train()
    return root


@pytest.fixture
def study(designed, tmp_path) -> Path:
    """An own copy."""
    return Path(shutil.copytree(designed, tmp_path / "study"))


def train(study: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, str(study)], capture_output=True, text=True, env=os.environ | environment
    )


def faulty(tmp_path: Path, fault: str, flag: str) -> dict[str, str]:
    """An environment in which workers have a fault."""
    folder, file = tmp_path / "fault", tmp_path / "flag"
    folder.mkdir()
    file.write_text(flag)
    text = FAULT.format(flag=str(file), fault=fault.strip())
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def events(study: Path) -> list[list[str]]:
    """What was told of each run, in order."""
    store = RunStore(study / "runs")
    told = (store.metrics(run.run_id) for run in Study(study).design())
    return [[line["event"] for line in lines if "event" in line] for lines in told]


def table(study: Path) -> bytes:
    return (study / "runs.csv").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are read from /proc")
def test_kills_at_random_moments_lose_and_change_nothing(tiny_folder, tmp_path):
    reference, disturbed = tmp_path / "reference", tmp_path / "disturbed"
    shutil.copytree(tiny_folder, reference)
    text = (reference / "study.yaml").read_text()
    text = text.replace("horizon_steps: [10, 20, 40]", "horizon_steps: [200, 400]")
    (reference / "study.yaml").write_text(text)
    study = Study(reference)
    specs = study.design()
    shutil.copytree(reference, disturbed)
    study.train()
    story = disturb(disturbed, KILLS, seed=1, pause_seconds=0.3)
    assert len(story.kills) == KILLS
    assert {kill.kind for kill in story.kills} == set(KINDS)
    found = damage(reference, disturbed, specs, story)
    assert found.same_table
    assert (found.lost, found.duplicated, found.differing, found.curves, found.left) == (0,) * 5
    assert found.steps_trained >= found.steps_needed


def test_kills_while_results_are_stored(study, undisturbed, tmp_path):
    """Before the first result of a stack, between two, and before a checkpoint is removed."""
    for moment in ("save-1", "save-3", "delete_checkpoints-2"):
        (tmp_path / f"flag-{moment}").touch()
    found = train(study, **faulty(tmp_path, DIE_STORING, ""))
    assert found.returncode == 0, found.stderr
    assert not list(tmp_path.glob("flag-*"))
    done = damage(undisturbed, study, Study(study).design(), Story())
    assert done.same_table
    assert (done.lost, done.differing, done.curves, done.left) == (0,) * 4
    assert done.told_done > 0  # "done" is told before the result is there, and then again


def test_damage_is_counted(undisturbed, tmp_path):
    """What the test above counts as nothing is seen when it is there."""
    study = Path(shutil.copytree(undisturbed, tmp_path / "study"))
    specs, runs = Study(study).design(), study / "runs"
    assert damage(undisturbed, study, specs, Story()).lost == 0
    (runs / specs[0].run_id / "run.json").unlink()
    result = runs / specs[1].run_id / "run.json"
    result.write_text(result.read_text().replace('"bpb/abc": ', '"bpb/abc": 1'))
    curve = runs / specs[2].run_id / "metrics.jsonl"
    curve.write_text(curve.read_text().replace('"loss": ', '"loss": 1'))
    (runs / specs[3].run_id / "checkpoint-000000005.safetensors").touch()
    (runs / specs[3].run_id / ".run.json.abc.tmp").touch()
    (study / "runs.csv").write_text("")
    found = damage(undisturbed, study, specs, Story(written={specs[4].run_id: {(1, 1), (2, 2)}}))
    assert (found.lost, found.duplicated, found.differing, found.curves) == (1,) * 4
    assert (found.left, found.temporary, found.same_table) == (1, 1, False)


def test_a_worker_that_hangs_is_ended_and_its_runs_are_finished(study, undisturbed, tmp_path):
    text = (study / "study.yaml").read_text()
    (study / "study.yaml").write_text(text.replace("hardware: {", "hardware: {stuck_seconds: 3, "))
    found = train(study, **faulty(tmp_path, HANG, ""))
    assert found.returncode == 0, found.stderr
    assert "its training no longer moved" in found.stderr
    assert table(study) == table(undisturbed)
    after = {told[told.index("stuck") + 1] for told in events(study) if "stuck" in told}
    assert "resumed" in after
    assert after <= {"resumed", "started"}  # a slow machine's worker is stuck before its first step


def test_a_run_that_kills_every_worker_is_named_and_can_be_tried_again(
    study, undisturbed, tmp_path
):
    with (study / "study.yaml").open("a") as settings:
        settings.write("launch: {max_attempts: 2}\n")
    bad = Study(study).design()[5]
    found = train(study, **faulty(tmp_path, DIE, bad.run_id))
    assert found.returncode == 1
    told = " ".join(found.stderr.split())
    assert f"1 of 20 runs have no result ({bad.label} of {bad.size}, seed {bad.seed})" in told
    rows = RunTable.read(study / "runs.csv").rows()
    missing = {row["run"] for row in rows if row["status"] == MISSING}
    assert missing == {bad.run_id}
    assert {row["status"] for row in rows} == {MISSING, DONE}
    assert train(study).returncode == 0
    assert table(study) == table(undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that takes 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_in_a_line_and_training_goes_on_after(study, undisturbed, small_disk):
    (study / "runs").symlink_to(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(8 * 2**20 - 600_000))  # some checkpoints fit
    found = train(study)
    assert found.returncode == 1, found.stderr
    *progress, told = found.stderr.splitlines()
    assert told.startswith("error: could not write")
    assert "No space left on device" in told
    assert all("in training" in line or line[:5] == "note:" for line in progress), found.stderr
    ballast.unlink()
    assert train(study).returncode == 0
    assert table(study) == table(undisturbed)


def test_two_trainings_of_one_study_at_once_train_each_run_once(study, undisturbed):
    calls = [
        subprocess.Popen([*COMMAND, str(study)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [call.communicate()[1] for call in calls]
    assert [call.returncode for call in calls] == [0, 0], told
    assert table(study) == table(undisturbed)
    assert events(study) == [["started", *["evaluated"] * 3, "done"]] * 20
