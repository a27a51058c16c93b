"""Completion, as each shell asks for it: studies, trainers, domains; nothing that a shell runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def offered(exact, monkeypatch):
    """What a shell is offered after a line: the text that it gets."""

    def ask(shell: str, line: str) -> str:
        words = line.split(" ")
        monkeypatch.setenv("_MIXLAW_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        code, out, err = exact()
        assert (code, err) == (0, "")
        return out

    return ask


@pytest.fixture
def words(offered):
    """The same as bash splits it."""
    return lambda line: [word for word in offered("bash", line).split("\n") if word]


CASES = {
    "mixlaw opt": ["optimize"],
    "mixlaw fit my": ["my-study"],
    "mixlaw import runs.csv --into my": ["my-study"],
    "mixlaw export my-study --to mega": ["megatron"],
    "mixlaw import x --kind tens": ["tensorboard"],
    "mixlaw train my-study --launcher s": ["slurm"],
    "mixlaw train my-study --track w": ["wandb"],
    "mixlaw predict my-study -m we": ["web="],
    "mixlaw export my-study --baseline na": ["natural"],
    "mixlaw fit my-study --js": ["--json"],
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", CASES)
def test_names_are_completed_in_every_shell(beside_study, offered, shell, line):
    for name in CASES[line]:
        assert name in offered(shell, line)


def test_no_more_than_what_fits(beside_study, words):
    for line, found in CASES.items():
        assert words(line) == found, line


def test_studies(beside_study, words):
    """A folder with a study.yaml, or a YAML file; where there is none, folders to look into."""
    (beside_study / "deep" / "one").mkdir(parents=True)
    (beside_study / "deep" / "one" / "study.yaml").write_text("table: x.csv\n")
    (beside_study / "other.yaml").write_text("table: x.csv\n")
    (beside_study / ".hidden").mkdir()
    assert words("mixlaw fit ") == ["my-study", "other.yaml"]
    assert words("mixlaw fit de") == ["deep/"]
    assert words("mixlaw fit deep/") == ["deep/one"]
    assert words("mixlaw fit deep/one") == ["deep/one"]
    assert words(f"mixlaw fit {beside_study}/my") == [f"{beside_study}/my-study"]
    assert words("mixlaw fit nothing") == []
    assert words("mixlaw fit no/such/folder/") == []


def test_a_mixture_goes_on_after_its_commas(beside_study, words):
    line = "mixlaw predict my-study -m "
    assert words(line) == ["web=", "code=", "books="]
    assert words(f"{line}web=0.5,") == ["web=0.5,code=", "web=0.5,books="]
    assert words(f"{line}web=0.5,b") == ["web=0.5,books="]


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "domains: [", "table: 3\n", "table: none.csv\n"]
)
def test_a_study_that_is_half_written_completes_nothing(beside_study, words, text):
    (beside_study / "my-study" / "study.yaml").write_text(text)
    assert words("mixlaw predict my-study -m ") == []


def test_domains_of_a_table_alone(beside_study, words):
    (beside_study / "my-study" / "study.yaml").write_text("table: runs.csv\n")
    assert words("mixlaw predict my-study -m c") == ["code="]


HOSTILE = ["\\$(touch hit)", "$(touch hit)", "`touch hit`", "'a;touch hit'", '"x', "a\nb", "a\x1bb"]


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_would_run_is_not_offered(beside_study, offered, shell):
    for name in HOSTILE:
        folder = beside_study / name
        folder.mkdir()
        (folder / "study.yaml").write_text("table: x.csv\n")
    domains = ", ".join(f"{ascii(name)[1:-1]!r}: {{}}" for name in HOSTILE[:2])
    (beside_study / "my-study" / "study.yaml").write_text(f"domains: {{{domains}, web: {{}}}}\n")
    for line in ("mixlaw fit ", "mixlaw predict my-study -m "):
        text = offered(shell, line)
        assert "hit" not in text
        assert "\x1b" not in text
    assert "my-study" in offered(shell, "mixlaw fit ")


def test_a_real_bash(beside_study):
    """The script that --show-completion prints, in the shell that it is for."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    programs = beside_study / "bin"
    programs.mkdir()
    program = programs / "mixlaw"
    program.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from mixlaw.cli import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    script = """
    eval "$(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION=1 mixlaw --show-completion bash)"
    COMP_WORDS=(mixlaw export my-study --to m) COMP_CWORD=4
    _mixlaw_completion mixlaw
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True
    )
    assert (found.stdout.split(), found.stderr) == (["megatron", "maxtext"], "")
