"""OLMo-core: a source mixture of token files, or stages for its composable data loader."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixlaw.files import parse_yaml
from mixlaw.interop.handover import TOKEN, Exported, Handover, literal, sample_counts
from mixlaw.interop.read_back import gather, reading
from mixlaw.interop.snippet import Part, Snippet, whole, yaml_text
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

SOURCES_FILE, STAGES_FILE = "sources.yaml", "mixlaw_stages.py"

_STAGES = '''\
"""Stages of a data mixture for OLMo-core's composable data loader; written by mixlaw."""

from olmo_core.data.composable import (
    ConcatAndChunkInstanceSource,
    ConcatenatedInstanceSource,
    SamplingInstanceSource,
    SlicedInstanceSource,
)

SEQUENCE_LENGTH = {sequence_length}
SEED = {seed}

# Domain -> its token files, and how many sequences each stage draws from them.
DOMAINS = {domains}


def sources(tokenizer, work_dir):
    """One source a stage. A stage goes on in a domain where the one before it left off."""
    stages = [[] for _ in range({num_stages})]
    for label, domain in DOMAINS.items():
        files = ConcatAndChunkInstanceSource.Config.from_npy(
            *domain["paths"], tokenizer=tokenizer, sequence_length=SEQUENCE_LENGTH, label=label
        ).build(work_dir)
        drawn = SamplingInstanceSource(
            files,
            max_instances=sum(domain["sequences"]),
            seed=SEED,
            work_dir=work_dir,
            label=label,
        )
        start = 0
        for stage, count in zip(stages, domain["sequences"]):
            if count:
                part = slice(start, start + count)
                stage.append(SlicedInstanceSource(drawn, part, work_dir=work_dir))
            start += count
    return [ConcatenatedInstanceSource(*stage, work_dir=work_dir) for stage in stages]
'''


class OlmoCore:
    """Static mixtures as the sources of a `SourceMixtureDatasetConfig`; schedules as one source a
    stage of the composable data loader, which shuffles within each and takes them in order.

    A source that is shorter than its share fails there unless its repetition ratio allows the
    passes, which is set from the available tokens, with a tenth to spare. The tokens asked for are
    whole batches: what a last batch lacks would be spread evenly over the sources, whatever their
    ratios. Source: olmo_core/data/source_mixture.py and olmo_core/data/composable of 3.0.0.
    """

    name = "olmo-core"
    what = "OLMo-core: a source mixture; stages for its composable data loader"
    schedules = True
    checked = "ai2-olmo-core 3.0.0"

    def export(self, handover: Handover) -> Exported:
        """The sources, or the stages. Raises: ExportError: the size of the run is not known, or it
        is shorter than a step; a domain has no path."""
        handover.need("OLMo-core", "train_tokens", "sequence_length", "batch_sequences")
        paths = _paths(handover)
        handover.stage_samples("OLMo-core")  # refuses a run of no step
        if handover.schedule.is_static:
            return _static(handover, paths)
        return _staged(handover, paths)

    def snippet(self, handover: Handover) -> Snippet:
        """The sources. Of a domain whose available tokens are known, the repetition ratio allows a
        whole run of it. Raises: ExportError: a domain has no path."""
        paths = _paths(handover)
        available, tokens = handover.available_tokens, handover.train_tokens or 0
        passes = {name: tokens / available[name] for name in paths if name in available}
        notes = (
            f"max_repetition_ratio in {SOURCES_FILE} would allow a whole run of one domain: mind "
            "the epochs, or export, which sets it as the mixture needs it",
            "each file is read from its beginning, up to its part: its documents must be shuffled",
        )
        return _sources(paths, _caps(passes), notes if passes else notes[1:])

    def read(self, path: Path, domains: Sequence[str]) -> Schedule:
        """The ratios of a file of sources, or of a config that has them, by their names.

        Raises: ExportError: it has none.
        """
        with reading(path, "a list `sources` with a source_name and a target_ratio each"):
            data = parse_yaml(path.read_text(encoding="utf-8"))
            for section in ("dataset", "source_mixture_config", "source_list"):
                data = data.get(section, data)
            pairs = [(source["source_name"], source["target_ratio"]) for source in data["sources"]]
            return Schedule.static(gather(pairs, domains, str(path)))


def _static(handover: Handover, paths: Mapping[str, Sequence[str]]) -> Exported:
    mixture = handover.schedule.dose
    ratios = dict(_sources(paths, {}).numbers(mixture))
    batch_tokens = _known(handover.batch_sequences) * _known(handover.sequence_length)
    requested = _known(handover.num_steps) * batch_tokens
    sizes = _sizes(handover, paths)
    notes = ["each file is read from its beginning, up to its part: its documents must be shuffled"]
    available = handover.available_tokens
    passes = {n: int(requested * r) / available[n] for n, r in ratios.items() if n in available}
    caps = _caps(passes)
    notes += [
        f"{name!r} is read {passes[name]:.3g} times, by the available tokens as given; its ratio "
        "allows a tenth more"
        for name in caps
    ]
    unknown = [name for name in ratios if name not in handover.available_tokens]
    if unknown:
        notes.append(
            f"the available tokens of {unknown} are not known: a source with fewer than "
            "its share fails when it is built; raise its max_repetition_ratio then"
        )
    needed = requested // _known(handover.sequence_length)
    if sizes is None:
        notes.append("realised is to a sequence or two a file, since their tokens are not known")
        (drawn,) = sample_counts(handover, "OLMo-core") or [{}]
    else:
        drawn = sequences(ratios, sizes, handover)
    if (found := sum(drawn.values())) < needed:
        notes.append(f"the sources give {found:,} of the run's {needed:,} sequences")
    never = [name for name, count in drawn.items() if not count]
    if never:
        notes.append(f"the run draws no sequence of {never}")
    how = f"""\
from olmo_core.data import NumpyFSLDatasetConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList

mixture = SourceMixtureDatasetConfig(
    source_list=SourceMixtureList.from_yaml("{SOURCES_FILE}"),
    requested_tokens={requested},
    global_batch_size={batch_tokens},
    seed={handover.seed},
)
dataset = NumpyFSLDatasetConfig.from_src_mix(
    mixture, tokenizer=tokenizer, sequence_length={handover.sequence_length}
)"""
    text = _sources(paths, caps).text(mixture)
    realised = Schedule.static(Mixture.from_weights(drawn))
    return Exported({SOURCES_FILE: text}, realised, TOKEN, how, tuple(notes))


def _paths(handover: Handover) -> dict[str, tuple[str, ...]]:
    return handover.paths_of("OLMo-core", "token files (.npy, or a pattern of them)")


def _caps(passes: Mapping[str, float]) -> dict[str, float]:
    """Source -> max_repetition_ratio, where one pass may not do: available tokens are estimates,
    and a ratio is no more than a cap."""
    return {name: math.ceil(times * 110) / 100 for name, times in passes.items() if times > 0.9}


def _sources(
    paths: Mapping[str, Sequence[str]], caps: Mapping[str, float], notes: tuple[str, ...] = ()
) -> Snippet:
    lines = []
    for name, files in paths.items():
        rest = {"paths": list(files)}
        rest |= {"max_repetition_ratio": caps[name]} if name in caps else {}
        before = yaml_text([{"source_name": name}]) + "  target_ratio: "
        lines.append((before, "\n" + yaml_text(rest, 2)))
    return Snippet(
        SOURCES_FILE,
        whole(list(paths)),
        (Part("sources:\n", tuple(lines)),),
        "",
        TOKEN,
        notes=notes,
    )


def _staged(handover: Handover, paths: Mapping[str, Sequence[str]]) -> Exported:
    drawn = sample_counts(handover, "OLMo-core") or []
    domains = {
        name: {"paths": list(paths[name]), "sequences": [part.get(name, 0) for part in drawn]}
        for name in handover.domains
    }
    text = _STAGES.format(
        sequence_length=handover.sequence_length,
        seed=handover.seed,
        domains=literal(domains),
        num_stages=len(drawn),
    )
    batch_tokens = _known(handover.batch_sequences) * _known(handover.sequence_length)
    how = f"""\
from {STAGES_FILE.removesuffix(".py")} import sources
from olmo_core.data.composable import ComposableDataLoaderConfig

loader = ComposableDataLoaderConfig(
    tokenizer=tokenizer,
    global_batch_size={batch_tokens},
    work_dir=work_dir,
    seed={handover.seed},
    shuffle_strategy="intra_source",
).build(*sources(tokenizer, work_dir))"""
    counts = [sum(part.values()) for part in drawn]
    realised = Schedule.of(
        (count / sum(counts), Mixture.from_weights(part))
        for count, part in zip(counts, drawn, strict=True)
    )
    notes = (
        "stages need the composable data loader, which came after OLMo-core 2.0; a schedule is "
        f'kept only with shuffle_strategy="intra_source", as {STAGES_FILE} is to be used',
        "a domain that is shorter than what is drawn from it is read again from its beginning",
    )
    return Exported({STAGES_FILE: text}, realised, TOKEN, how, notes)


def _known(number: int | None) -> int:
    """What `need` has made sure of."""
    assert number is not None
    return number


def _sizes(
    handover: Handover, paths: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[int]] | None:
    """Tokens of each file, where they are known: a domain's available tokens, shared by bytes."""
    sizes = {}
    for name, files in paths.items():
        available = handover.available_tokens.get(name)
        if not available or any("*" in file for file in files):
            return None
        try:
            part = [os.stat(file).st_size for file in files] if len(files) > 1 else [1]
        except OSError:
            return None
        sizes[name] = [round(available * size / sum(part)) for size in part]
    return sizes


def sequences(
    ratios: Mapping[str, float], sizes: Mapping[str, Sequence[int]], handover: Handover
) -> dict[str, int]:
    """Sequences that `SourceMixtureDatasetConfig.build` takes of each source.

    Each pass over a file gives whole sequences only; what the batches then lack goes to all files
    that have more, evenly, and the rest of that by largest remainder.

    Args:
        ratios: source -> target ratio.
        sizes: source -> tokens of each of its files.
    """
    length = _known(handover.sequence_length)
    needed = _known(handover.num_steps) * _known(handover.batch_sequences)
    passes: list[tuple[str, int, int]] = []  # source, tokens wanted of a file, tokens that it has
    for name, ratio in ratios.items():
        left = int(needed * length * ratio) / sum(sizes[name])
        while True:  # a source that is asked for no token is there, too, for what batches lack
            part = min(1.0, left)
            passes += [(name, math.ceil(size * part), size) for size in sizes[name]]
            left -= part
            if left <= 0:
                break
    room = [size // length for _, _, size in passes]
    taken = [min(want // length, most) for (_, want, _), most in zip(passes, room, strict=True)]
    ready = [i for i, most in enumerate(room) if taken[i] < most]
    each = max(0, needed - sum(taken)) // max(1, len(ready))
    for i in ready:
        taken[i] += min(each, room[i] - taken[i])
    rest = max(0, needed - sum(taken))
    nearest = sorted(
        ((passes[i][1] % length, i) for i in ready if taken[i] < room[i]), reverse=True
    )
    for _, i in nearest[:rest]:
        taken[i] += 1
    drawn = dict.fromkeys(ratios, 0)
    for (name, _, _), count in zip(passes, taken, strict=True):
        drawn[name] += count
    return drawn
