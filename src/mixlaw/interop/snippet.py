"""What to paste into a trainer's config for a mixture that is still being chosen."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import yaml

from mixlaw.errors import ExportError
from mixlaw.interop.handover import Handover, apportion, size_of
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule


@dataclass(frozen=True)
class Part:
    """A text that stands once, and then a line for each entry with a share.

    Attributes:
        before: the text.
        lines: of each entry the pieces that its weight stands between; one piece stands alone, and
            none is no line.
        between: the lines.
    """

    before: str
    lines: tuple[tuple[str, ...], ...]
    between: str = ""


@dataclass(frozen=True)
class Snippet:
    """A trainer's config for any mixture of the same domains: all but its weights is said.

    The text for a mixture is made with no more than the arithmetic of floating point and joining
    of texts, so that a page makes the very same:

    1. An entry's share is that of its domain times its factor; entries without are left out.
    2. `total` units are given to the entries by `apportion`: largest remainder, at least one each.
    3. A weight is its units where `digits` is 0, else units / total with so many decimals.
    4. Each part is its `before`, and its lines, each with the weight between its pieces, joined by
       `between`. After all parts comes `after`.

    Attributes:
        file: that it is written to, as `export` does.
        entries: domain and factor; a domain with several paths has several, by their sizes, and
            where a trainer counts documents, a factor is 1 / mean tokens.
        unit: what the weights count: "token", "sample" or "document".
        notes: what whoever pastes it should know.
    """

    file: str
    entries: tuple[tuple[str, float], ...]
    parts: tuple[Part, ...]
    after: str
    unit: str
    total: int = 10**6
    digits: int = 6
    notes: tuple[str, ...] = ()

    def text(self, mixture: Mapping[str, float]) -> str:
        """The config. Raises: ExportError: shares of unknown domains, or of too many."""
        weights = self._weights(mixture)
        made = []
        for part in self.parts:
            lines = zip(weights, part.lines, strict=True)
            kept = [weight.join(pieces) for weight, pieces in lines if weight and pieces]
            made += [part.before, part.between.join(kept)]
        return "".join([*made, self.after])

    def numbers(self, mixture: Mapping[str, float]) -> list[tuple[str, float]]:
        """Domain and weight of each entry with a share, as the text says them. Raises: as `text`"""
        weights = zip(self.entries, self._weights(mixture), strict=True)
        return [(name, float(weight)) for (name, _), weight in weights if weight]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, for the page that makes the text by itself."""
        return asdict(self)

    def _weights(self, mixture: Mapping[str, float]) -> list[str]:
        """Of each entry; empty: no share."""
        names = {name for name, _ in self.entries}
        if strangers := [
            name for name, share in mixture.items() if share > 0 and name not in names
        ]:
            raise ExportError(
                f"the snippet is for {sorted(names)}, and the mixture has {strangers}"
            )
        shares = {i: mixture.get(name, 0.0) * part for i, (name, part) in enumerate(self.entries)}
        units = apportion(shares, self.total)
        return [self._weight(units[i]) if i in units else "" for i in shares]

    def _weight(self, units: int) -> str:
        return f"{units / self.total:.{self.digits}f}" if self.digits else str(units)


def whole(names: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Entries of domains that are each weighed as one."""
    return tuple((name, 1.0) for name in names)


def by_tokens(tokens: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Entries whose weights count examples; `tokens`: domain -> mean tokens of one."""
    return tuple((name, 1 / mean) for name, mean in tokens.items())


def by_size(
    paths: Mapping[str, Sequence[str]], size: Callable[[str], int]
) -> tuple[tuple[str, float], ...]:
    """An entry for each path of each domain, by its size; looked up where there are several.

    Raises: ExportError: a size that cannot be read, or is zero.
    """
    entries = []
    for name, places in paths.items():
        sizes = [size_of(path, name, size) for path in places] if len(places) > 1 else [1]
        entries += [(name, part / sum(sizes)) for part in sizes]
    return tuple(entries)


def yaml_text(value: Any, indent: int = 0) -> str:
    """A value as block YAML, whose lines end as they are and begin with so many spaces."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=math.inf)
    return textwrap.indent(text, " " * indent)


def yaml_key(name: str, indent: int = 0) -> str:
    """What stands before the number of that name."""
    return yaml_text({name: 0}, indent).removesuffix("0\n")


def yaml_flow(name: str, value: Any) -> str:
    """An entry of a mapping in braces."""
    flow = yaml.safe_dump(
        {name: value}, default_flow_style=True, allow_unicode=True, width=math.inf
    )
    return flow.strip()[1:-1]


def json_key(name: str) -> str:
    """What stands before the number of that name, letters as they are."""
    return f"  {json.dumps(name, ensure_ascii=False)}: "


def json_lines(values: Mapping[str, Any], indent: int) -> tuple[tuple[str, ...], ...]:
    """One line of an object for each name and value."""
    return tuple(
        (f"{' ' * indent}{json.dumps(name)}: {json.dumps(value)}",)
        for name, value in values.items()
    )


def realised_shares(snippet: Snippet, mixture: Mapping[str, float]) -> Mixture:
    """What the weights of a snippet say, whole domains together."""
    shares: dict[str, float] = {}
    for name, weight in snippet.numbers(mixture):
        shares[name] = shares.get(name, 0.0) + weight
    return Mixture.from_weights(shares)


def snippet_for(handover: Handover, to: str) -> Snippet:
    """The config of the trainer called `to` for any mixture of the domains that a handover names,
    with a share or not.

    A domain without a path gets "/data/<domain>" where the trainer needs one, and the first note
    says so: what a page shows is to be filled in, where `export` would stop.

    Raises: ExportError: no such trainer, or it has none; says why.
    """
    from mixlaw.interop.exporters import exporter

    names = handover.schedule.domains
    known = replace(handover, schedule=Schedule.static(Mixture.uniform(names)))
    missing = {name: (f"/data/{name}",) for name in names if not handover.paths.get(name)}
    try:
        return exporter(to).snippet(known)
    except ExportError:
        if not missing:
            raise
    made = exporter(to).snippet(replace(known, paths={**handover.paths, **missing}))
    told = f"put your own paths in place of {[path for (path,) in missing.values()]}"
    return replace(made, notes=(told, *made.notes))


def snippets(handover: Handover) -> dict[str, Snippet | str]:
    """Trainer -> its `snippet_for`, or why it has none, in a sentence."""
    from mixlaw.interop.exporters import EXPORTERS

    made = {}
    for name in EXPORTERS:
        try:
            made[name] = snippet_for(handover, name)
        except ExportError as error:
            made[name] = str(error)
    return made
