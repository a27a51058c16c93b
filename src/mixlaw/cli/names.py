"""Names that the shell completes and the help lists; each is looked up when it is asked for."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import typer


def trainers() -> tuple[str, ...]:
    """Of `mixlaw export --to`."""
    from mixlaw.interop.exporters import EXPORTERS

    return EXPORTERS


def kinds() -> tuple[str, ...]:
    """Of `mixlaw import --kind`."""
    from mixlaw.interop.importers import IMPORTERS

    return IMPORTERS


def launchers() -> tuple[str, ...]:
    """Where proxies are trained."""
    return ("local", "ray", "slurm")


def trackers() -> tuple[str, ...]:
    """Tools that show curves."""
    return ("tensorboard", "wandb", "mlflow")


def units() -> tuple[str, ...]:
    """Of mixtures in tables of others."""
    return ("shares", "percent", "relative")


def checkpoints() -> tuple[str, ...]:
    """Which rows of a run are imported."""
    return ("last", "all")


LISTS: dict[str, Callable[[], tuple[str, ...]]] = {
    "{trainers}": trainers,
    "{kinds}": kinds,
    "{launchers}": launchers,
    "{trackers}": trackers,
}
"""Word of a help text -> what stands there: the page asks for it, start-up does not."""


def one_of(known: Callable[[], tuple[str, ...]]) -> Callable[[str], list[str]]:
    """Completes one of a list of names, all of them our own."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in known() if name.startswith(incomplete)]

    return complete


def studies(incomplete: str) -> list[str]:
    """Folders with a study.yaml, and YAML files; where there is none, folders to look into."""
    parent, _, start = incomplete.rpartition("/")
    above = f"{parent}/" if "/" in incomplete else ""
    found, others = [], []
    for path in _entries(Path(above or ".").expanduser()):
        name = path.name
        if not name.startswith(start) or (name.startswith(".") and not start.startswith(".")):
            continue
        if (path / "study.yaml").is_file() or (path.suffix in (".yaml", ".yml")):
            found.append(above + name)
        elif path.is_dir():
            others.append(f"{above}{name}/")
    return sorted(found) or sorted(others)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if _harmless(path.name))
    except OSError:  # a folder that cannot be read has no completions
        return


def _harmless(name: str) -> bool:
    """Whether a shell may be given a name that is not ours: zsh evaluates what it is offered, a
    line break makes two completions of one, and other codes move the cursor."""
    return name.isprintable() and not _EVALUATED & set(name)


_EVALUATED = frozenset("\\\"'`$")


def shares(ctx: typer.Context, incomplete: str) -> list[str]:
    """The next "domain=" of a mixture, after the commas so far."""
    before, comma, start = incomplete.rpartition(",")
    used = {part.partition("=")[0] for part in before.split(",")}
    return [
        f"{before}{comma}{name}="
        for name in _domains(ctx)
        if name not in used and name.startswith(start) and _harmless(name)
    ]


def baselines(ctx: typer.Context, incomplete: str) -> list[str]:
    """Mixtures that a study compares with: the two that all have, and its own."""
    own = _study(ctx).get("baselines")
    names = ["natural", "uniform", *(map(str, own) if isinstance(own, dict) else ())]
    return [name for name in names if name.startswith(incomplete) and _harmless(name)]


def _study(ctx: typer.Context) -> dict:
    """What the study file of the command line says, {} where it says nothing yet."""
    import yaml

    # An option that waits for its value ends the parsing; what came before it is in `args`.
    given = ctx.params.get("study") or next(iter(ctx.args), "")
    try:
        path = Path(given)
        file = path if path.suffix in (".yaml", ".yml") else path / "study.yaml"
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # a half-written study: nothing to complete
        return {}
    return {**said, "__folder__": file.parent} if isinstance(said, dict) else {}


def _domains(ctx: typer.Context) -> list[str]:
    """The study's domains; of a study of a CSV table that does not list them, its columns."""
    said = _study(ctx)
    if isinstance(said.get("domains"), dict):
        return [str(name) for name in said["domains"]]
    table = said.get("table")
    if not isinstance(table, str):
        return []
    try:
        with open(said["__folder__"] / table, encoding="utf-8", newline="") as rows:
            header = next(csv.reader(rows), [])
    except (OSError, ValueError, csv.Error):
        return []
    return [name.removeprefix("weight/") for name in header if name.startswith("weight/")]
