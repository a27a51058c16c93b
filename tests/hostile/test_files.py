"""Damaged and hostile files in a study's folder, and paths that lead out of it. No room of the
source has this to itself: whatever lies in the folder, a command ends in one line with a remedy."""

import gzip
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.corpus.sources import read_documents
from mixlaw.errors import CorpusError, ExportError, MixlawError, StorageError, StudyError
from mixlaw.files import parse_json, parse_yaml
from mixlaw.interop import read_mixture
from mixlaw.interop.exporters import EXPORTERS
from mixlaw.interop.logged import flatten
from mixlaw.launch.driver import read_swarm
from mixlaw.mixture import Mixture
from mixlaw.plan.proposals import Proposal
from mixlaw.runs import RunTable
from mixlaw.store import RunStore
from mixlaw.study import Study
from mixlaw.study.artefacts import Artefacts
from mixlaw.study.exploring import refits
from mixlaw.study.importing import Request, import_again, import_into
from mixlaw.study.planned import planned_runs
from mixlaw.study.planning import read_asked, write_asked

DOMAINS = ("web", "code", "wiki")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def table() -> RunTable:
    rng = np.random.default_rng(0)
    return RunTable.from_rows(
        {f"weight/{name}": share for name, share in zip(DOMAINS, shares, strict=True)}
        | {"loss/web": 3 - shares[0] ** 0.5, "loss/code": 3 - shares[1] ** 0.5}
        | {"run": f"r{i}", "num_params": 1000, "train_tokens": 1_000_000}
        for i, shares in enumerate(rng.dirichlet(np.ones(3), 14).tolist())
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A study with all that can lie in the folder of one of imported runs."""
    folder = tmp_path_factory.mktemp("damaged")
    table().write(folder / "others.csv")
    root = folder / "study"
    import_into(root, Request((str(folder / "others.csv"),)))
    with open(root / "study.yaml", "a", encoding="utf-8") as handle:
        handle.write("fit: {laws: [m1]}\ntarget: {num_params: 1000, train_tokens: 1000000}\n")
    study = Study(root)
    study.optimize()
    refits(study, 4)
    mixture = Mixture(dict(zip(DOMAINS, (0.5, 0.25, 0.25), strict=True)))
    write_asked(root, [Proposal(mixture, 1000, 1_000_000, None, None, "planned")])
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    shutil.copy(whole.parent / "others.csv", tmp_path)
    return Path(shutil.copytree(whole, tmp_path / "study"))


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


DAMAGE = {
    "empty": lambda text: b"",
    "cut": lambda text: text[: len(text) // 2],
    "binary": lambda text: bytes(range(256)) * 10,
    "zeros": lambda text: bytes(100),
    "a list": lambda text: b"[[]]",
    "null": lambda text: b"null",
    "a number": lambda text: b"3",
    "another mapping": lambda text: b'{"a": 1}',
    "deep": lambda text: deep(2000),
    "deep lists": lambda text: b'{"result": ' + deep(960) + b"}",
    "deep maps": lambda text: b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "infinite": lambda text: b'{"mixlaw": 1, "seal": 1, "basis": 1, "inputs": 1, "result": 1e400}',
    "no number": lambda text: b'{"mixlaw": 1, "seal": 1, "basis": 1, "inputs": 1, "result": NaN}',
    "a long number": lambda text: b'{"mixlaw": ' + b"9" * 5000 + b"}",
    "not UTF-8": lambda text: text + b"\xe9",
}
"""What a disk, an editor or an attacker makes of a file. None of it may pass for the file."""

HARMLESS = {
    "a mark": lambda text: b"\xef\xbb\xbf" + text,
    "line ends": lambda text: text.replace(b"\n", b"\r\n"),
}


def readers():
    """File -> the step that reads it."""
    return {
        "fit.json": lambda root: Study(root).optimize(),
        "decision.json": lambda root: Study(root).optimize(),
        "refits.json": lambda root: refits(Study(root), 4),
        "asked.json": read_asked,
        "import.yaml": import_again,
        "study.yaml": Study,
        "runs.csv": lambda root: Study(root).fit(),
    }


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", readers())
def test_a_damaged_file_is_one_line_with_a_remedy(file, damage, root):
    path = root / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(MixlawError) as refused:
        readers()[file](root)
    told = str(refused.value)
    assert path.name in told
    assert told.isprintable()
    assert len(told) < 1000


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("file", readers())
def test_what_editors_add_is_no_damage(file, kind, root):
    path = root / file
    path.write_bytes(HARMLESS[kind](path.read_bytes()))
    readers()[file](root)


@pytest.mark.parametrize("file", ["fit.json", "decision.json", "refits.json"])
def test_a_result_that_a_hand_changed_is_refused(file, root):
    data = json.loads((root / file).read_text("utf-8"))

    def altered(value):
        """The same with its first number another."""
        nonlocal left
        if isinstance(value, float) and left:
            left = False
            return value + 0.25
        if isinstance(value, dict):
            return {key: altered(inner) for key, inner in value.items()}
        return [altered(inner) for inner in value] if isinstance(value, list) else value

    left = True
    (root / file).write_text(json.dumps({**data, "result": altered(data["result"])}))
    assert not left
    with pytest.raises(
        StudyError, match=f"{file} is damaged .*changed since it was written.*delete"
    ):
        readers()[file](root)
    (root / file).unlink()
    readers()[file](root)  # as the message says


@given(at=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_byte_of_a_result_changes_unseen(at, byte, cut, whole, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "one-byte"
    folder.mkdir(exist_ok=True)
    text = bytearray((whole / "decision.json").read_bytes())
    found = json.loads(text)
    text[at % len(text)] = byte
    (folder / "decision.json").write_bytes(text[: at % len(text)] if cut else text)
    try:
        read = Artefacts(folder, 0).read("decision.json")
    except StudyError:
        return
    # Where the seal's own name is hit, the file is none of this version's, and is made anew.
    assert read is None or read == found


@pytest.mark.parametrize("number", ["NaN", "nan", "inf", "-inf", "1e400", "-1", "x", "0x10", "[]"])
def test_no_cell_passes_for_a_number_that_is_none(number, root):
    lines = (root / "runs.csv").read_text("utf-8").splitlines()
    at = lines[0].split(",").index("loss/web")
    cells = lines[3].split(",")
    cells[at] = number
    (root / "runs.csv").write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:], ""]))
    with pytest.raises(MixlawError, match="row 3: loss/web"):
        Study(root).fit()


@pytest.mark.parametrize(
    "asked", ['[{"mixture": {"web": NaN}}]', '[{"mixture": 3}]', "[null]", '{"mixture": []}', '"x"']
)
def test_wrong_types_among_what_was_asked(asked, root):
    (root / "asked.json").write_text(asked)
    with pytest.raises(StudyError, match=r"asked\.json is damaged"):
        read_asked(root)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_list_of_planned_runs(damage, tmp_path):
    (tmp_path / "runs.jsonl").write_bytes(DAMAGE[damage](b'{"version": 1, "run": ["a"]}\n{}\n'))
    if damage == "empty":
        assert planned_runs(tmp_path) == {}
        return
    with pytest.raises(
        StudyError, match=r"runs\.jsonl, line \d+: no planned run .*write"
    ) as refused:
        planned_runs(tmp_path)
    assert str(refused.value).isprintable()


class TestTrained:
    """What a study that trains its runs has besides."""

    READERS: ClassVar = {
        "design.json": lambda root: Study(root).design(),
        "corpus/corpus.json": lambda root: Study(root).corpus(),
        "corpus/abc.train.idx": lambda root: Study(root).corpus(),
        "runs/swarm.json": lambda root: read_swarm(str(root / "runs")),
        "run.json": lambda root: Study(root).train(),
    }

    @pytest.mark.parametrize("damage", DAMAGE)
    @pytest.mark.parametrize("file", READERS)
    def test_a_damaged_file_is_one_line_with_a_remedy(self, file, damage, trained_study):
        path = trained_study / file
        if file == "run.json":  # of a run
            path = next(iter(sorted((trained_study / "runs").glob("*/run.json"))))
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
        with pytest.raises(MixlawError) as refused:
            self.READERS[file](trained_study)
        assert path.name.removesuffix(".idx") in str(refused.value)
        assert str(refused.value).isprintable()

    @pytest.mark.parametrize(
        ("file", "key"), [("design.json", "result"), ("corpus/corpus.json", "vocab_size")]
    )
    def test_what_a_hand_changed_is_refused(self, file, key, trained_study):
        data = json.loads((trained_study / file).read_text("utf-8"))
        (trained_study / file).write_text(json.dumps({**data, key: 3}))
        with pytest.raises(MixlawError, match=r"changed since it was written.*delete"):
            self.READERS[file](trained_study)

    def test_torn_metrics_are_passed_over(self, tmp_path):
        (tmp_path / "abc").mkdir()
        lines = [deep(100_000), b"[1]", b"3", b"\xff", b'{"step": 1, "loss": 2.0}', b'{"step": 2']
        (tmp_path / "abc" / "metrics.jsonl").write_bytes(b"\n".join(lines))
        assert RunStore(tmp_path).metrics("abc") == [{"step": 1, "loss": 2.0}]


class TestYaml:
    @pytest.mark.parametrize("text", [BOMB, MERGES, "a: &a [*a]\n", "[" * 1000])
    @pytest.mark.parametrize("file", ["study.yaml", "import.yaml"])
    def test_bombs_are_refused_before_they_go_off(self, file, text, root):
        (root / file).write_text(text)
        with pytest.raises(StudyError, match=r"aliases|nested"):
            readers()[file](root)

    @pytest.mark.parametrize(
        "text",
        [
            '!!python/object/apply:os.system ["touch pwned"]',
            "!!python/name:os.system",
            "!!python/object/new:type {}",
            "!!bool maybe",
            "!!int ''",
            "!!timestamp x",
            "2024-99-99",
            "1" * 5000,
            "{",
            "\x00",
            "? [a]\n: 1",
        ],
    )
    def test_tags_make_nothing(self, text):
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            parse_yaml(text)

    def test_what_is_meant_is_read(self):
        assert parse_yaml("") is None
        assert parse_yaml("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1.5}, e: null}") == {
            "a": [1, 2],
            "b": [1, 2],
            "c": {"d": 1.5, "e": None},
        }

    @pytest.mark.parametrize("trainer", EXPORTERS)
    @pytest.mark.parametrize("text", [BOMB, MERGES, "[" * 400, '{"a":' * 400, "(" * 2000])
    def test_configs_of_trainers(self, trainer, text, tmp_path):
        (tmp_path / "config").write_text(text)
        with pytest.raises(ExportError) as refused:
            read_mixture(tmp_path / "config", trainer, DOMAINS)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 1000


def test_json_is_bounded_too():
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep(100_000))
    nested = {"a": 1}
    for _ in range(5000):
        nested = {"a": nested}
    with pytest.raises(MixlawError, match="nested too deeply"):
        flatten(nested)


class TestPaths:
    """Writing stays inside the study's folder; reading follows what the user named."""

    def test_a_run_is_named_by_its_hash_not_by_its_label(self, root):
        rows = table().rows()
        rows[0] |= {"run": "../../out", "label": "/tmp/out"}
        RunTable.from_rows(rows).write(root.parent / "named.csv")
        before = tree(root.parent)
        import_into(root, Request((str(root.parent / "named.csv"),)))
        Study(root).optimize()
        assert tree(root.parent) - before <= {
            path for path in tree(root.parent) if "study/" in path
        }

    def test_a_table_elsewhere_is_read_and_never_written(self, root):
        shutil.move(root / "runs.csv", root.parent / "mine.csv")
        before = (root.parent / "mine.csv").read_bytes()
        text = (root / "study.yaml").read_text("utf-8")
        (root / "study.yaml").write_text(text.replace("table: runs.csv", "table: ../mine.csv"))
        Study(root).optimize()
        with pytest.raises(StudyError, match="reads, and never writes"):
            import_into(root, Request((str(root.parent / "others.csv"),)))
        assert (root.parent / "mine.csv").read_bytes() == before

    @pytest.mark.parametrize("table", ["../new.csv", "{outside}/new.csv", "runs.csv"])
    def test_no_table_is_made_elsewhere(self, table, root):
        (root / "runs.csv").unlink()
        (root / "runs.csv").symlink_to(root.parent / "new.csv")
        said = (root / "study.yaml").read_text("utf-8")
        place = table.format(outside=root.parent)
        (root / "study.yaml").write_text(said.replace("table: runs.csv", f"table: {place}"))
        with pytest.raises(StudyError, match="never writes"):
            import_into(root, Request((str(root.parent / "others.csv"),)))
        assert not (root.parent / "new.csv").exists()

    def test_what_is_added_to_in_place_is_no_link(self, root):
        (root / ".lock").unlink()
        (root / ".lock").symlink_to(root.parent / "new")
        with pytest.raises(StorageError, match="symbolic links"):
            import_into(root, Request((str(root.parent / "others.csv"),)))
        store = RunStore(root / "runs")
        (root / "runs" / "abc").mkdir(parents=True)
        (root / "runs" / "abc" / "metrics.jsonl").symlink_to(root.parent / "new")
        with pytest.raises(StorageError, match="symbolic links"):
            store.append_metrics("abc", [{"loss": 1.0}])
        assert not (root.parent / "new").exists()

    def test_a_result_that_is_a_link_is_replaced_and_not_followed(self, root):
        outside = root.parent / "outside.json"
        outside.write_bytes((root / "decision.json").read_bytes())
        held = outside.read_bytes()
        (root / "decision.json").unlink()
        (root / "decision.json").symlink_to(outside)
        with open(root / "study.yaml", "a", encoding="utf-8") as handle:
            handle.write("seed: 7\n")
        Study(root).optimize()
        assert outside.read_bytes() == held
        assert not (root / "decision.json").is_symlink()

    def test_a_folder_of_an_export_that_is_a_link_leads_nowhere(self, root):
        outside = root.parent / "elsewhere"
        outside.mkdir()
        (root / "export").symlink_to(outside)
        with pytest.raises(ExportError, match="link"):
            Study(root).export("json")
        assert list(outside.iterdir()) == []

    def test_an_export_goes_where_the_user_says(self, root):
        made = Study(root).export("json", out=root.parent / "named")
        assert made.folder == root.parent / "named"

    def test_a_former_export_removes_nothing_outside(self, root):
        kept = root.parent / "kept.txt"
        kept.write_text("mine")
        folder = Study(root).export("json").folder
        told = json.loads((folder / "export.json").read_text("utf-8"))
        told["files"] = [*told["files"], "../../../kept.txt", str(kept)]
        (folder / "export.json").write_text(json.dumps(told))
        Study(root).export("json")
        assert kept.read_text() == "mine"

    def test_archives_are_not_opened(self, tmp_path):
        """Text is read from files alone: what an archive holds, and where it would go, is idle."""
        with tarfile.open(tmp_path / "evil.tar", "w") as archive:
            info = tarfile.TarInfo("../../pwned.txt")
            info.size = 2
            archive.addfile(info, io.BytesIO(b"hi"))
        with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
            archive.writestr("../../pwned.txt", "hi")
        (tmp_path / "fine.txt").write_text("fine")
        assert [document.text for document in read_documents(tmp_path)] == ["fine"]
        with pytest.raises(CorpusError, match="not UTF-8"):
            list(read_documents(tmp_path / "evil.zip"))
        list(read_documents(tmp_path / "evil.tar"))  # a file of zeros and text, as such
        assert not list(tmp_path.parent.parent.glob("pwned*"))

    def test_a_record_nested_without_end_is_told(self, tmp_path):
        (tmp_path / "deep.jsonl.gz").write_bytes(gzip.compress(deep(100_000)))
        with pytest.raises(CorpusError, match="line 1"):
            list(read_documents(tmp_path))

    def test_a_number_array_that_hides_a_pickle_is_refused(self, tmp_path):
        from mixlaw.corpus.tokens import open_token_file

        np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(CorpusError):
            open_token_file(tmp_path / "evil.npy", vocab_size=10)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
