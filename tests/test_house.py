"""The rules of the house: imports flow one way, and `import mixlaw` stays light."""

from __future__ import annotations

import ast
import re
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


# Input that is not trusted: names, files and archives of others are data, and nothing runs them.

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("src", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
RUNNING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""Modules whose files are programs."""

JUSTIFIED = {
    "src/mixlaw/study/config.py": {"yaml.SafeLoader"},  # its base, that refuses doubled keys
    "src/mixlaw/files.py": {"yaml.SafeLoader"},  # the one place that reads YAML
    "src/mixlaw/report/page.py": {"Markup"},  # drawings, written by an XML serialiser
    "src/mixlaw/report/explorer/embed.py": {"Markup"},  # templates and JSON that were escaped
}
"""File -> what it alone may call or name, and why."""


def spoken(node: ast.AST) -> str:
    """`a.b.c` of such an expression, else ""."""
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := spoken(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST):
    """What runs, unpickles or does not escape what it is given: its line and its name."""
    templates = {"jinja2.Environment"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "jinja2":
            templates |= {alias.asname or alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            for name in names:
                if name.split(".")[0] in RUNNING or name == "markupsafe.escape_silent":
                    yield node.lineno, name
        elif isinstance(node, ast.Attribute) and spoken(node) in YAML:
            yield node.lineno, spoken(node)
        elif isinstance(node, ast.Call):
            name, given = spoken(node.func), {word.arg: word.value for word in node.keywords}
            if name in CALLS:
                yield node.lineno, name
            if name.endswith("torch.load") and not constant(given.get("weights_only"), True):
                yield node.lineno, "torch.load without weights_only=True"
            if name in templates and not constant(given.get("autoescape"), True):
                yield node.lineno, "a jinja2 Environment without autoescape=True"
            for word in ("shell", "allow_pickle"):
                if word in given and not constant(given[word], False):
                    yield node.lineno, f"{word}="


YAML = {"yaml.load", "yaml.load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader"}
YAML |= {"yaml.unsafe_load", "yaml.full_load", "yaml.SafeLoader", "yaml.dump", "yaml.Dumper"}
CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "Markup",
    "code.interact",
}
CALLS |= {"subprocess.getoutput", "pandas.read_pickle", "pd.read_pickle"}


def constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path):
    place = path.relative_to(ROOT).as_posix()
    allowed = JUSTIFIED.get(place, set())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"{place}:{line}: {what}" for line, what in dangers(tree) if what not in allowed] == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch; torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "from jinja2 import Environment; Environment()",
        "Markup(name)",
    ],
)
def test_the_rule_finds_what_it_forbids(code):
    assert list(dangers(ast.parse(code)))


def test_what_is_justified_is_still_there():
    for place, names in JUSTIFIED.items():
        found = {what for _, what in dangers(ast.parse((ROOT / place).read_text("utf-8")))}
        assert names <= found, place


WRITERS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|srcdoc"
    r"|DOMParser|\beval\s*\(|new\s+Function\b|set(?:Timeout|Interval)\s*\(\s*['\"`]|javascript:"
)
"""What makes markup, or a program, of text."""
PAGES = sorted(path for kind in ("*.js", "*.html") for path in (ROOT / "src").rglob(kind))


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_pages_make_no_markup_of_text(path):
    text = path.read_text(encoding="utf-8")
    assert [found[0] for found in WRITERS.finditer(text)] == []
    assert not re.search(r"<[^>]*\son\w+\s*=", text), "a handler in markup: the policy forbids it"


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.html")), ids=lambda p: p.name)
def test_templates_mark_no_name_as_safe(path):
    """`| safe` only after text that stands in the template itself."""
    marked = re.findall(r"[^{(]*\|\s*safe\b", path.read_text(encoding="utf-8"))
    assert all(re.search(r"'[^'{}]*'\s*\|\s*safe$", text) for text in marked)
