import ast
from pathlib import Path

import pytest

from mixlaw.corpus.environment import ENVIRONMENT_DOMAINS, Environment
from mixlaw.corpus.python_text import docstrings, without_docstrings
from mixlaw.errors import CorpusError

LONG = " ".join(f"sentence number {i} of a long text." for i in range(20))
NUMBERS = "\n".join(f"{i},{i * i},{i**3}" for i in range(60))
CODE = f'"""{LONG}"""\n' + "\n".join(f"value_{i} = {i} + other_{i}" for i in range(30))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    site = tmp_path / "site-packages"
    files = {
        "pkg/module.py": CODE,
        "pkg/broken.py": "def (:\n" * 60,
        "pkg/latin.py": b"# \xe9\n" * 80,
        "pkg/short.py": "x = 1\n",
        "pkg/tests/test_module.py": CODE + "\nassert value_1",
        "pkg/include/a.h": "int f(int x);\n" * 30,
        "pkg/table.txt": NUMBERS,
        "pkg/prose.txt": LONG,
        "pkg/table.csv": NUMBERS + "\n0,0,0",
        "pkg/fast.pyx": "cdef int g(int x): return x\n" * 20,
        "pkg/module.pyi": "def f(x: int) -> int: ...\n" * 20,
        "pkg/LICENSE.txt": NUMBERS,
        "pkg/huge.csv": "1,2,3\n" * 100_000,
        "pkg/__pycache__/x.py": CODE,
        "mixlaw/own.py": CODE,
        "other/README.md": f"# Other\n\n{LONG}",
        "pkg-1.0.dist-info/METADATA": (
            "Metadata-Version: 2.4\nName: pkg\nVersion: 1.0\nLicense-Expression: MIT\n\n" + LONG
        ),
        "pkg-1.0.dist-info/RECORD": "pkg/module.py,,\npkg-1.0.dist-info/METADATA,,\n",
        "pkg-1.0.dist-info/licenses/README.md": LONG,
    }
    for name, content in files.items():
        file = site / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    stdlib = tmp_path / "stdlib"
    (stdlib / "site-packages").mkdir(parents=True)
    (stdlib / "os.py").write_text(CODE + "\nstdlib = True")
    (stdlib / "site-packages" / "twice.py").write_text(CODE)
    return Environment([site], stdlib)


EXPECTED = {
    "docs": ["other/README.md", "pkg-1.0.dist-info/METADATA", "pkg/module.py", "stdlib/os.py"],
    "python": ["pkg/module.py", "stdlib/os.py"],
    "tests": ["pkg/tests/test_module.py"],
    "cpp": ["pkg/include/a.h"],
    "data": ["pkg/table.csv", "pkg/table.txt"],
    "cython": ["pkg/fast.pyx"],
    "stubs": ["pkg/module.pyi"],
}


@pytest.mark.parametrize("domain", ENVIRONMENT_DOMAINS)
def test_each_file_lands_in_its_domain(environment, domain):
    sample = environment.sample(domain, max_bytes=None, seed=0)
    assert sorted(d.origin for d in sample.documents) == EXPECTED[domain]
    assert sample.exact
    assert sample.found_bytes == sum(d.num_bytes for d in sample.documents)


def test_text_and_license(environment):
    docs = {d.origin: d for d in environment.sample("docs", max_bytes=None, seed=0).documents}
    assert docs["pkg/module.py"].text == LONG
    assert docs["pkg-1.0.dist-info/METADATA"].text == LONG
    licenses = {origin: d.license for origin, d in docs.items()}
    assert licenses == {
        "pkg/module.py": "MIT",
        "pkg-1.0.dist-info/METADATA": "MIT",
        "stdlib/os.py": "PSF-2.0",
        "other/README.md": "unknown",
    }
    (python,) = (
        d
        for d in environment.sample("python", max_bytes=None, seed=0).documents
        if d.origin == "pkg/module.py"
    )
    assert LONG not in python.text
    assert "value_3 = 3" in python.text
    assert environment.packages() == {"pkg": "1.0"}


def test_a_cap_extrapolates_what_was_found(environment):
    sample = environment.sample("docs", max_bytes=1, seed=0)
    assert len(sample.documents) == 1
    assert not sample.exact
    assert sample.found_bytes > sample.documents[0].num_bytes


def test_unknown_domain(environment):
    with pytest.raises(CorpusError, match=r"no built-in domain 'poems'; there are \['cpp', .*"):
        environment.sample("poems", max_bytes=None, seed=0)


def test_the_real_environment_has_text_for_the_trained_domains():
    environment = Environment()
    for domain in ("docs", "python", "tests"):
        sample = environment.sample(domain, max_bytes=100_000, seed=0)
        assert sum(d.num_bytes for d in sample.documents) >= 100_000
        assert sample.found_bytes > 1_000_000
        assert not any(d.origin.startswith("/") for d in sample.documents)


SOURCE = '''"""Module."""
import os
class A:
    """Class ä.

        indented
    """
    x = 1
    def f(self): "one line"
    async def g(self):
        """Body."""
        return "kept"; "not a docstring"
def h(): "doc"; return 1
class Empty:
    """Only this."""
text = """no docstring"""
'''


def test_docstrings_are_taken_out_and_what_is_left_still_parses():
    assert docstrings(SOURCE).split("\n\n") == [
        "Module.",
        "Class ä.",
        "indented",
        "one line",
        "Body.",
        "doc",
        "Only this.",
    ]
    code = without_docstrings(SOURCE)
    ast.parse(code)
    assert docstrings(code) == ""
    assert "def f(self): pass" in code
    assert "def h(): return 1" in code
    assert 'text = """no docstring"""' in code
    assert "Module" not in code


@pytest.mark.parametrize("source", ["print 'two'", "\0", "(" * 100_000])
def test_a_source_that_does_not_parse_gives_nothing(source):
    assert docstrings(source) == ""
    assert without_docstrings(source) == ""
