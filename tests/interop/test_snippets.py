"""Snippets: a trainer's config for any mixture, as a page makes it too."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlaw.errors import ExportError
from mixlaw.interop import Handover, snippets
from mixlaw.interop.exporters import EXPORTERS, exporter
from mixlaw.interop.snippet import Part, Snippet, by_size, whole
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

DOMAINS = ("web", "code", "books", "math", 'it\'s: a "b"\n- #1')
RUN = Handover(
    Schedule.static(Mixture(dict.fromkeys(DOMAINS, 0.2))),
    paths={name: (f"/data/{name}/x",) for name in DOMAINS},
    train_tokens=16_000 * 128,
    sequence_length=128,
    batch_sequences=8,
    available_tokens=dict.fromkeys(DOMAINS, 10**9),
    seed=3,
)
PLAIN = {"json", "yaml"}
"""Whose exported files hold what a snippet does not: counts and epochs."""
COARSER = {"levanter": 1 / 2048, "streaming": 1 / 16_000}

weights = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=20)
# Shares that no trainer raises to its smallest, and domains that have none.
shares = st.lists(st.just(0.0) | st.floats(0.01, 1.0), min_size=5, max_size=5).filter(any)
mixtures = shares.map(lambda s: Mixture.from_weights(dict(zip(DOMAINS, s, strict=True))))


def simple(names, **changes):
    lines = tuple((f"{name}=", ";") for name in names)
    return Snippet("x.txt", whole(names), (Part("<", lines, " "),), ">", "token", **changes)


def as_a_page_makes_it(data, shares):
    """The rule by itself, from no more than the JSON: the page's script is this."""
    given = [shares[name] * factor for name, factor in data["entries"]]
    kept = [i for i, share in enumerate(given) if share > 0]
    sum_of_all = 0.0
    for i in kept:
        sum_of_all += given[i]
    exact = {i: given[i] / sum_of_all * data["total"] for i in kept}
    units = {i: max(1, math.floor(exact[i] + 1e-9)) for i in kept}
    while left := data["total"] - sum(units.values()):
        step = 1 if left > 0 else -1
        best = None
        for i in kept:
            over = step * (exact[i] - units[i])
            if (step > 0 or units[i] > 1) and (best is None or over > best[0]):
                best = over, i
        units[best[1]] += step
    digits, text = data["digits"], ""
    for part in data["parts"]:
        lines = []
        for i in kept:
            weight = f"{units[i] / data['total']:.{digits}f}" if digits else str(units[i])
            if part["lines"][i]:
                lines.append(weight.join(part["lines"][i]))
        text += part["before"] + part["between"].join(lines)
    return text + data["after"]


@pytest.fixture(scope="module")
def made():
    found = snippets(RUN)
    assert list(found) == list(EXPORTERS)
    return found


@given(weights)
def test_weights_sum_to_one_as_texts_and_none_is_zero(shares):
    mixture = Mixture.from_weights({str(i): share for i, share in enumerate(shares)})
    text = simple(list(mixture)).text(mixture)
    units = [int(part.partition("=0.")[2] or 10**6) for part in text[1:-2].split("; ")]
    assert sum(units) == 10**6
    assert min(units) >= 1


def test_domains_without_a_share_are_left_out_in_all_parts():
    parts = (
        Part("names: ", (("web",), ("code",), ("books",)), ", "),
        Part("; only: ", ((), ("code",), ())),
        Part("; weights: ", (("", ""),) * 3, ", "),
    )
    snippet = replace(simple(["web", "code", "books"]), parts=parts, after=".", digits=2, total=100)
    text = snippet.text(Mixture({"books": 1 / 3, "web": 2 / 3}))
    assert text == "names: web, books; only: ; weights: 0.67, 0.33."


def test_whole_units_are_written_without_a_point():
    counted = simple(["a", "b"], total=1001, digits=0)
    assert counted.text(Mixture({"a": 0.5, "b": 0.5})) == "<a=501; b=500;>"


def test_a_factor_turns_shares_of_tokens_into_those_of_documents():
    long = replace(simple(["a", "b"]), entries=(("a", 1 / 300), ("b", 1 / 100)))
    assert long.numbers(Mixture({"a": 0.5, "b": 0.5})) == [("a", 0.25), ("b", 0.75)]


def test_a_share_of_another_domain_is_refused():
    with pytest.raises(ExportError, match=r"is for \['a', 'b'\], and the mixture has \['c'\]"):
        simple(["a", "b"]).text(Mixture({"a": 0.5, "c": 0.5}))


def test_several_paths_share_by_their_sizes():
    sizes = {"/b1": 300, "/b2": 100}
    paths = {"web": ["/w"], "books": list(sizes)}  # the size of web's is not asked for
    assert by_size(paths, sizes.__getitem__) == (("web", 1.0), ("books", 0.75), ("books", 0.25))


@pytest.mark.parametrize("size", [lambda path: 0, lambda path: os.stat(path).st_size])
def test_sizes_that_are_not_to_be_had_are_named(size):
    with pytest.raises(ExportError, match=r"'books' are weighted by .* '/no/b1' is not to be had"):
        by_size({"books": ["/no/b1", "/no/b2"]}, size)


@pytest.mark.parametrize("name", EXPORTERS)
@settings(max_examples=30, deadline=None)
@given(mixture=mixtures)
def test_a_snippet_is_what_export_writes(name, made, tmp_path_factory, mixture):
    """To the letter, where the exported file holds nothing else; and the exporter reads it back."""
    snippet = made[name]
    assert isinstance(snippet, Snippet), snippet
    text = snippet.text(mixture)
    exported = exporter(name).export(replace(RUN, schedule=Schedule.static(mixture)))
    assert snippet.file == next(iter(exported.files))
    assert snippet.unit == exported.unit
    if name not in PLAIN:
        assert text == exported.files[snippet.file]
    path = tmp_path_factory.mktemp("snippet") / snippet.file
    path.write_text(text, encoding="utf-8", newline="")
    back = exporter(name).read(path, DOMAINS).dose
    for domain, share in mixture.items():
        assert back[domain] == pytest.approx(share, abs=COARSER.get(name, 1e-6))
        assert (back[domain] > 0) == (share > 0)


@pytest.mark.parametrize("name", EXPORTERS)
@settings(max_examples=30, deadline=None)
@given(shares=shares)
def test_a_page_makes_the_same_of_its_json(name, made, shares):
    data = json.loads(json.dumps(made[name].to_dict()))
    given_shares = dict(zip(DOMAINS, (share / sum(shares) for share in shares), strict=True))
    expected = made[name].text(Mixture.from_weights(given_shares))
    assert as_a_page_makes_it(data, Mixture.from_weights(given_shares)) == expected


def test_shares_of_the_handover_do_not_matter():
    lopsided = replace(
        RUN, schedule=Schedule.static(Mixture({**dict.fromkeys(DOMAINS, 0.0), "web": 1.0}))
    )
    assert snippets(lopsided) == snippets(RUN)


def test_missing_paths_stand_open_and_are_told():
    found = snippets(replace(RUN, paths={"web": ("/mine/web",)}))
    assert not found["json"].notes
    for name in set(EXPORTERS) - PLAIN:
        told = found[name].notes[0]
        assert told.startswith("put your own paths in place of ['/data/code', '/data/books'")
        text = found[name].text(Mixture({"web": 0.5, "code": 0.5}))
        assert "/mine/web" in text
        assert "/data/code" in text
    assert all("put your own" not in note for s in snippets(RUN).values() for note in s.notes)


def test_why_there_is_none_is_said():
    several = replace(RUN, paths={**RUN.paths, "web": ("/a", "/b")})
    found = snippets(several)
    assert "MaxText takes one pattern of files for each" in found["maxtext"]
    assert "that of '/a' is not to be had" in found["megatron"]
    unknown = snippets(Handover(RUN.schedule, paths=RUN.paths))
    assert "give --document-tokens" in unknown["trl"]
    assert isinstance(unknown["olmo-core"], Snippet)


def test_documents_are_weighed_by_their_lengths(tmp_path):
    means = {"web": 500.0, "code": 1000.0, "books": 100_000.0, "math": 2000.0, DOMAINS[4]: 10.0}
    found = snippets(replace(RUN, mean_document_tokens=means))
    mixture = Mixture({"web": 0.5, "code": 0.5})
    for name in ("huggingface", "trl", "maxtext", "streaming"):
        assert found[name].unit == "document"
        drawn = dict(found[name].numbers(mixture))
        assert drawn == pytest.approx({"web": 2 / 3, "code": 1 / 3}, abs=1e-8)
    (tmp_path / "mixture.json").write_text(found["huggingface"].text(mixture))
    back = exporter("huggingface").read(tmp_path / "mixture.json", DOMAINS).dose
    assert back["web"] == pytest.approx(0.5, abs=1e-8)


def test_repetition_is_allowed_for_a_whole_run_of_one_domain():
    scarce = replace(RUN, available_tokens={"web": 10**6, "code": 10**9})
    snippet = exporter("olmo-core").snippet(scarce)
    text = snippet.text(Mixture({"web": 0.5, "code": 0.5}))
    assert text.count("max_repetition_ratio") == 1
    assert "max_repetition_ratio: 2.26" in text  # 2.048 passes, and a tenth to spare
    assert "mind the epochs" in snippet.notes[0]
