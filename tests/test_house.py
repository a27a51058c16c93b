"""The rules of the house: imports flow one way, and `import mixlaw` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mixlaw

PACKAGE = Path(mixlaw.__file__).parent

# A room may import from the rooms above its own line, and from itself.
ORDER = [
    {"errors"},
    {"names"},
    {"files"},
    {"storage"},
    {"mixture"},
    {"schedule"},
    {"runs"},
    {"store"},
    {"claims"},
    {"laws", "design", "corpus"},
    {"train", "optimize", "interop", "estimator"},
    {"datasets"},
    {"launch", "plan"},
    {"testing"},
    {"continual", "stages"},
    {"study"},
    {"plots"},
    {"report"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mixlaw":
            for alias in node.names:
                home = mixlaw._HOME.get(alias.name, f"mixlaw.{alias.name}")
                if alias.name != "__version__":
                    yield home.split(".")[1], node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mixlaw."):
            yield node.module.split(".")[1], node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("mixlaw."):
                    yield alias.name.split(".")[1], node.lineno


# What exporters write beside a config: modules for other people's trainers, never imported here.
WRITTEN = PACKAGE / "interop" / "exporters" / "modules"

# The package's own __init__ is the face: it re-exports every room; __main__ is the command line.
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py") and path.parent != WRITTEN
]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for imported, lineno in imports(path):
        allowed = imported == room or LEVEL[imported] < LEVEL[room]
        assert allowed, f"{path}:{lineno}: {room} must not import {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_only_train_imports_torch(path):
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name) or ""
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if any(name.split(".")[0] == "torch" for name in names):
        assert path.relative_to(PACKAGE).parts[0] == "train"


def test_every_room_has_its_level():
    rooms = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith("_")}
    assert rooms - {"py.typed"} == set(LEVEL)


HEAVY = ["torch", "matplotlib", "tokenizers", "pyarrow", "ray", "fsspec", "submitit", "sklearn"]


@pytest.mark.parametrize("module", ["mixlaw", "mixlaw.study", "mixlaw.cli.app"])
def test_heavy_packages_stay_out(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_public_face_is_small_and_whole():
    assert len(mixlaw.__all__) <= 27
    for name in mixlaw.__all__:
        value = getattr(mixlaw, name)
        assert name == "CANDIDATES" or value.__module__.startswith("mixlaw.")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mixlaw.nonsense


def test_modules_for_others_need_nothing_of_ours():
    assert not [path for path in WRITTEN.glob("*.py") if list(imports(path))]
