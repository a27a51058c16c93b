"""`mixlaw continual` and `mixlaw status` of a table of continued runs, as a user meets them."""

from __future__ import annotations

import json
import re

import pytest

from mixlaw.cli.demo import run_demo, template
from mixlaw.cli.show_continual import answer
from mixlaw.errors import StudyError
from mixlaw.report.continual_words import answer_sentences
from mixlaw.runs import RunTable
from mixlaw.study import Study
from tests.cli.test_cli import run
from tests.study.continued import continued_rows


def table_study(folder, section="{new: [code]}", *, objective="{loss/web: 1, loss/code: 1}"):
    RunTable.from_rows(continued_rows(horizons=2)).write(folder / "runs.csv")
    text = f"table: runs.csv\nobjective: {objective}\ncontinual: {section}\n"
    (folder / "study.yaml").write_text(text)
    return folder


def words(folder) -> list[str]:
    return list(answer_sentences(Study(folder).continual()))


def test_the_command_in_words_in_json_and_in_status(tmp_path):
    study = table_study(tmp_path)
    assert f"next: mixlaw continual {study}" in run("status", study).stdout
    found = run("continual", study)
    assert found.returncode == 0, found.stderr
    shown = " ".join(found.stdout.split())
    assert "share of code loss/web loss/books loss/code" in shown
    assert "base 2.3000 2.5000 2.0000" in shown
    assert "law (* chosen)" in shown
    assert (
        "is forecast to keep every old loss at or below its base; loss/web is the first to rise"
        in shown
    )
    assert "mean absolute error of inner shares" in shown
    assert "squared" not in shown
    data = json.loads(run("continual", study, "--json").stdout)
    critical = data["moves"][-1]["critical"]
    assert critical["binding"] == "loss/web"
    assert critical["low"] <= critical["share"] <= critical["high"]
    assert set(data["held_out_error"]) == set(data["laws"]["forms"])
    assert f"next: mixlaw report {study}" in run("status", study).stdout


def test_a_study_without_the_section_is_told_what_to_write(tmp_path):
    study = table_study(tmp_path)
    file = study / "study.yaml"
    file.write_text(file.read_text().replace("continual: {new: [code]}\n", ""))
    found = run("continual", study)
    assert found.returncode == 1
    assert "continual: {new: [code]}" in " ".join(found.stderr.split())
    assert "Traceback" not in found.stderr


def test_the_sentences_say_which_loss_rises_and_what_to_replay(tmp_path):
    critical = Study(table_study(tmp_path)).continual().main.critical
    first, best, moves = words(tmp_path)
    assert f"up to {100 * critical.share:.0f}% code (90% interval " in first
    assert f"Keep at least {100 * (1 - critical.share):.0f}% replay." in first
    assert "is best" in best
    assert "above its base." in best
    assert moves.startswith("The critical share goes from ")


def test_one_old_loss_is_named_with_its_base(tmp_path):
    table_study(tmp_path, "{new: [code, books], tolerance: 0.02}")
    assert (
        "is forecast to keep loss/web at or below its base value 2.3000, within a tolerance of 0.02"
        in (words(tmp_path)[0])
    )


def test_when_nothing_keeps_the_old_and_when_all_does(tmp_path):
    table_study(tmp_path, "{new: [code], tolerance: 10}")
    assert "no share of code is forecast to raise an old loss" in words(tmp_path)[0]
    assert "a guess beyond the trained shares" in words(tmp_path)[0]
    table_study(tmp_path)
    rows = continued_rows(horizons=2)
    for row in rows:
        row |= {key: row[key] - 0.2 for key in row if key.startswith("start/")}
    RunTable.from_rows(rows).write(tmp_path / "runs.csv")
    assert "even replay alone is forecast to leave loss/web" in words(tmp_path)[0]
    assert re.search(
        r"allow a tolerance above 0\.\d{4} for loss/web and 0\.\d{4} for loss/books",
        words(tmp_path)[0],
    )


def test_the_tolerances_that_are_named_are_enough(tmp_path):
    """With those, a hundredth more, some new data keeps every old loss."""
    table_study(tmp_path)
    rows = continued_rows(horizons=2)
    for row in rows:
        row |= {key: row[key] - 0.2 for key in row if key.startswith("start/")}
    RunTable.from_rows(rows).write(tmp_path / "runs.csv")
    each = re.findall(r"(0\.\d{4}) for (loss/\w+)", words(tmp_path)[0])
    told = ", ".join(f"{target}: {float(rise) * 1.01:.6f}" for rise, target in each)
    file = tmp_path / "study.yaml"
    file.write_text(
        file.read_text().replace("{new: [code]}", f"{{new: [code], tolerance: {{{told}}}}}")
    )
    critical = Study(tmp_path).continual().main.critical
    assert critical.end is None
    assert critical.share > 0


def test_replay_that_may_or_may_not_keep_the_old_is_no_certainty(tmp_path):
    table_study(tmp_path)
    rows = continued_rows(horizons=2, noise=0.03)
    for row in rows:
        row["start/loss/web"] -= 0.1
    RunTable.from_rows(rows).write(tmp_path / "runs.csv")
    critical = Study(tmp_path).continual().main.critical
    assert critical.end == "replay"
    assert critical.high > 0
    assert "but not beyond doubt: some code may keep it" in words(tmp_path)[0]


def test_the_composition_of_a_side_is_said_where_the_runs_vary_it(tmp_path):
    table_study(tmp_path)
    rows = continued_rows(horizons=2)
    for k, row in enumerate(rows):
        part, old = (0.1, 0.9)[k // 2 % 2], 1 - row["weight/code"]
        row |= {"weight/web": old * part, "weight/books": old * (1 - part)}
    RunTable.from_rows(rows).write(tmp_path / "runs.csv")
    said = " ".join(words(tmp_path))
    assert "this is for the old side of 50% " in said
    assert "near which no run was: a guess" in said


def test_settings_that_vary_have_a_column(tmp_path, capsys):
    answer(Study(table_study(tmp_path)).continual())
    shown = " ".join(capsys.readouterr().out.split())
    assert "tokens critical 90% interval first to rise best as good" in shown
    assert "1,000,000" in shown
    assert "re-warmed critical" not in shown


def test_the_demo_refuses_the_folder_of_another_study(tmp_path):
    (tmp_path / "study.yaml").write_text(template("demo.yaml"))
    with pytest.raises(StudyError, match="is not this demo's study"):
        run_demo(tmp_path, short=True, continual=True)
