"""What every exporter in the catalogue must do."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import yaml

from mixlaw.errors import ExportError, MixlawError
from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.interop.handover import DOCUMENT, SAMPLE, TOKEN, Exported, Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

SAMPLES, LENGTH, BATCH = 16_000, 128, 8
WANTED = Mixture({"web": 0.61, "unused": 0.0, "code": 0.3001, "books": 0.0899})
STAGED = Schedule.of([(0.75, WANTED), (0.25, Mixture({"web": 0.2, "code": 0.3, "books": 0.5}))])
HANDOVER = Handover(
    Schedule.static(WANTED),
    paths={name: (f"/data/{name}",) for name in ("web", "code", "books")},
    train_tokens=SAMPLES * LENGTH,
    sequence_length=LENGTH,
    batch_sequences=BATCH,
    available_tokens=dict.fromkeys(WANTED, 10**9),
    seed=3,
)

COARSER = {"levanter": 1 / 2048, "maxtext": 0.01}
"""By how much a share may be off where it is not by what six decimals and two samples come to."""

HOSTILE = [
    "a: b",
    "- dash",
    "it's",
    'say "so"',
    "two\nlines",
    "tab\there",
    "{brace}",
    "#hash",
    "$(rm -rf x)",
    "日本語",
    "yes",
    "null",
    "1.5",
    "../up",
    "a/b",
    "%s",
    "back\\slash",
]


def tolerance(name):
    return COARSER.get(name, 1e-6 + 2 / SAMPLES)


def parse(name, text):
    """Raises where a file is not what its name says."""
    match PurePosixPath(name).suffix:
        case ".json":
            json.loads(text)
        case ".jsonl":
            [json.loads(line) for line in text.splitlines()]
        case ".yaml" | ".yml":
            yaml.safe_load(text)
        case ".py":
            compile(text, name, "exec")
        case suffix:
            assert suffix in {".txt", ".sh"}


def write(files, folder: Path) -> Path:
    """The first is the one that the trainer is given."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / next(iter(files))


def attempt(name, handover) -> tuple[Exported | None, str]:
    """What comes of it, or why it is refused: an error of the family, in one line."""
    try:
        return exporter(name).export(handover), ""
    except MixlawError as error:
        refused = str(error)
    assert "\n" not in refused
    return None, refused


@pytest.fixture(params=EXPORTERS)
def name(request):
    return request.param


def test_it_says_what_it_is(name):
    made = exporter(name)
    assert made.name == name
    assert made.what.strip()
    assert made.checked.strip()
    assert isinstance(made.schedules, bool)


def test_files_parse_and_are_inside_their_folder(name):
    exported = exporter(name).export(HANDOVER)
    assert exported.files
    assert exported.how.strip()
    assert exported.unit in {TOKEN, SAMPLE, DOCUMENT}
    for file, text in exported.files.items():
        assert not PurePosixPath(file).is_absolute()
        assert ".." not in PurePosixPath(file).parts
        assert text.endswith("\n")
        parse(file, text)
    json.dumps(exported.to_dict(), allow_nan=False)


def test_domains_without_a_share_are_not_named(name):
    exported = exporter(name).export(HANDOVER)
    assert not any("unused" in text for text in exported.files.values())
    assert not exported.realised.dose.get("unused")


def test_realised_is_near_what_was_wanted(name):
    realised = exporter(name).export(HANDOVER).realised
    assert realised.is_static
    for domain, share in WANTED.items():
        assert realised.dose.get(domain, 0) == pytest.approx(share, abs=tolerance(name))


def test_it_is_deterministic(name):
    assert exporter(name).export(HANDOVER) == exporter(name).export(HANDOVER)


def test_a_schedule_is_realised_or_refused(name):
    made = exporter(name)
    staged = replace(HANDOVER, schedule=STAGED)
    if not made.schedules:
        with pytest.raises(ExportError, match=r"2 stages; \w+"):
            made.export(staged)
        return
    exported = made.export(staged)
    for file, text in exported.files.items():
        parse(file, text)
    assert len(exported.realised.stages) == 2
    for stage, wanted in zip(exported.realised.stages, STAGED.stages, strict=True):
        assert stage.share == pytest.approx(wanted.share, abs=0.01)
        for domain, share in wanted.mixture.items():
            off = 4 * tolerance(name)  # of a quarter of the samples
            assert stage.mixture.get(domain, 0) == pytest.approx(share, abs=off)


def test_one_domain_is_a_mixture(name):
    alone = replace(HANDOVER, schedule=Schedule.static(Mixture({"web": 1.0})))
    assert exporter(name).export(alone).realised.dose == {"web": 1.0}


def test_what_it_writes_it_reads(name, tmp_path):
    made = exporter(name)
    path = write(made.export(HANDOVER).files, tmp_path)
    back = made.read(path, list(WANTED))
    assert back.is_static
    for domain, share in WANTED.items():
        assert back.dose.get(domain, 0) == pytest.approx(share, abs=tolerance(name))


def test_files_that_hold_no_mixture_are_refused_in_one_line(name, tmp_path):
    made = exporter(name)
    path = tmp_path / next(iter(made.export(HANDOVER).files))
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in ("", "[]\n", "{}\n", "other: 1\n", '{"data": 3}\n', "\x00\xff{"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ExportError, match=path.name):
            made.read(path, list(WANTED))
    with pytest.raises(ExportError, match="missing"):
        made.read(tmp_path / "missing.yaml", list(WANTED))


def test_without_paths_it_works_or_says_how_to_give_them(name):
    exported, refused = attempt(name, replace(HANDOVER, paths={}))
    assert exported or "--path web=" in refused


def test_with_nothing_but_paths_it_works_or_says_what_it_needs(name):
    exported, refused = attempt(name, Handover(HANDOVER.schedule, paths=HANDOVER.paths))
    assert exported or "--" in refused
    if exported:
        assert exported.realised.dose["web"] == pytest.approx(0.61, abs=tolerance(name))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_and_paths_survive_or_are_refused_in_one_line(name, hostile, tmp_path):
    shares = {hostile: 0.625, "web": 0.375}
    handover = replace(
        HANDOVER,
        schedule=Schedule.static(Mixture(shares)),
        paths={"web": ("/data/web",), hostile: (f"/data/{hostile}/x",)},
        available_tokens=dict.fromkeys(shares, 10**9),
        name=hostile,
    )
    exported, _ = attempt(name, handover)
    if exported is None:
        return
    for file, text in exported.files.items():
        assert hostile not in file
        parse(file, text)
    assert not any("\n" in note for note in exported.notes)
    assert exported.realised.dose == pytest.approx(shares, abs=tolerance(name))
    made = exporter(name)
    if hasattr(made, "read"):
        back = made.read(write(exported.files, tmp_path), list(shares))
        assert back.dose == pytest.approx(shares, abs=tolerance(name))


@pytest.mark.parametrize("hostile", ['"', "'", "\\", "\n", '""" + 1', "{0}", "$(touch x)"])
def test_generated_python_holds_hostile_texts_as_values_only(name, hostile):
    handover = replace(
        HANDOVER,
        schedule=Schedule.static(Mixture({"web": 0.5, f"x{hostile}y": 0.5})),
        paths={"web": ("/data/web",), f"x{hostile}y": (f"/data/{hostile}",)},
        available_tokens={"web": 10**9, f"x{hostile}y": 10**9},
        name=hostile,
    )
    plain = replace(
        handover,
        schedule=Schedule.static(Mixture({"web": 0.5, "xy": 0.5})),
        paths={"web": ("/data/web",), "xy": ("/data/",)},
        available_tokens={"web": 10**9, "xy": 10**9},
        name="",
    )
    exported, _ = attempt(name, handover)
    for file, text in exported.files.items() if exported else ():
        if file.endswith(".py"):
            kinds = [type(node) for node in ast.walk(ast.parse(text))]
            same = ast.parse(exporter(name).export(plain).files[file])
            assert kinds == [type(node) for node in ast.walk(same)]


def test_an_unknown_trainer_is_told_the_nearest():
    with pytest.raises(ExportError, match="did you mean 'megatron'"):
        exporter("megatron-lm")
