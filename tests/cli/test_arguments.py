"""Numbers and mixtures as people type them."""

from __future__ import annotations

import json

import pytest
import typer

from mixlaw.cli.arguments import a_count, a_number, count_from, number_in, parse_mixture
from mixlaw.errors import MixtureError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 7),
        ("1e6", 10**6),
        ("1_000_000", 10**6),
        ("1,000,000", 10**6),
        ("80M", 80_000_000),
        ("1.1B", 1_100_000_000),
        ("2.4T", 2_400_000_000_000),
        ("300k", 300_000),
        (" 5 ", 5),
    ],
)
def test_counts(text, count):
    assert a_count(text) == count


@pytest.mark.parametrize(
    "text",
    ["", "M", "many", "0", "-5", "1.5", "nan", "inf", "1e400", "1,5", "1,0000", "80m", "1 M x"],
)
def test_what_counts_nothing_is_shown_with_the_rule(text):
    with pytest.raises(typer.BadParameter, match="is no whole number of at least 1; give one such"):
        a_count(text)


def test_least_and_numbers():
    assert count_from(0)("0") == 0
    assert count_from(2)(11) == 11
    with pytest.raises(typer.BadParameter, match="at least 2"):
        count_from(2)("1")
    assert a_number("-1e20") == -1e20
    assert number_in("0.3") == 0.3
    with pytest.raises(typer.BadParameter, match="'much' is no number"):
        a_number("much")


def test_options_that_count_read_alike(mixlaw, beside_study):
    asked = ("my-study", "-m", "web=0.5,code=0.5", "--json")
    plain = mixlaw("predict", *asked, "--num-params", "20000000", "--train-tokens", "300000000")
    assert plain[0] == 0
    assert mixlaw("predict", *asked, "--num-params", "2e7", "--train-tokens", "300M") == plain
    code, out, err = mixlaw("predict", *asked[:1], "--num-params", "0")
    assert (code, out) == (2, "")
    assert "'--num-params': '0' is no whole number of at least 1" in err


def test_several_long_mixtures_are_told_by_letters_and_none_is_merged(mixlaw, beside_study):
    first, second = "web=0.5,code=0.3,books=0.2", "web=0.3,code=0.5,books=0.2"
    given = ("predict", "my-study", "-m", first, "-m", second, "-m", first)
    code, out, _ = mixlaw(*given)
    assert code == 0
    assert out.startswith(f"A: {first} B: {second} C: {first} at ")
    assert "target A B C ±" in out
    forecasts = json.loads(mixlaw(*given, "--json")[1])["forecasts"]
    assert len(forecasts) == 3
    assert forecasts[0] == forecasts[2]


def test_counts_of_a_scale_are_written_alike(mixlaw, beside_study):
    for num_params, said in (("4e6", "4M parameters and 80M"), ("2e7", "20M parameters and 80M")):
        given = ("predict", "my-study", "--num-params", num_params, "--train-tokens", "80M")
        assert f"at {said} tokens, 90% intervals" in mixlaw(*given)[1]


def test_one_of_each_is_no_plural(mixlaw, tmp_path):
    table = tmp_path / "one.csv"
    table.write_text("weight/web,weight/code,loss/web\n0.5,0.5,3\n0.3,0.7,2\n", encoding="utf-8")
    assert "2 runs, 2 rows, 2 domains, 1 target column" in mixlaw("import", table)[1]


def test_a_mixture_in_json_has_any_names():
    assert dict(parse_mixture('{"a,b": 0.6, "c=d": 0.4}')) == {"a,b": 0.6, "c=d": 0.4}
    assert parse_mixture("web=0.6, code=0.4") == parse_mixture(' {"web": 0.6, "code": 0.4}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b=1", 'with a comma or an equals sign in a name, give JSON: --mixture \'{"a,b": 0.6'),
        ("a=b=1", "'a=b=1' in --mixture 'a=b=1' is not of the form domain=0.5"),
        ("{a: 1}", "is no JSON"),
        ("{" * 5000, "is no JSON"),
        ('{"a": 0.5, "a": 0.5}', "'a' is named twice"),
        ('{"a": "much"}', "the share of 'a' in --mixture"),
        ('{"a": true}', "is no number"),
        ('{"a": NaN}', "nan"),
        ("{}", ""),
    ],
)
def test_mixtures_that_cannot_be_read(text, message):
    with pytest.raises(MixtureError) as told:
        parse_mixture(text)
    assert message in str(told.value)
