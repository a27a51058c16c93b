"""Changes of domains as the command line writes them."""

from __future__ import annotations

from collections.abc import Sequence

from mixlaw.cli.arguments import number_in
from mixlaw.errors import MixtureError
from mixlaw.mixture import Domain
from mixlaw.plan.edits import Add, Edit, Merge, Remove, Revise, Split

SPLIT = "--split web=news:0.3,forums:0.7"


def parse_edits(
    *,
    add: Sequence[str],
    remove: Sequence[str],
    split: Sequence[str],
    merge: Sequence[str],
    revise: Sequence[str],
) -> list[Edit]:
    """Edits from `name[=tokens]`, `name`, `name=part:ratio,part:ratio`, `whole=part,part` and
    `name[=tokens]`.

    Raises: MixtureError: none given, or text of another form.
    """
    edits: list[Edit] = [Add(_domain(text, "--add")) for text in add]
    edits += [Remove(name) for name in remove]
    for text in split:
        name, parts = _sides(text, SPLIT)
        edits.append(Split(name, _ratios(parts, text)))
    for text in merge:
        whole, parts = _sides(text, "--merge web=news,forums")
        edits.append(Merge(parts, whole))
    for text in revise:
        domain = _domain(text, "--revise")
        edits.append(Revise(domain.name, domain if domain.available_tokens else None))
    if not edits:
        raise MixtureError("no edit given; use --add, --remove, --split, --merge or --revise")
    return edits


def _ratios(parts: Sequence[str], where: str) -> dict[str, float]:
    ratios: dict[str, float] = {}
    for name, ratio in (_part(part, where) for part in parts):
        if name in ratios:
            raise MixtureError(f"{name!r} is named twice in '--split {where}'; name each part once")
        ratios[name] = ratio
    return ratios


def _domain(text: str, option: str) -> Domain:
    name, equals, tokens = text.partition("=")
    if not equals:
        return Domain(name.strip())
    count = _number(tokens, f"{option} {text}")
    if not count.is_integer():
        raise MixtureError(f"{tokens!r} in '{option} {text}' is no whole number of tokens")
    return Domain(name.strip(), int(count))


def _part(text: str, where: str) -> tuple[str, float]:
    name, colon, ratio = text.partition(":")
    if not colon:
        raise MixtureError(f"{text!r} in {where!r} has no ratio; the form is {SPLIT}")
    return name.strip(), _number(ratio, where)


def _sides(text: str, example: str) -> tuple[str, list[str]]:
    name, equals, parts = text.partition("=")
    if not equals or not parts:
        raise MixtureError(f"{text!r} is not of the form {example}")
    return name.strip(), [part.strip() for part in parts.split(",")]


def _number(text: str, where: str) -> float:
    if (number := number_in(text)) is None:
        raise MixtureError(f"{text!r} in {where!r} is no number")
    return number
