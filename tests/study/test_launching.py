"""From a study to whoever trains it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="training needs torch")

from mixlaw.errors import StudyError, TrainError
from mixlaw.runs import DONE, MISSING
from mixlaw.study import Study
from mixlaw.study.launch_config import LaunchConfig
from mixlaw.study.launching import refuse_missing

COMMAND = [sys.executable, "-c", "from mixlaw.cli import main; main()"]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


def test_runs_lie_where_the_study_says(tiny_study, tmp_path):
    file = tiny_study / "study.yaml"
    text = file.read_text()
    assert Study(tiny_study).store.root == str(tiny_study / "runs")
    file.write_text(text + f"launch: {{runs: {tmp_path / 'elsewhere'}}}\n")
    assert Study(tiny_study).store.root == str(tmp_path / "elsewhere")
    file.write_text(text + "launch: {runs: s3://bucket/swarm}\n")
    assert Study(tiny_study).store.root == "s3://bucket/swarm"


def test_what_decides_no_loss_is_in_no_basis(tiny_study):
    study = Study(tiny_study)
    before, specs = study._own_runs.training.basis(), study.design()
    file = tiny_study / "study.yaml"
    text = file.read_text().replace("report_steps: 5", "report_steps: 1, stack_size: 2")
    file.write_text(text + "launch: {launcher: slurm, workers: 3}\n")
    changed = Study(tiny_study)
    assert changed._own_runs.training.basis() == before
    assert changed.design() == specs


def test_printed_commands_train_the_swarm(tiny_study, trained_folder):
    """In any order, from anywhere; afterwards `train` only collects."""
    printed = run("train", tiny_study, "--print-commands")
    assert printed.returncode == 0, printed.stderr
    commands = printed.stdout.splitlines()
    assert len(commands) == 4
    for command in reversed(commands):
        name, *arguments = shlex.split(command)
        assert name == "mixlaw"
        found = subprocess.run([*COMMAND, *arguments], cwd="/", capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
    assert json.loads(run("train", tiny_study, "--print-commands", "--json").stdout) == []
    Study(tiny_study).train(on_progress=lambda now: pytest.fail("nothing is left to train"))
    table = (tiny_study / "runs.csv").read_bytes()
    assert table == (trained_folder / "runs.csv").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--launcher", "kubernetes"], "--launcher kubernetes: Input should be 'local', 'ray' or"),
        (["--track", "excel"], "no tracker is called 'excel'; use tensorboard, wandb, mlflow"),
    ],
)
def test_what_is_asked_wrongly_is_said_before_any_training(tiny_study, arguments, message):
    found = run("train", tiny_study, *arguments)
    assert found.returncode == 1
    assert message in found.stderr.replace("\n", " ")
    assert "Traceback" not in found.stderr
    assert not (tiny_study / "runs").exists()


def test_missing_runs_are_in_the_table_and_named(tiny_study, monkeypatch):
    from mixlaw.study import launching

    study = Study(tiny_study)
    specs = study.design()
    trained = specs[:-2]

    def some(swarm, specs, launcher, **_) -> dict[str, str]:
        from mixlaw.claims import Worker

        with Worker(swarm.store) as worker:
            for stack in swarm.unfinished(trained):
                swarm.train(stack, worker)
        return {spec.run_id: "its node burned" for spec in specs[-2:]}

    monkeypatch.setattr(launching, "train_swarm", some)
    with pytest.raises(TrainError, match=r"2 of 20 runs have no result \(.*of 6k.*node burned"):
        study.train()
    table = study.runs()
    missing = {spec.run_id for spec in specs[-2:]}
    assert set(table.run[table.status == MISSING]) == missing
    assert set(table.run[table.status == DONE]) == {spec.run_id for spec in trained}
    assert study.status()["next"] == "train"


def test_many_missing_runs_are_named_in_short(tiny_study):
    specs = Study(tiny_study).design()
    with pytest.raises(TrainError, match=r"20 of 20 runs .*and 15 more\): why\."):
        refuse_missing({spec.run_id: "why" for spec in specs}, specs)
    refuse_missing({}, specs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("3k: {width: 16, layers: 1}", "3k: {}", r"size '3k' has no width.*known sizes: 25k, 50k"),
        ("3k: {width: 16, layers: 1}", "3k: {width: 16}", r"both width and layers"),
        (
            "{width: 16, layers: 1}",
            "{width: 24, layers: 1, head_width: 16}",
            r"24 and head width 16",
        ),
        ("{width: 16, layers: 1}", "{width: 30, layers: 1, head_width: 15}", r"and that be even"),
        ("3k: {width: 16, layers: 1}", "50k: {head_width: 32}", r"'50k': width is 48 and head wid"),
        ("warmup_steps: 4", "warmup_steps: 9", r"'3k' is measured after 10 steps.*from step 8 on"),
        (
            "warmup_steps: 4",
            "warmup_steps: 4\n  decay_fraction: 0.01",
            r"from step 10 on and rises",
        ),
        ("warmup_steps: 4", "warmup_steps: 10\n  schedule: cosine", r"from step 10 on and rises"),
        ("report_steps: 5", "compiled: true", r"hardware.compiled.*did you mean 'compile'"),
        ("batch_size: 2", "precision: fp8", r"training.precision.*'float32', 'bf16' or 'float64'"),
        ("batch_size: 2", "stack_size: 2", r"'training.stack_size'; it is hardware: {stack_size"),
        ("batch_size: 2", "workers: 2", r"'training.workers'; it is launch: {workers: ...} now"),
        ("hardware:", "launch: {launcher: k8s}\nhardware:", r"launch.launcher.*'local', 'ray'"),
        ("hardware:", "launch: {runs: memory://x}\nhardware:", r"launch: runs is memory://x, the"),
        ("hardware:", "launch: {slurm: {minutes: 0}}\nhardware:", r"launch.slurm.minutes"),
    ],
)
def test_sections_of_training_are_checked(tiny_study, old, new, message):
    file = tiny_study / "study.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(StudyError, match=message):
        Study(tiny_study)


def test_sizes_by_name_bring_their_recipe(tiny_study):
    file = tiny_study / "study.yaml"
    text = file.read_text().replace("3k: {width: 16, layers: 1}", "1M: {horizon_steps: [5]}")
    text = text.replace("sizes: [3k, 6k]", "sizes: [1M, 6k]")
    file.write_text(text.replace("  batch_size: 2\n  sequence_length: 16\n", ""))
    config = Study(tiny_study).config
    large, small = config.recipe("1M"), config.recipe("6k")
    assert (large.batch_size, large.sequence_length, large.warmup_steps) == (16, 128, 4)
    assert (small.batch_size, small.sequence_length) == (8, 64)
    assert config.longest_tokens("1M") == 5 * 16 * 128
    assert config.longest_tokens("6k") == 40 * 8 * 64
    assert config.num_params("1M") == 1_038_336
    assert large.learning_rate == pytest.approx(0.32 / 208)


def test_the_launch_section_has_the_launchers_own_options():
    """Each option of the file is one of the launcher, with the same default."""
    ray = pytest.importorskip("mixlaw.launch.ray", reason="needs the ray extra")
    from mixlaw.launch.slurm import SlurmOptions

    config = LaunchConfig()
    assert config.slurm.model_dump() == vars(SlurmOptions())
    found = config.ray.model_dump(include={"cpus", "gpus"})
    assert found == vars(ray.Resources())


def test_a_size_that_nobody_trains_changes_no_pool(tiny_study):
    file = tiny_study / "study.yaml"
    text = file.read_text().replace("  mixtures: 8", "  match_repetition: true\n  mixtures: 4")
    for name in ("abc", "digits", "words"):
        text = text.replace(f"[text/{name}]", f"[text/{name}], available_tokens: 3000")
    file.write_text(text)
    before = Study(tiny_study).design()
    file.write_text(text.replace("sizes:\n  3k", "sizes:\n  1M: {}\n  3k"))
    assert Study(tiny_study).design() == before


def test_verify_refuses_an_edited_study_before_it_trains(trained_study):
    Study(trained_study).optimize()
    file = trained_study / "study.yaml"
    file.write_text(file.read_text().replace("mixtures: 8", "mixtures: 9"))
    before = Study(trained_study).store.finished()
    with pytest.raises(StudyError, match="was edited under its swarm"):
        Study(trained_study).verify()
    assert Study(trained_study).store.finished() == before
