"""Our sources and stages, built by OLMo-core."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml
from olmo_core.data import NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.composable import ComposableDataLoaderConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig, SourceMixtureList

from mixlaw.corpus.tokens import open_token_file, write_megatron
from mixlaw.interop.exporters.olmo_core import OlmoCore
from mixlaw.interop.handover import Handover
from mixlaw.mixture import Mixture
from mixlaw.schedule import Schedule

LENGTH = 16
NAMES = ["web", "code", "books"]
TOKENIZER = TokenizerConfig(vocab_size=1000, eos_token_id=999, pad_token_id=998)


def write_tokens(path, domain, num_tokens):
    """Documents of 42 bare uint16 ids that tell the domain: OLMo-core knows no header."""
    ids = np.random.default_rng(domain).integers(100 * domain, 100 * domain + 100, num_tokens)
    ids[41::42] = ids[-1] = TOKENIZER.eos_token_id
    ids.astype("<u2").tofile(path)


def domain_of(ids):
    return NAMES[int(ids[ids < 900][0]) // 100]


def made(tmp_path, schedule, tokens, **more):
    """A handover over token files of these sizes: domain -> tokens of each of its files."""
    paths = {}
    for name, sizes in tokens.items():
        paths[name] = tuple(str(tmp_path / f"{name} {i}.npy") for i in range(len(sizes)))
        for path, size in zip(paths[name], sizes, strict=True):
            write_tokens(path, NAMES.index(name), size)
    given = {"train_tokens": 100 * 8 * LENGTH, "batch_sequences": 8} | more
    available = {name: sum(sizes) for name, sizes in tokens.items()}
    return Handover(
        schedule, paths=paths, available_tokens=available, sequence_length=LENGTH, seed=5, **given
    )


def mixture_config(exported, tmp_path, handover):
    (tmp_path / "sources.yaml").write_text(exported.files["sources.yaml"])
    batch_tokens = handover.batch_sequences * LENGTH
    return SourceMixtureDatasetConfig(
        source_list=SourceMixtureList.from_yaml(tmp_path / "sources.yaml"),
        requested_tokens=handover.num_steps * batch_tokens,
        global_batch_size=batch_tokens,
        seed=handover.seed,
        render_tables=False,
        quiet=True,
    )


CASES = {
    "plenty": ({"web": 0.6, "code": 0.3, "books": 0.1}, {n: [50_000] for n in NAMES}, {}),
    "several files": (
        {"web": 0.613, "code": 0.287, "books": 0.1},
        {"web": [9000, 333, 4001], "code": [7000, 17], "books": [5000]},
        {},
    ),
    "repeated": (
        {"web": 0.55, "code": 0.4, "books": 0.05},
        {"web": [20_000], "code": [1700, 333], "books": [100]},
        {},
    ),
    "part of a batch": (
        {"web": 0.5, "code": 0.5},
        {"web": [40_000], "code": [40_000]},
        {"train_tokens": 100 * 8 * LENGTH + 77},
    ),
    "a share below a sequence": (
        {"web": 0.9999, "code": 0.0001},
        {"web": [40_000], "code": [40_000]},
        {},
    ),
}


def built_shares(exported, tmp_path, handover):
    """The share of tokens of each source that OLMo-core builds."""
    built = mixture_config(exported, tmp_path, handover).build(
        npdtype=np.uint16, sequence_length=LENGTH
    )
    given = {s.name: sum(path.tokens for path in s.path_tokens) for s in built.sources}
    return {name: tokens / sum(given.values()) for name, tokens in given.items()}


@pytest.mark.parametrize("name", CASES)
def test_build_gives_what_we_say(tmp_path, name):
    shares, tokens, more = CASES[name]
    handover = made(tmp_path, Schedule.static(Mixture(shares)), tokens, **more)
    exported = OlmoCore().export(handover)
    assert exported.realised.dose == pytest.approx(built_shares(exported, tmp_path, handover))


@pytest.mark.parametrize("seed", range(25))
def test_build_gives_what_we_say_for_any_sizes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shares = dict(zip(NAMES, np.round(rng.dirichlet(np.ones(3)), 3) + 1e-3, strict=True))
    sizes = {n: rng.integers(20, 6000, rng.integers(1, 4)).tolist() for n in NAMES}
    more = {"train_tokens": int(rng.integers(8, 60) * 8 * LENGTH), "batch_sequences": 8}
    schedule = Schedule.static(Mixture.from_weights(shares))
    handover = made(tmp_path, schedule, sizes, **more)
    exported = OlmoCore().export(handover)
    assert exported.realised.dose == pytest.approx(built_shares(exported, tmp_path, handover))


@pytest.mark.parametrize("seed", range(12))
def test_build_gives_what_we_say_of_many_small_sources(tmp_path, seed):
    """Shares below a token, and files that are read many times."""
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range([3, 20, 60][seed % 3])]
    shares = np.maximum(rng.dirichlet(np.full(len(names), 0.1)), 1e-6)
    shares[-1] = 1e-6
    paths = {name: (str(tmp_path / f"{name}.npy"),) for name in names}
    sizes = dict(zip(names, rng.integers(20, 600, len(names)).tolist(), strict=True))
    for name, size in sizes.items():
        write_tokens(paths[name][0], 0, size)
    handover = Handover(
        Schedule.static(Mixture.from_weights(dict(zip(names, shares.tolist(), strict=True)))),
        paths=paths,
        available_tokens=sizes,
        train_tokens=int(rng.integers(5, 60)) * 4 * LENGTH,
        sequence_length=LENGTH,
        batch_sequences=4,
    )
    exported = OlmoCore().export(handover)
    theirs = {n: s for n, s in built_shares(exported, tmp_path, handover).items() if s}
    assert {n: s for n, s in exported.realised.dose.items() if s} == pytest.approx(theirs)


def test_available_tokens_may_be_one_in_a_hundred_too_many(tmp_path):
    handover = made(tmp_path, Schedule.static(Mixture({"web": 1.0})), {"web": [12_750]})
    handover = replace(handover, available_tokens={"web": 12_900})
    built_shares(OlmoCore().export(handover), tmp_path, handover)


def test_the_dataset_holds_these_sequences(tmp_path):
    shares, tokens, more = CASES["repeated"]
    handover = made(tmp_path, Schedule.static(Mixture(shares)), tokens, **more)
    exported = OlmoCore().export(handover)
    config = NumpyFSLDatasetConfig.from_src_mix(
        mixture_config(exported, tmp_path, handover),
        tokenizer=TOKENIZER,
        sequence_length=LENGTH,
        work_dir=str(tmp_path / "work"),
    )
    dataset = config.build()
    dataset.prepare()
    rows = [dataset[i]["input_ids"].numpy() for i in range(len(dataset))]
    drawn = Counter(map(domain_of, rows))
    whole = sum(drawn.values())
    assert whole == 100 * 8
    # As the note says: each file is read from its beginning.
    web = np.concatenate([row for row in rows if domain_of(row) == "web"])
    file = np.fromfile(handover.paths["web"][0], dtype="<u2")
    np.testing.assert_array_equal(web, file[: len(web)])
    assert exported.realised.dose == pytest.approx({n: c / whole for n, c in drawn.items()})


def test_without_its_ratio_a_short_source_fails(tmp_path):
    """The trap that the export avoids."""
    shares, tokens, more = CASES["repeated"]
    handover = made(tmp_path, Schedule.static(Mixture(shares)), tokens, **more)
    exported = OlmoCore().export(handover)
    data = yaml.safe_load(exported.files["sources.yaml"])
    for source in data["sources"]:
        source.pop("max_repetition_ratio", None)
    config = mixture_config(exported, tmp_path, handover)
    config.source_list = SourceMixtureList.from_dict(data)
    with pytest.raises(Exception, match="Insufficient tokens for source: code"):
        config.build(npdtype=np.uint16, sequence_length=LENGTH)


def test_stages_are_drawn_in_order_to_the_sequence(tmp_path):
    schedule = Schedule.of(
        [
            (0.7, Mixture({"web": 0.75, "code": 0.25})),
            (0.3, Mixture({"web": 0.2, "code": 0.3, "books": 0.5})),
        ]
    )
    tokens = {"web": [20_000], "code": [1000, 600], "books": [4000]}
    handover = made(tmp_path, schedule, tokens)
    exported = OlmoCore().export(handover)
    scope = {}
    exec(exported.files["mixlaw_stages.py"], scope)
    work_dir = str(tmp_path / "work")
    loader = ComposableDataLoaderConfig(
        tokenizer=TOKENIZER,
        global_batch_size=8 * LENGTH,
        work_dir=work_dir,
        seed=handover.seed,
        shuffle_strategy="intra_source",
        display_source_visualization=False,
    ).build(*scope["sources"](TOKENIZER, work_dir))
    loader.reshuffle(1)
    batches = [batch["input_ids"].numpy() for batch in loader]
    assert len(batches) == 100
    assert [stage.share for stage in exported.realised.stages] == pytest.approx([0.7, 0.3])
    for part, stage in zip((batches[:70], batches[70:]), exported.realised.stages, strict=True):
        drawn = Counter(map(domain_of, np.concatenate(part)))
        shares = {name: share for name, share in stage.mixture.items() if share}
        assert shares == pytest.approx({n: c / drawn.total() for n, c in drawn.items()})
    # Web is long enough: none of its sequences comes twice, in whichever stage.
    web = [tuple(row) for batch in batches for row in batch if domain_of(row) == "web"]
    assert len(set(web)) == len(web)


def test_our_token_files_are_its_token_files(tmp_path):
    """OLMo-core maps bare ids: our `.bin` is such a file, and theirs is read by us."""
    with write_megatron(tmp_path / "web", vocab_size=1000) as writer:
        writer.add(np.arange(600))
    config = NumpyFSLDatasetConfig(
        paths=[str(tmp_path / "web.bin")],
        tokenizer=TOKENIZER,
        sequence_length=LENGTH,
        work_dir=str(tmp_path / "work"),
    )
    dataset = config.build()
    dataset.prepare()
    theirs = np.concatenate([dataset[i]["input_ids"].numpy() for i in range(len(dataset))])
    np.testing.assert_array_equal(theirs, np.arange(600 // LENGTH * LENGTH))
    write_tokens(tmp_path / "code.npy", 1, 50)
    ours = open_token_file(tmp_path / "code.npy", vocab_size=1000)
    assert len(ours) == 50
