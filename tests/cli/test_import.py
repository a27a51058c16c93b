"""Importing from the command line: look, import, fit, decide; and import again."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
import yaml

from mixlaw.runs import RunTable
from mixlaw.study import Study

TINY = Path(__file__).parents[2] / "examples" / "tiny-env" / "runs.csv"
NAMES = {"run": "Run ID", "num_params": "non_embedding_params", "train_tokens": "tokens seen"}


def foreign_rows() -> list[dict]:
    """The runs of examples/tiny-env under other names, in another order."""
    with open(TINY, newline="") as handle:
        rows = list(csv.DictReader(handle))
    random.Random(0).shuffle(rows)
    out = []
    for row in rows:
        new = {"gpu": "A100"}
        for name, cell in row.items():
            metric, _, which = name.partition("/")
            if metric == "weight":
                name = f"mix_{which}"
            elif which:
                name = f"val/{which}/{metric}"
            if name not in ("label", "role", "status"):
                new[NAMES.get(name, name)] = cell
        out.append(new)
    return out


def write(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def theirs(tmp_path) -> Path:
    return write(tmp_path / "theirs.csv", foreign_rows())


def test_a_look_writes_nothing(mixlaw, theirs, monkeypatch):
    monkeypatch.chdir(theirs.parent)
    code, out, _ = mixlaw("import", "theirs.csv")
    assert code == 0
    assert "theirs.csv read as table: 90 runs, 270 rows, 5 domains, 14 targets" in out
    for told in ("mix_docs share of docs", "val/docs/bpb target bpb/docs", "tokens seen train_tok"):
        assert told in out
    assert "ignored: gpu" in out
    assert "nothing is written" in out
    data = json.loads(mixlaw("import", "theirs.csv", "--json")[1])
    assert (len(data["rows"]), data["kind"], data["ignored"]) == (270, "table", ["gpu"])
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.csv"]


def test_all_the_way_to_a_decision_and_again(mixlaw, theirs, tmp_path):
    study = tmp_path / "study"
    code, out, _ = mixlaw("import", theirs, "--into", study)
    assert code == 0
    assert f"wrote {study}/study.yaml: its objective is a first guess" in out
    runs, original = Study(study).runs(), RunTable.read(TINY)
    keys = list(zip(original.run, original.train_tokens.tolist(), strict=True))
    order = [keys.index(key) for key in zip(runs.run, runs.train_tokens.tolist(), strict=True)]
    assert sorted(order) == list(range(270))
    names = [original.targets.index(target) for target in runs.targets]
    assert runs.values.tolist() == original.values[order][:, names].tolist()
    # One law, for speed.
    file = study / "study.yaml"
    file.write_text(file.read_text() + "fit: {laws: [scaling]}\n")
    assert mixlaw("fit", study)[0] == 0
    code, out, _ = mixlaw("optimize", study, "--json")
    assert code == 0
    assert set(json.loads(out)["forecast"]["mixture"]) == set(original.domains)
    code, out, _ = mixlaw("import", "--into", study)
    assert (code, "0 runs are new, 90 as before" in out) == (0, True)
    write(theirs, [*foreign_rows()[:-1], foreign_rows()[-1] | {"val/docs/bpb": "3.21"}])
    (data,) = json.loads(mixlaw("import", "--into", study, "--json")[1])
    assert len(data["taken"]["changed"]) == 1
    assert len(data["taken"]["same"]) == 89
    assert data["changed_inputs"][0].startswith("changed: ")


def test_what_the_user_says_of_the_columns(mixlaw, tmp_path):
    rows = [
        {"id": f"r{i}", "p.web": 100 * w, "p.code": 100 * (1 - w), "quality": 3 - w, "size": "1e6"}
        for i, w in enumerate((0.1, 0.3, 0.6, 0.9))
    ]
    source = write(tmp_path / "odd.csv", rows)
    options = ["--mixture", "p.*", "--unit", "percent", "--target", "quality=loss/quality"]
    options += ["--run", "id", "--num-params", "2e6", "--train-tokens", "5_000_000"]
    options += ["--rename", "web=prose"]
    code, out, err = mixlaw("import", source, *options, "--into", tmp_path / "study", "--json")
    assert code == 0, err
    table = Study(tmp_path / "study").runs()
    assert (table.domains, table.targets) == (("prose", "code"), ("loss/quality",))
    assert table.weights[:, 0].tolist() == pytest.approx([0.1, 0.3, 0.6, 0.9])
    assert set(table.num_params) == {2e6}
    assert set(table.train_tokens) == {5e6}
    # The same columns from a file.
    columns = tmp_path / "columns.yaml"
    columns.write_text(yaml.safe_dump(json.loads(out)["columns"]))
    again = json.loads(mixlaw("import", source, "--columns", columns, "--json")[1])
    assert again["rows"] == json.loads(out)["rows"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to import: name the sources"),
        (["none.csv"], "no source at none.csv"),
        (["theirs.csv", "--kind", "wandbb"], "did you mean 'wandb'"),
        (["theirs.csv", "--rename", "web"], "is not of the form"),
        (["theirs.csv", "--rename", "a=b", "--rename", "a=c"], "names 'a' twice"),
        (["theirs.csv", "--columns", "c.yaml", "--run", "x"], "says what every column means"),
        (["theirs.csv", "--columns", "c.yaml"], "no columns at c.yaml"),
        (["theirs.csv", "--design", "."], "no planned runs in ."),
        (["--into", "study", "--run", "x"], "is repeated as its import.yaml says"),
        (["--into", "study"], "has no import.yaml to repeat"),
        (["theirs.csv", "--target", "colour=loss/colour"], "colour"),
        (["theirs.csv", "--num-params", "nan"], "--num-params 'nan' is neither a column nor"),
        (["theirs.csv", "--train-tokens", "inf"], "--train-tokens 'inf' is neither"),
        (["theirs.csv", "--tokens-per-step", "0"], "--tokens-per-step '0' is neither"),
        (["theirs.csv", "--num-params", ""], "--num-params '' is neither"),
        ([""], "a source is empty"),
    ],
)
def test_errors_are_one_line(mixlaw, theirs, monkeypatch, arguments, message):
    monkeypatch.chdir(theirs.parent)
    code, out, err = mixlaw("import", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert sorted(path.name for path in theirs.parent.iterdir()) == ["theirs.csv"]


def sheet(path: Path, count: int, *, first: int = 0, losses: bool = True) -> Path:
    """Runs of a sheet whose columns are called after domains alone."""
    rows = []
    for i in range(first, first + count):
        web = 0.1 + 0.07 * i
        row = {"run": f"r{i}", "web": web, "code": 0.9 - web, "books": 0.1}
        found = {"loss/web": 3 - web, "loss/code": 2 + web} if losses else {"score/quiz": web}
        rows.append(row | found)
    return write(path, rows)


class TestFurtherSources:
    @pytest.fixture
    def study(self, mixlaw, tmp_path) -> Path:
        study = tmp_path / "study"
        assert mixlaw("import", sheet(tmp_path / "one.csv", 8), "--into", study)[0] == 0
        return study

    def test_a_few_rows_are_read_as_the_study_knows_them(self, mixlaw, study, tmp_path):
        more = sheet(tmp_path / "more.csv", 1, first=8)
        code, out, err = mixlaw("import", more, "--into", study)
        assert code == 0, err
        assert "1 run is new, 8 others kept" in out

    def test_or_by_the_names_of_its_domains(self, mixlaw, tmp_path):
        study = tmp_path / "study"
        study.mkdir()
        (study / "study.yaml").write_text(
            "table: runs.csv\ndomains: {web: {}, code: {}, books: {}}\n"
            "objective: {loss/web: 1, loss/code: 1}\n"
        )
        code, out, err = mixlaw("import", sheet(tmp_path / "one.csv", 1), "--into", study)
        assert code == 0, err
        assert "1 run is new" in out

    def test_all_are_repeated_and_runs_that_are_gone_are_told(self, mixlaw, study, tmp_path):
        scores = sheet(tmp_path / "scores.csv", 8, losses=False)
        code, out, err = mixlaw("import", scores, "--into", study)
        assert code == 0, err
        assert "0 runs are new, 8 completed" in out
        sheet(tmp_path / "one.csv", 6)
        code, out, err = mixlaw("import", "--into", study)
        assert code == 0, err
        assert f"files changed: {tmp_path}/one.csv" in out
        assert "files gone" not in out
        assert "2 runs that were there before are not there now (r6, r7), and stay" in out
        assert "delete their rows of runs.csv" in out
        assert out.count("0 runs are new") == 2
        assert len(Study(study).runs()) == 8

    def test_what_cannot_be_repeated_names_the_import(self, mixlaw, study, tmp_path):
        (tmp_path / "one.csv").unlink()
        code, _, err = mixlaw("import", "--into", study)
        assert code == 1
        assert f"study/import.yaml, the import of ['{tmp_path}/one.csv']" in err
        assert "edit it there, or name the sources again" in err

    def test_a_study_file_of_another_name_is_named(self, mixlaw, study, tmp_path):
        other = study / "other.yaml"
        other.write_text("table: other.csv\nobjective: {loss/web: 1}\n")
        _, out, _ = mixlaw("import", tmp_path / "one.csv", "--into", other)
        assert f"next: mixlaw fit {other}" in out


def test_an_empty_folder_is_not_the_working_directory(mixlaw, theirs, monkeypatch):
    monkeypatch.chdir(theirs.parent)
    code, out, err = mixlaw("import", "theirs.csv", "--into", "")
    assert (code, out) == (2, "")
    assert "it is empty" in err
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.csv"]
