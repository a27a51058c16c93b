"""The help: one screen of what there is, and examples that are what they say."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len

from mixlaw.cli.app import app
from mixlaw.cli.entry import EXIT_CODES, NO_READER
from mixlaw.cli.names import launchers, trackers
from mixlaw.interop.exporters import EXPORTERS
from mixlaw.interop.importers import IMPORTERS
from mixlaw.report.explorer.payload import NUM_DRAWS

GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands  # pyright: ignore
EXAMPLES = [line for command in COMMANDS.values() for line in command.epilog.split("\n")]

NOT_HERE = {
    "demo": "trains",
    "corpus": "needs text",
    "train": "trains",
    "work": "trains",
    "verify": "trains",
    "continual": "needs continued runs",
    "schedule": "needs staged runs",
    "wandb://team/project": "needs the network",
    "logs/": "needs logs of a trainer",
    "mixlaw design my-study": "of a study of text",
    "mixlaw report my-study": "refits many times; the next example does not",
}
"""Words of examples that are not run here, or whole ones, and why."""


def page(exact, *arguments) -> str:
    code, out, err = exact(*arguments, "--help")
    assert (code, err) == (0, "")
    return out


def test_the_first_page_is_one_screen_and_tells_the_steps_in_order(exact, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = page(exact).splitlines()
    assert len(lines) <= 40
    assert max(map(cell_len, lines)) <= 80
    told = [line.split()[0] for line in lines if line.startswith("  ")]
    steps = ["import", "plan", "design", "train", "fit", "optimize", "report", "export", "verify"]
    assert [word for word in told if word in steps] == steps
    assert set(COMMANDS) <= set(told)
    assert exact() == (0, page(exact), "")


def test_the_first_page_says_what_exit_codes_and_json_are(exact):
    text = " ".join(page(exact).split())
    for code in EXIT_CODES.keys() - {NO_READER}:  # which no person sees
        assert f"{code} " in text.partition("Exit codes:")[2]
    assert "With --json a command prints one JSON document on stdout; an error is one on" in text
    assert "mixlaw design my-study --next 8 --export-to TRAINER --out configs" in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_page_says_what_a_command_does_and_ends_with_examples(exact, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    lines = page(exact, name).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert lines[0].startswith(f"Usage: mixlaw {name} ")
    text = " ".join(" ".join(lines).split())
    for option in ("--json", "--debug", "--help"):
        assert option in text
    assert "{" not in text.replace("{domain}", "")  # a list that was not filled in
    examples = lines[lines.index("Examples") + 1 :]
    assert examples == [f"  {line}" for line in COMMANDS[name].epilog.split("\n")]
    assert all(line.startswith(f"  mixlaw {name} ") for line in examples)


@pytest.mark.parametrize("columns", [40, 200])
def test_pages_fit_other_widths_and_leave_examples_whole(exact, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in COMMANDS:
        lines = page(exact, name).splitlines()
        copied = lines.index("Examples")
        assert max(map(cell_len, lines[:copied])) <= columns
        assert lines[copied + 1 :] == [f"  {line}" for line in COMMANDS[name].epilog.split("\n")]
        assert "…" not in "".join(lines)


def test_lists_in_the_help_are_those_of_the_library(exact):
    assert f"One of {', '.join(EXPORTERS)};" in " ".join(page(exact, "export").split())
    assert f"looks: {', '.join(IMPORTERS)}." in " ".join(page(exact, "import").split())
    training = " ".join(page(exact, "train").split())
    assert f"One of {', '.join(launchers())};" in training
    assert f"curves in {', '.join(trackers())};" in training
    assert f"default: {NUM_DRAWS}." in " ".join(page(exact, "report").split())


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_understood(example):
    program, name, *arguments = shlex.split(example)
    assert program == "mixlaw"
    with COMMANDS[name].make_context(name, list(arguments)) as context:
        assert context.params


def test_examples_do_what_they_say(mixlaw, beside_study):
    """All that need nothing but a study of runs, one after the other."""
    done = []
    for example in EXAMPLES:
        words = shlex.split(example)
        if example not in NOT_HERE and not NOT_HERE.keys() & set(words):
            code, out, err = mixlaw(*words[1:])
            assert (code, err) == (0, ""), example
            assert out, example
            done.append(words[1])
    assert set(done) == set(COMMANDS) - NOT_HERE.keys()
    made = ["new-study/study.yaml", "imported/study.yaml", "renamed/runs.csv", "page.html"]
    made += ["my-study/export/json/mixture.json", "mixture/export.json"]
    for file in made:
        assert Path(file).is_file(), file
    assert "weight/novels" in Path("renamed/runs.csv").read_text()
