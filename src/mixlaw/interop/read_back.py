"""What all exporters read a trainer's config back with: its errors, and whose weights they are."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixlaw.errors import ExportError, MixlawError
from mixlaw.mixture import Mixture


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Whatever is wrong with a config that is read, in one line that names the file.

    Args: what: it should be: "a mixture file of MaxText, which maps names to path and weight".
    Raises: ExportError: it cannot be opened, parsed, or is of another form.
    """
    try:
        yield
    except ExportError:
        raise
    except (
        *(OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
        *(SyntaxError, RecursionError, MemoryError, MixlawError),  # of nesting, the latter two
    ) as error:
        raise ExportError(f"{path} is not {what}: {_why(error)}") from error


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r} where one is looked for"
    if isinstance(error, TypeError | AttributeError | IndexError | ZeroDivisionError):
        return "its parts are of another form"
    return " ".join(str(error).split())


def domain_of(text: str, domains: Sequence[str], where: str) -> str:
    """The domain that a name or a path in a trainer's config speaks of: the same word, or one that
    stands between separators, where "-", "_", "." and " " are alike; the last part of a path that
    has one decides.

    Args: where: the config, for the error.
    Raises: ExportError: it names none, or two in one part.
    """
    if text in domains:
        return text
    named = _named(text, domains)
    if not named:
        raise ExportError(
            f"{where}: {text!r} names none of the domains {list(domains)}{_nearest(text, domains)}"
            "; name the domain in it, or give the mixture as plain JSON"
        )
    last = named[max(named)]
    if len({re.sub(_SEPARATOR, "-", name.casefold()) for name in last}) == 1:
        last = {name for name in last if name in text} or last  # of "Web" and "web"
    if len(last) > 1:
        raise ExportError(
            f"{where}: {text!r} names the domains {sorted(last)} alike; rename it, or give the "
            "mixture as plain JSON"
        )
    return min(last)


_SEPARATOR = "[-_ .]"


def _named(text: str, domains: Sequence[str]) -> dict[int, set[str]]:
    """Part of a path (the first is 1) -> the domains whose words end in it; of words that lie in
    longer ones only these."""
    # What Megatron's own tool puts after each name.
    folded = re.sub(r"_text_(document|sentence)(?=(\.bin|\.idx)?$)", "", text.casefold())
    spans = []
    for name in domains:
        letters = (_SEPARATOR if c in "-_ ." else re.escape(c) for c in name.casefold())
        word = rf"(?<![^\W_]){''.join(letters)}(?![^\W_])"
        spans += [(*match.span(), name) for match in re.finditer(word, folded)]
    named: dict[int, set[str]] = {}
    for begin, end, name in spans:
        if not any(b <= begin and end <= e and e - b > end - begin for b, e, _ in spans):
            named.setdefault(len(re.split(r"[/\\:]", folded[:end])), set()).add(name)
    return named


def _nearest(text: str, domains: Sequence[str]) -> str:
    """A hint at the domain that a part of the text is most like; empty: at none."""
    parts = [text, *reversed(re.split(r"[/\\:]", text))]
    near = [name for part in parts for name in difflib.get_close_matches(part, domains, n=1)]
    return f" (did you mean {near[0]!r}?)" if near else ""


def gather(weights: Iterable[tuple[str, Any]], domains: Sequence[str], where: str) -> Mixture:
    """The mixture of pairs (name or path, weight) of a config; weights of one domain add up.

    Raises: ExportError: a weight that is none, a name or path of no domain, or paths that are all
    of one domain by their last parts, and of several by those before.
    """
    shares = dict.fromkeys(domains, 0.0)
    folders = set()
    for text, given in weights:
        try:
            weight = float(given)
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 <= weight < math.inf or isinstance(given, bool):
            raise ExportError(f"{where}: the weight of {text!r} is {given!r}; it must be >= 0")
        domain = domain_of(str(text), domains, where)
        shares[domain] += weight
        folders.add((domain, frozenset().union(*_named(str(text), domains).values())))
    if len({domain for domain, _ in folders}) == 1 < len(folders):
        several = sorted(frozenset().union(*(named for _, named in folders)))
        raise ExportError(
            f"{where}: by the last parts of its paths all are of {next(iter(folders))[0]!r}, and "
            f"by their folders of {several}; rename them, or give the mixture as plain JSON"
        )
    if not math.fsum(shares.values()) > 0:
        raise ExportError(f"{where} gives no domain a weight; it holds no mixture")
    return Mixture.from_weights(shares)
