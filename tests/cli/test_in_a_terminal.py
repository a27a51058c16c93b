"""What a person sees: nothing too wide, colours where they are wanted, names as text."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.cells import cell_len

from mixlaw.runs import RunTable
from tests.cli.conftest import DRIVER, rows

SHARES = "web=0.5,code=0.3,books=0.2"
TOUR = [
    ([], 0),
    (["--help"], 0),
    (["export", "--help"], 0),
    (["init", "new-study"], 0),
    (["status", "my-study"], 0),
    (["fit", "my-study"], 0),
    (["fit", "my-study", "--all"], 0),
    (["optimize", "my-study"], 0),
    (["optimize", "my-study", "--all"], 0),
    (["predict", "my-study", "-m", SHARES, "-m", "web=0.7,code=0.3"], 0),
    (["pareto", "my-study", "--points", "3"], 0),
    (["plan", "my-study", "--budget", "1e19"], 0),
    (["import", "runs.csv"], 0),
    (["import", "runs.csv", "--into", "imported"], 0),
    (["export", "my-study", "--to", "json"], 0),
    (["edit", "my-study", "--remove", "books"], 0),
    (["design", "my-study", "--next", "2"], 0),
    (["report", "my-study", "--draws", "0", "--out", "page.html"], 0),
    (["fit", "no-such-study"], 1),
    (["predict", "my-study", "-m", "web=0.5,code=0.4"], 1),
    (["fitt", "my-study"], 2),
    (["fit", "my-study", "--al"], 2),
]
COMMANDS = [arguments for arguments, _ in TOUR]
SOME = [
    ["--help"],
    ["status", "my-study"],
    ["fit", "my-study"],
    ["optimize", "my-study"],
    ["report", "my-study", "--draws", "0", "--out", "page.html"],
    ["fit", "no-such-study"],
]


def ours(screen, folder) -> list[str]:
    """Its lines, but for the one that has the long path of a folder of these tests."""
    return [line for line in screen.lines if folder.name not in line]


def test_no_line_is_wider_than_80_cells_and_there_is_colour(beside_study, in_terminal):
    screens = in_terminal(*COMMANDS)
    assert [screen.code for screen in screens] == [code for _, code in TOUR]
    for (arguments, _), screen in zip(TOUR, screens, strict=True):
        wide = [line for line in ours(screen, beside_study) if cell_len(line) > 80]
        assert not wide, arguments
        assert "\x1b[" in screen.sent or arguments == ["init", "new-study"], arguments
    told = dict(zip(map(" ".join, COMMANDS), screens, strict=True))
    assert told["fit my-study"].lines[0].startswith("The law ")
    assert told["optimize my-study"].lines[0].startswith("Train on ")
    for name in ("fit my-study", "optimize my-study"):
        following = [line for line in told[name].lines if line.startswith("  next ")]
        assert len(following) == 1, name
    written = told["report my-study --draws 0 --out page.html"]
    address = (beside_study / "page.html").as_uri()
    assert f"open it in a browser, without a network too: {address}" in written.words
    assert "drawing the report" in written.sent


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_escape_codes_where_they_are_not_wanted(beside_study, in_terminal, changes):
    for arguments, screen in zip(SOME, in_terminal(*SOME, **changes), strict=True):
        assert "\x1b" not in screen.sent, arguments
        assert max(map(cell_len, ours(screen, beside_study))) <= 80


def test_no_escape_codes_in_a_pipe_and_lines_are_whole(beside_study):
    found = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(SOME)], capture_output=True, text=True
    )
    text = found.stdout + found.stderr
    assert "\x1b" not in text
    assert "The law " in text
    assert any(len(line) > 80 and line.startswith("squared error") for line in text.splitlines())


@pytest.mark.parametrize("columns", [40, 200])
def test_other_widths(beside_study, in_terminal, columns):
    chosen = (["fit", "my-study"], ["optimize", "my-study"], ["status", "my-study"])
    for screen in in_terminal(*chosen, columns=columns):
        wide = [line for line in screen.lines if cell_len(line) > columns]
        assert all("mixlaw " in line for line in wide)  # a command is left whole
        assert "…" not in "".join(screen.lines)


NAMES = {"web": "网页文本", "code": "[red]code[/red]", "books": "books 📚👩‍💻"}
NAMES_OF = {
    f"{part}/{old}": f"{part}/{new}" for part in ("weight", "loss") for old, new in NAMES.items()
}


def test_wide_names_emoji_and_markup_are_shown_as_they_are(beside_study, in_terminal):
    renamed = [{NAMES_OF.get(key) or key: row[key] for key in row} for row in rows()]
    study = beside_study / "多言語"
    study.mkdir()
    RunTable.from_rows(renamed).write(study / "runs.csv")
    (study / "study.yaml").write_text(
        f"table: runs.csv\nobjective: {{'loss/{NAMES['web']}': 1, 'loss/{NAMES['code']}': 1}}\n"
        "target: {num_params: 100_000_000, train_tokens: 2_000_000_000}\n",
        encoding="utf-8",
    )
    commands = [
        ["fit", "多言語"],
        ["optimize", "多言語"],
        ["status", "多言語"],
        ["predict", "多言語"],
    ]
    commands.append(["predict", "多言語", "-m", "[bold]x[/bold]=1"])
    screens = in_terminal(*commands)
    assert [screen.code for screen in screens] == [0, 0, 0, 0, 1]
    for screen in screens:
        assert max(map(cell_len, screen.lines)) <= 80
    for name in NAMES.values():
        assert name in screens[1].words
    assert "网页文本" in screens[0].words
    assert "[bold]x[/bold]" in screens[-1].words


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\rgone"
"""Clears the screen, names the window, turns text red and around, and goes to the line's start."""


def test_control_characters_never_reach_the_terminal(beside_study, in_terminal):
    """From names of folders, files, columns and mixtures, from YAML and from typing mistakes."""
    folder = beside_study / f"study{HOSTILE}"
    folder.mkdir()
    (folder / "study.yaml").write_text((beside_study / "my-study/study.yaml").read_text())
    RunTable.from_rows(rows()).write(folder / "runs.csv")
    broken = beside_study / "broken"
    broken.mkdir()
    (broken / "study.yaml").write_text(f"table: runs.csv\n'{HOSTILE!r}': [\n")
    unknown = beside_study / "unknown"
    unknown.mkdir()
    (unknown / "study.yaml").write_text('table: runs.csv\n"key\\e[2J": 1\n"evil\\x9b31m": 2\n')
    table = beside_study / f"table{HOSTILE}.csv"
    table.write_text(
        f"weight/web,weight/a{HOSTILE},loss/web,loss/x{HOSTILE}\n0.5,0.5,2,3\n0.1,0.9,2,3\n",
        newline="",
    )
    screens = in_terminal(
        ["status", folder.name],
        ["fit", folder.name],
        ["optimize", folder.name],
        ["export", folder.name, "--to", "json"],
        ["fit", f"no{HOSTILE}"],
        ["fit", f"no{HOSTILE}", "--debug"],
        ["fit", "broken"],
        ["fit", "unknown"],
        ["import", table.name],
        ["import", f"gone{HOSTILE}.csv"],
        ["predict", "my-study", "-m", f"{HOSTILE}=1"],
        ["export", "my-study", "--to", HOSTILE],
        [f"fit{HOSTILE}"],
        ["fit", "my-study", f"--all{HOSTILE}"],
        ["plan", "my-study", "--budget", HOSTILE],
        TERM="dumb",  # whatever is sent, is not ours
    )
    assert [screen.code for screen in screens[:8]] == [0, 0, 0, 0, 1, 1, 1, 1]
    for screen in screens:
        text = screen.sent.replace("\r\n", "\n")
        assert all(char.isprintable() or char == "\n" for char in text), text
    assert r"\x1b[2J" in screens[0].words
