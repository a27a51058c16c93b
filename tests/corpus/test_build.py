import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mixlaw.corpus import DomainSource, TokenizerSpec, build_corpus, load_corpus
from mixlaw.corpus.dedup import find_duplicates
from mixlaw.corpus.tokens import write_megatron
from mixlaw.errors import CorpusError, StorageError, TokenFileError
from mixlaw.mixture import Mixture

OPTIONS = {"sequence_length": 16, "seed": 0, "validation_bytes": 4000}


@pytest.fixture
def sources(write_folder):
    return [
        DomainSource("web", paths=[write_folder("web", 30, seed=1)]),
        DomainSource("code", paths=[write_folder("code", 20, seed=2)]),
        DomainSource("exam", paths=[write_folder("exam", 8, seed=3)], trained=False),
    ]


def logged(root: Path) -> list[dict]:
    return [json.loads(line) for line in (root / "documents.jsonl").read_text().splitlines()]


def texts_of(tokens: np.ndarray) -> list[str]:
    """Documents of a byte-tokenised file."""
    pieces = np.split(tokens, np.flatnonzero(tokens == 256) + 1)
    return [bytes(piece[:-1].tolist()).decode() for piece in pieces if len(piece)]


def test_bytes_end_to_end(sources, tmp_path):
    corpus = build_corpus(sources, tmp_path / "out", **OPTIONS)
    assert [d.name for d in corpus.domains] == ["web", "code"]
    assert corpus.targets == ["web", "code", "exam"]
    assert corpus.vocab_size == 257
    for name in corpus.targets:
        valid = texts_of(corpus.valid_tokens(name))
        assert 2000 < sum(map(len, valid)) < 8000
        assert corpus.bytes_per_token(name) == 1.0
    web = texts_of(corpus.train_tokens("web")) + texts_of(corpus.valid_tokens("web"))
    assert sorted(web) == sorted(f.read_text() for f in (tmp_path / "web").iterdir())
    domain = corpus.domains[0]
    assert domain.available_tokens == domain.found_tokens == len(corpus.train_tokens("web"))
    with pytest.raises(CorpusError, match="'exam' is a validation target only"):
        corpus.train_tokens("exam")
    with pytest.raises(CorpusError, match="no domain 'poems'"):
        corpus.valid_tokens("poems")


def test_bpe_end_to_end_and_its_record(sources, tmp_path):
    corpus = build_corpus(sources, tmp_path / "out", tokenizer=TokenizerSpec("bpe", 300), **OPTIONS)
    rows = logged(tmp_path / "out")
    for name in corpus.targets:
        valid = [row for row in rows if row["domain"] == name and row["split"] == "valid"]
        num_bytes = sum(row["bytes"] for row in valid)
        assert len(corpus.valid_tokens(name)) == sum(row["tokens"] for row in valid)
        text_tokens = len(corpus.valid_tokens(name)) - len(valid)
        assert corpus.bytes_per_token(name) == num_bytes / text_tokens
    assert {row["license"] for row in rows} == {"unknown"}
    assert rows[0]["origin"].startswith("web/")
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert Mixture.natural(corpus.domains)["web"] == pytest.approx(0.6, abs=0.05)
    again = build_corpus(
        [DomainSource("web", paths=[tmp_path / "web"])],
        tmp_path / "again",
        tokenizer=TokenizerSpec("file", path=tmp_path / "out" / "tokenizer.json"),
        **OPTIONS,
    )
    np.testing.assert_array_equal(again.train_tokens("web"), corpus.train_tokens("web"))


def test_a_second_call_opens_and_a_second_build_is_equal(sources, tmp_path, monkeypatch):
    spec = TokenizerSpec("bpe", 300)
    first = build_corpus(sources, tmp_path / "one", tokenizer=spec, **OPTIONS)
    second = build_corpus(sources, tmp_path / "two", tokenizer=spec, **OPTIONS)
    assert first.digest == second.digest
    monkeypatch.setattr("mixlaw.corpus.build._gather", None)  # would fail if called
    opened = build_corpus(sources, tmp_path / "one", tokenizer=spec, **OPTIONS)
    assert opened.manifest == first.manifest
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert load_corpus(tmp_path / "moved").digest == first.digest


def test_changed_inputs_are_named(sources, tmp_path):
    build_corpus(sources, tmp_path / "out", **OPTIONS)
    with pytest.raises(CorpusError, match=r"other inputs \(seed: 0 -> 1\); .*delete this one"):
        build_corpus(sources, tmp_path / "out", **{**OPTIONS, "seed": 1})
    with pytest.raises(CorpusError, match=r"tokenizer\.kind: byte -> bpe"):
        build_corpus(sources, tmp_path / "out", tokenizer=TokenizerSpec("bpe", 300), **OPTIONS)
    with pytest.raises(CorpusError, match=r"domains\.exam: present -> absent"):
        build_corpus(sources[:2], tmp_path / "out", **OPTIONS)
    with pytest.raises(CorpusError, match=r"order: "):
        build_corpus(sources[::-1], tmp_path / "out", **OPTIONS)
    (tmp_path / "web" / "new.txt").write_text("one more")
    with pytest.raises(CorpusError, match=r"domains\.web\.paths\.files: 30 -> 31"):
        build_corpus(sources, tmp_path / "out", **OPTIONS)


def test_planted_duplicates_never_leak(sources, tmp_path, prose):
    shared = prose(99, 300)
    for i in range(10):  # the same text, one word apart, in every domain
        (tmp_path / "web" / f"copy{i}.txt").write_text(f"{shared} w{i}")
        (tmp_path / "code" / f"copy{i}.txt").write_text(f"{shared} c{i}")
    (tmp_path / "exam" / "copy.txt").write_text(f"  {shared.upper()}\n")
    (tmp_path / "exam" / "exact.txt").write_text(shared)
    corpus = build_corpus(sources, tmp_path / "out", **OPTIONS)
    texts = [t for name in corpus.targets for t in texts_of(corpus.valid_tokens(name))]
    texts += [t for d in corpus.domains for t in texts_of(corpus.train_tokens(d.name))]
    assert find_duplicates(texts, [str(i) for i in range(len(texts))]).kept.all()
    assert sum(shared in text for text in texts) <= 1
    details = [record.details for record in corpus.records.values()]
    removed = sum(d["removed_near"] + d["removed_exact"] for d in details)
    assert removed == 21
    assert sum(d["removed_exact"] for d in details) == 1


def test_text_named_for_validation_is_kept_and_its_copies_leave_training(sources, tmp_path):
    exam = tmp_path / "exam"
    copied = (exam / "003.txt").read_text()
    (tmp_path / "web" / "copied.txt").write_text(copied + " end")
    web = DomainSource("web", paths=[tmp_path / "web"], validation_paths=[exam])
    corpus = build_corpus([web], tmp_path / "out", **OPTIONS)
    valid = texts_of(corpus.valid_tokens("web"))
    assert sorted(valid) == sorted(f.read_text() for f in exam.iterdir())
    assert len(texts_of(corpus.train_tokens("web"))) == 30


def test_caps_scale_what_was_found(sources, tmp_path):
    web = DomainSource("web", paths=[tmp_path / "web"], max_bytes=9000)
    code = DomainSource("code", paths=[tmp_path / "code"])
    corpus = build_corpus([web, code], tmp_path / "out", max_bytes=15_000, **OPTIONS)
    domains = {domain.name: domain for domain in corpus.domains}
    assert len(corpus.train_tokens("web")) < 9000
    on_disk = sum(f.stat().st_size for f in (tmp_path / "web").iterdir())
    assert corpus.records["web"].details["found_bytes"] == on_disk
    train_share = len(corpus.train_tokens("web")) / corpus.records["web"].details["sampled_bytes"]
    assert domains["web"].found_tokens == pytest.approx(on_disk * train_share, rel=1e-3)
    assert domains["code"].available_tokens == len(corpus.train_tokens("code"))


def test_built_in_domains(tmp_path):
    names = {"docs": True, "python": True, "stubs": False}
    sources = [DomainSource(n, environment=n, trained=trained) for n, trained in names.items()]
    options = {**OPTIONS, "validation_bytes": 20_000, "max_bytes": 150_000}
    corpus = build_corpus(sources, tmp_path / "out", **options)
    assert len(corpus.train_tokens("docs")) > 100_000
    assert "numpy" in corpus.manifest["packages"]
    assert not any(row["origin"].startswith("/") for row in logged(tmp_path / "out"))


@pytest.fixture
def token_files(tmp_path):
    for name in ("train", "valid"):
        with write_megatron(tmp_path / "ready" / name, vocab_size=300) as writer:
            writer.add(np.arange(100) % 300)
    return tmp_path / "ready"


def test_ready_token_files_are_used_in_place(token_files, sources, tmp_path):
    ready = DomainSource(
        "ready",
        token_files=[token_files / "train.bin"],
        validation_paths=[token_files / "valid.idx"],
    )
    corpus = build_corpus([ready], tmp_path / "out", tokenizer=TokenizerSpec("ids", 300), **OPTIONS)
    assert corpus.train_tokens("ready").tolist() == list(range(100))
    assert Path(corpus.train_tokens("ready").filename).parent == token_files
    assert corpus.bytes_per_token("ready") is None
    mixed = build_corpus([sources[0], ready], tmp_path / "mixed", **OPTIONS)
    assert [d.name for d in mixed.domains] == ["web", "ready"]
    with pytest.raises(TokenFileError, match=r"train\.bin: token 50 has id 50, outside"):
        build_corpus([ready], tmp_path / "no", tokenizer=TokenizerSpec("ids", 50), **OPTIONS)
    with pytest.raises(CorpusError, match=r"\['ready'\] are token files, which a BPE"):
        build_corpus([ready], tmp_path / "no", tokenizer=TokenizerSpec("bpe", 300), **OPTIONS)
    with pytest.raises(CorpusError, match=r"\['web'\] are text and need a tokenizer"):
        build_corpus([sources[0]], tmp_path / "no", tokenizer=TokenizerSpec("ids", 9), **OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a/b", "paths": ["x"]}, "cannot name a file"),
        ({"name": "a"}, "no source of text; give exactly one"),
        ({"name": "a", "paths": ["x"], "environment": "docs"}, "paths and environment"),
        ({"name": "a", "environment": "poems"}, "built-in domain 'poems'; there are"),
        ({"name": "a", "token_files": ["x.bin"]}, "missing validation split"),
        (
            {"name": "a", "token_files": ["x.bin", "y.bin"], "validation_paths": ["z.bin"]},
            "2 training and 1 validation token files",
        ),
        (
            {"name": "a", "token_files": ["x.bin"], "trained": False, "max_bytes": 5},
            "max_bytes cannot cap",
        ),
        (
            {"name": "a", "paths": ["x"], "validation_paths": ["y"], "trained": False},
            "is not trained and has paths and validation_paths",
        ),
        ({"name": "a", "paths": ["x"], "max_bytes": 0}, "max_bytes = 0; it must be > 0"),
    ],
)
def test_sources_that_make_no_sense(arguments, message):
    with pytest.raises(CorpusError, match=message):
        DomainSource(**arguments)


def test_bad_corpora(sources, tmp_path, write_folder):
    web, _, exam = sources
    (tmp_path / "void").mkdir()

    def build(*domains, **options):
        build_corpus(domains, tmp_path / "out", **{**OPTIONS, **options})

    with pytest.raises(CorpusError, match="'web' is named twice"):
        build(web, web)
    with pytest.raises(CorpusError, match="no domain is named"):
        build()
    with pytest.raises(CorpusError, match="no domain is trained"):
        build(exam)
    with pytest.raises(CorpusError, match=r"'void' has no documents in .*void; check its paths"):
        build(web, DomainSource("void", paths=[tmp_path / "void"]))
    with pytest.raises(CorpusError, match="'web' has no validation documents in"):
        build(DomainSource("web", paths=web.paths, validation_paths=[tmp_path / "void"]))
    with pytest.raises(CorpusError, match=r"'one' has 1 document.*missing validation split"):
        build(DomainSource("one", paths=[write_folder("one", 1, seed=9)]))
    with pytest.raises(CorpusError, match=r"'tiny' has \d+ training tokens, fewer than one sequ"):
        build(DomainSource("tiny", paths=[write_folder("tiny", 2, num_words=2)]))
    with pytest.raises(CorpusError, match=r"'web' has \d[\d,]* validation tokens, fewer than one"):
        build(web, sequence_length=20_000)
    with pytest.raises(CorpusError, match="'copy': all 30 documents are duplicates"):
        build(web, DomainSource("copy", paths=web.paths))
    with pytest.raises(CorpusError, match=r"no finished corpus in .*out.*run: mixlaw corpus"):
        load_corpus(tmp_path / "out")


def test_damaged_corpora(sources, tmp_path):
    out = tmp_path / "out"
    build_corpus(sources, out, **OPTIONS)
    manifest = (out / "corpus.json").read_text()
    data = (out / "web.train.bin").read_bytes()
    (out / "web.train.bin").write_bytes(data[:-2])
    with pytest.raises(TokenFileError, match=r"web\.train\.bin has .* bytes, its index promises"):
        load_corpus(out)
    shutil.copy(out / "code.train.bin", out / "web.train.bin")
    shutil.copy(out / "code.train.idx", out / "web.train.idx")
    with pytest.raises(CorpusError, match=r"web\.train\.bin has .* tokens, corpus\.json records"):
        load_corpus(out)
    (out / "corpus.json").write_text(manifest[:100])
    with pytest.raises(CorpusError, match=r"corpus\.json is damaged"):
        load_corpus(out)
    (out / "corpus.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(CorpusError, match="has format version 99, this mixlaw reads 1"):
        load_corpus(out)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("allowed", [0, 3])
def test_a_full_disk_leaves_nothing_half_written(sources, tmp_path, monkeypatch, call, allowed):
    import os

    real, calls = getattr(os, call), []

    def refuse(*args):
        calls.append(args)
        if len(calls) > allowed:
            raise OSError(28, "No space left on device")
        return real(*args)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match="No space left on device"):
            build_corpus(sources, out, **OPTIONS)
    assert not (out / "corpus.json").exists()
    assert not list(out.glob(".*"))
    assert build_corpus(sources, out, **OPTIONS).targets == ["web", "code", "exam"]


def test_the_room_loads_without_torch_or_tokenizers():
    code = (
        "import sys, mixlaw.corpus;"
        "print({'torch', 'tokenizers', 'pyarrow', 'zstandard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
