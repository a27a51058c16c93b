"""Tables of the terminal: nothing is cut, however narrow it is."""

from __future__ import annotations

import pytest
from rich.text import Text

from mixlaw.cli import terminal
from mixlaw.cli.show_decision import forecast_table


@pytest.fixture
def printed(monkeypatch, capsys):
    """Print a table at a width: its lines."""

    def show(width, columns, rows, **more) -> list[str]:
        monkeypatch.setattr(terminal.out, "width", width)
        terminal.table(columns, rows, **more)
        return capsys.readouterr().out.splitlines()

    return show


def test_long_names_are_folded_and_headers_broken_before_a_number_is(printed):
    name = "a-target-with-a-name-of-fifty-characters-or-more-in-all"
    columns = ["target", "expected regret", "half width", "2.5B x 100B", "seed noise"]
    shown = printed(60, columns, [[name, "3.2e+13", "0.067", "0.0061", "0.5"]])
    assert max(map(len, shown)) <= 60
    text = "\n".join(shown)
    for cell in ("3.2e+13", "0.067", "0.0061", "0.5", "expected", "regret"):
        assert cell in text
    parts = (line.split()[0] for line in shown if line.strip())
    assert "".join(part for part in parts if part in name and part != "target") == name
    assert "…" not in text


def test_columns_without_a_place_follow_below(printed):
    columns = ["mixture", *(f"domain{i:02d}" for i in range(20))]
    rows = [[f"m{k}", *(f"0.{k}{i:02d}" for i in range(20))] for k in range(3)]
    shown = printed(80, columns, rows)
    assert max(map(len, shown)) <= 80
    words = " ".join(shown).split()
    assert all(cell in words for row in rows for cell in row)
    assert words.count("m1") == words.count("mixture") > 1


def test_wide_characters_take_their_room(printed):
    shown = printed(80, ["target", "value"], [["日本語", "1.25"], ["x", "2"]])
    assert shown[1].split() == ["日本語", "1.25"]


def test_square_brackets_are_no_markup(printed):
    assert "[bold]x[/]" in "\n".join(printed(80, ["name", "[a]"], [["[bold]x[/]", "1"]]))


def test_a_width_is_printed_once_or_from_least_to_most(monkeypatch, capsys):
    monkeypatch.setattr(terminal.out, "width", 80)
    rows = {"one": [(1.0, 0.5), (2.0, 0.5)], "two": [(1.0, 0.25), (-0.0, 0.125)]}
    forecast_table("target", ["a", "b"], rows, "title")
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[1:] == [
        ["target", "a", "b", "±"],
        ["one", "1.0000", "2.0000", "0.5000"],
        ["two", "1.0000", "0.0000", "0.1250-0.2500"],
    ]


def test_words_are_set_left_and_numbers_right(printed):
    shown = printed(80, ["step", "state", "share"], [["fit", "-", "0.5"], ["train", "done", "12"]])
    assert [line.rstrip() for line in shown] == [
        " step   state  share",
        " fit    -        0.5",
        " train  done      12",
    ]


@pytest.fixture
def said(monkeypatch, capsys):
    """Say something in a terminal of a width: its lines."""

    def show(width, text, **more) -> list[str]:
        monkeypatch.setattr(terminal.out, "width", width)
        monkeypatch.setattr(terminal.out, "_force_terminal", True)
        monkeypatch.setattr(terminal.out, "_color_system", None)
        terminal.say(Text(text), terminal.out, **more)
        return capsys.readouterr().out.splitlines()

    return show


def test_sentences_break_at_spaces_and_long_words_stay_whole(said):
    path = "/a/path/that/is/longer/than/any/line"
    assert said(20, f"one two three four {path} five") == ["one two three four", path, "five"]
    assert said(20, "01234567890123456789 x") == ["01234567890123456789", "x"]
    assert said(19, "日本語 日本語 日本語 日") == ["日本語 日本語", "日本語 日"]
    assert said(20, "\nfirst\nsecond line that is broken") == [
        "",
        "first",
        "second line that is",
        "broken",
    ]
    assert said(20, "word  one two three four", indent=6) == [
        "word  one two three",
        "      four",
    ]


def test_characters_without_a_place_are_escapes():
    assert terminal.shown("a\x1b[31m\x9b1m\x07\u202e\rb") == r"a\x1b[31m\x9b1m\x07\u202e\rb"
    assert terminal.shown("two\nlines\xa0and\u3000spaces") == "two\nlines and spaces"
    assert terminal.shown("👩‍💻 می‌خواهم") == "👩‍💻 می‌خواهم"  # the joiners of names
