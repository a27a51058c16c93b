"""What all exporters stand on: shares as counts and texts, paths, and reading them back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixlaw.errors import ExportError
from mixlaw.interop.handover import (
    Handover,
    apportion,
    example_tokens,
    refuse_schedule,
    sample_counts,
    without_zeros,
)
from mixlaw.interop.read_back import domain_of, gather
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

MIXTURE = Mixture({"web": 0.5, "code": 0.3, "books": 0.2, "none": 0.0})
STATIC = Schedule.static(MIXTURE)
STAGED = Schedule.of([(0.7, MIXTURE), (0.3, Mixture({"web": 0.1, "code": 0.9}))])

weights = st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=20)


@given(weights, st.integers(20, 10**7))
def test_apportion_gives_all_and_is_within_one_unit_but_for_the_ones(shares, total):
    given_shares = {str(i): share for i, share in enumerate(shares)}
    counts = apportion(given_shares, total)
    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1
    whole = math.fsum(shares)
    small = [name for name, share in given_shares.items() if share / whole * total < 1]
    for name, share in given_shares.items():
        off = abs(counts[name] - share / whole * total)
        assert off <= 1 + len(small) + 1e-6


def test_apportion_is_by_largest_remainder():
    assert apportion({"a": 0.5, "b": 0.26, "c": 0.24}, 10) == {"a": 5, "b": 3, "c": 2}
    assert apportion({"a": 0.999, "b": 0.001, "c": 0.0}, 10) == {"a": 9, "b": 1}


def test_more_domains_than_units_are_refused():
    with pytest.raises(ExportError, match="3 domains have a share and there are 2 units"):
        apportion({"a": 0.5, "b": 0.3, "c": 0.2}, 2)


@pytest.mark.parametrize("name", ["train_tokens", "sequence_length", "batch_sequences"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ExportError, match=f"{name} is 0; it must be >= 1"):
        Handover(STATIC, **{name: 0})


def test_a_seed_below_zero_is_refused():
    with pytest.raises(ExportError, match="the seed is -1"):
        Handover(STATIC, seed=-1)


def test_samples_are_counted_for_each_stage():
    run = Handover(STAGED, train_tokens=1000, sequence_length=100)
    assert sample_counts(run, "x") == [{"web": 4, "code": 2, "books": 1}, {"web": 1, "code": 2}]
    assert sample_counts(Handover(STAGED), "x") is None


def test_a_stage_of_fewer_samples_than_domains_is_named():
    run = Handover(STAGED, train_tokens=400, sequence_length=100)
    with pytest.raises(ExportError, match=r"stage 2 of 2 is 1 samples long, and 2 domains .*: x c"):
        sample_counts(run, "x")


def test_zeros_are_dropped():
    assert without_zeros(MIXTURE) == {"web": 0.5, "code": 0.3, "books": 0.2}
    assert Handover(STATIC).domains == ("web", "code", "books")


def test_samples_and_steps_are_whole():
    run = Handover(STATIC, train_tokens=10_007, sequence_length=100, batch_sequences=8)
    assert (run.num_samples, run.num_steps) == (100, 12)
    assert Handover(STATIC, train_tokens=10_007).num_samples is None
    assert Handover(STATIC, train_tokens=10_007, sequence_length=100).num_steps is None


def test_stages_change_between_steps():
    run = Handover(STAGED, train_tokens=10_007, sequence_length=100, batch_sequences=8)
    assert run.stage_samples("x") == [64, 32]
    assert Handover(STAGED, train_tokens=1000, sequence_length=10).stage_samples("x") == [70, 30]
    assert Handover(STAGED).stage_samples("x") is None


def test_a_run_too_short_for_a_stage_is_refused():
    run = Handover(STAGED, train_tokens=100, sequence_length=100, batch_sequences=1)
    with pytest.raises(ExportError, match=r"nanotron would not see stage 2, 0.3 of a run of 1 ste"):
        run.stage_samples("nanotron")


def test_what_is_missing_is_named_with_its_option():
    with pytest.raises(ExportError, match=r"--train-tokens \.\.\. --sequence-length \.\.\."):
        Handover(STATIC).need("OLMo-core", "train_tokens", "sequence_length")
    Handover(STATIC, train_tokens=1).need("OLMo-core", "train_tokens")


def test_paths_are_of_the_domains_with_a_share():
    paths = {"web": ("/w",), "code": ("/c",), "books": ("/b1", "/b2"), "none": ("/n",)}
    assert list(Handover(STATIC, paths=paths).paths_of("x", "a file")) == ["web", "code", "books"]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ({}, r"not known for \['web', 'code', 'books'\]; give --path web="),
        ({"web": ("/w",), "coed": ("/c",), "books": ("/b",)}, r"one is given for 'coed'"),
        ({"web": ("/w",), "code": (), "books": ("/b",)}, r"not known for \['code'\]"),
        ({"web": ("/w",), "code": ("  ",), "books": ("/b",)}, "path of 'code' is '  '"),
        ({"web": ("/w",), "code": ("/w",), "books": ("/b",)}, "'/w' is a path of 'web' and of"),
        ({"web": ("/w", "/w"), "code": ("/c",), "books": ("/b",)}, "each path belongs to one"),
    ],
)
def test_wrong_paths_are_refused(paths, told):
    with pytest.raises(ExportError, match=told):
        Handover(STATIC, paths=paths).paths_of("x", "a file")


@pytest.mark.parametrize(("name", "told"), [("a b", "--path 'a b'="), ("a\nb", r"--path 'a\nb'=")])
def test_an_option_is_shown_in_one_line(name, told):
    alone = Handover(Schedule.static(Mixture({name: 1.0})))
    with pytest.raises(ExportError) as raised:
        alone.paths_of("x", "a file")
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    with pytest.raises(ExportError, match="give --document-tokens '") as raised:
        example_tokens(alone, "x")
    assert "\n" not in str(raised.value)


def test_a_schedule_is_refused_with_the_remedy():
    assert refuse_schedule(Handover(STATIC), "x", "do y") == MIXTURE
    with pytest.raises(ExportError, match="this schedule has 2 stages; do y"):
        refuse_schedule(Handover(STAGED), "x", "do y")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("web", "web"),
        ("/data/web_text_document", "web"),
        ("/data/web/part-000-*.npy", "web"),
        ("/data/web/code_text_document", "code"),
        ("s3://web/dolma/common_crawl/art/x.npy", "common_crawl/art"),
        ("/data/web-clean_text_document.bin", "web-clean"),
        ("/data/web_clean_0", "web-clean"),
        ("train_the_pile_common.crawl/art", "common_crawl/art"),
        ("/data/text/WEB-shard", "web"),
        ("/d/train_text_web.bin", "web"),
        ("/d/web_text_document", "web"),
        ("/d/書籍/a", "書籍"),
    ],
)
def test_the_domain_of_a_path(text, domain):
    domains = ["web", "code", "text", "web-clean", "common_crawl/art", "art-x", "書籍"]
    if text == "/d/train_text_web.bin":
        domains.remove("text")
    assert domain_of(text, domains, "x.json") == domain


@pytest.mark.parametrize("text", ["/data/website", "/data/cobweb", "", "3"])
def test_a_path_of_no_domain_is_named(text):
    with pytest.raises(ExportError, match=r"x.json: .* names none of the domains \['web'\]"):
        domain_of(text, ["web"], "x.json")


def test_a_path_of_no_domain_names_the_nearest():
    with pytest.raises(ExportError, match=r"did you mean 'arxiv'\?"):
        domain_of("/web/arxive", ["arxiv", "github"], "x.json")


@pytest.mark.parametrize("text", ["/data/cc_code", "/data/cc/x_code_cc", "/CC_code"])
def test_a_path_that_names_two_domains_is_refused(text):
    with pytest.raises(ExportError, match=r"names the domains \['cc', 'code'\] alike"):
        domain_of(text, ["cc", "code", "data"], "x.json")


def test_names_that_differ_in_case_or_separators_only_are_told_apart():
    names = ["web", "Web", "a-b", "a_b"]
    assert [domain_of(f"/d/{name}_0", names, "x") for name in names] == names


def test_paths_told_apart_by_their_folders_only_are_refused():
    """Else the whole blend would be one domain, silently."""
    with pytest.raises(
        ExportError, match=r"all are of 'web', and by their folders of \['math', 'w"
    ):
        gather([("/d/wiki/v1_web", 1), ("/d/math/v1_web", 3)], ["wiki", "math", "web"], "x")
    shards = [("/code/web_1", 1), ("/code/web_2", 3)]
    assert gather(shards, ["web", "code"], "x") == {"web": 1.0, "code": 0.0}


def test_weights_of_one_domain_add_up():
    pairs = [("/d/web/1", "2"), ("/d/web/2", 4), ("/d/code/1", 2.0)]
    assert gather(pairs, ["web", "code", "books"], "x") == Mixture(
        {"web": 0.75, "code": 0.25, "books": 0.0}
    )


@pytest.mark.parametrize("weight", [-1, "heavy", None, math.nan, math.inf, True, [1]])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ExportError, match="x: the weight of 'web' is"):
        gather([("web", weight)], ["web"], "x")


def test_no_weight_at_all_is_no_mixture():
    with pytest.raises(ExportError, match="x gives no domain a weight"):
        gather([("web", 0)], ["web"], "x")
