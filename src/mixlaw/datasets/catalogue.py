"""The tables that have a name; each is described here, once, and read by the layout beside it.

Commits are those of which the files were read. Checksums were computed from the Parquet tables that
were made of them; a table has the same one from either place.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mixlaw.datasets.about import Info
from mixlaw.datasets.layouts import Layout
from mixlaw.datasets.mixinglaws import PileShares, Suite
from mixlaw.datasets.pairs import Olmix, RegMix, Tasks
from mixlaw.datasets.scales import Dmsl, TinyEnv
from mixlaw.errors import RunTableError


@dataclass(frozen=True)
class Entry:
    """A table: what it is, and how it is read.

    Attributes:
        pile_shares: whether its targets have weights in the overall Pile loss.
    """

    info: Info
    layout: Layout
    pile_shares: bool = False


NATS = "nats per token"
BITS = "bits per byte of the right answer; lower is better"
NO_LICENCE = "none stated in the repository"


def _suite(
    name: str,
    title: str,
    layout: Suite,
    checksum: str,
    *notes: str,
    left_out: str = "",
) -> Entry:
    folder = {"redpajama": "RedPajama", "ct": "ct"}.get(name, name.replace("mix", "Mix"))
    files = (f"{MIXINGLAWS}/data/{folder}/{model}.txt" for model in layout.models)
    info = Info(
        name=f"mixinglaws/{name}",
        title=title,
        paper=DATA_MIXING_LAWS,
        repository="yegcjs/mixinglaws",
        files=tuple(files),
        licence=NO_LICENCE,
        rows="a run at a step; runs are called as by the authors, with the model before it; the "
        "label is that of the mixture, the same at every size",
        unit=NATS + " (inferred from their size)",
        left_out=left_out,
        oddities=notes,
        local=f"mixinglaws/{folder}.parquet",
        checksum=checksum,
    )
    return Entry(info, layout, pile_shares=name in ("5mix", "redpajama", "ct"))


MIXINGLAWS = "8ad3e1244b53294ded55a96ae325f4112ce3bc63"
DATA_MIXING_LAWS = "Ye et al., Data Mixing Laws, arXiv 2403.16952"
TOKENS = "tokens are steps times 1,048,576, the authors' batch of 4096 x 256"
MID_SCHEDULE = (
    "the learning rate falls until step 100,000: losses at 30,000 steps are read before most of "
    "the decay"
)

SUITES = (
    _suite(
        "2mix",
        "70M and 160M, five mixtures of Github and Pile-CC",
        Suite(("70M", "160M"), ("github", "pile_cc")),
        "41395678b564518f1eccf83922a540f584a6ef513fab0579d316610b93e818be",
        TOKENS,
    ),
    _suite(
        "3mix",
        "70M, 160M and 410M, mixtures of Github, Books3 and Pile-CC",
        Suite(("70M", "160M", "410M"), ("github", "books3", "pile_cc"), tokens_per_step=None),
        "073ddedaaeedd96a4f81abe7b395a0c15310428ff3e727b463147f5ad57b72fd",
        "train_tokens is unknown (losses are higher than in 2mix at the same step, so a step is "
        "not the same); the label names the step: '13 at step 30000', or 'at step last'",
        "410M: 32 mixtures at step 60,000, eight of them at 30,000 with Github only",
        "28 rows lack a target",
    ),
    _suite(
        "5mix",
        "70M to 1B, 26 mixtures of five groups of the Pile, 22 validation sets",
        Suite(
            ("70M", "160M", "305M", "410M", "1B"),
            ("academic", "prose", "dialogue", "symbolic", "internet"),
        ),
        "9103cce1c3b20d74e7d0b87b35a468b03c817172313926693649f0bebdd593d3",
        TOKENS,
        MID_SCHEDULE,
        "past 30,000 steps there are only the 1B runs and a few at 70M and 160M",
        "five rows of 70M_3 have 4 or 5 of the 22 targets",
    ),
    _suite(
        "redpajama",
        "70M to 410M, mixtures of the seven sources of RedPajama, 22 validation sets of the Pile",
        Suite(
            ("70M", "160M", "305M", "410M"),
            ("commoncrawl", "c4", "github", "arxiv", "books", "stackexchange", "wikipedia"),
        ),
        "8bd4aac4a2bb7ed239e422da474170351a5c3d916bdc89c678d80f561df43782",
        TOKENS,
        MID_SCHEDULE,
        "which share is whose is not in the source: arXiv, Books, StackExchange and Wikipedia are "
        "inferred from the losses, CommonCrawl and C4 from the default mixture",
        "the default mixture (label 999) sums to 1.0199 as written: its c4, .168375, is taken for "
        "a typo of .1484375; its last four shares are uncertain by about .02",
        left_out="the 1B runs, whose values have no checksum here",
    ),
    _suite(
        "ct",
        "Pythia 70M continued on five mixtures of the Pile and Python code, 23 validation sets",
        Suite(("70M",), ("pile", "python")),
        "312516aa4f622527b157afbfd930949385b68eabd871cb53129f56fcf8dc9c3a",
        "tokens are those of continuing, with 1,048,576 a step (inferred: 10,000 steps are the "
        "paper's 10 billion)",
        "`start` has the losses of the model that was continued",
    ),
)

PILE_SHARES = Entry(
    Info(
        name="mixinglaws/valid-weight",
        title="weight of each part of the Pile in its overall validation loss",
        paper=DATA_MIXING_LAWS,
        repository="yegcjs/mixinglaws",
        files=(f"{MIXINGLAWS}/pipeline/valid_weight.json",),
        licence=NO_LICENCE,
        rows="one",
        unit="share",
        left_out="",
        oddities=(),
        local="mixinglaws/valid_weight.parquet",
        checksum="4baac81680765e8464e9f978f624d8712593b764d969751cb383df2aa9cd9957",
    ),
    PileShares(),
)
"""No table of runs; see `mixlaw.datasets.target_weights`."""

REGMIX, REGMIX_FIRST = (
    "b004d3a3f39846dcec6b3740da22bcd1ba95a5d0",
    "7d422e90983a9f54ebdeb83b5155a286f5ec7fc3",
)
REGMIX_FILES = {
    "train_1m": (
        f"{REGMIX}/data/train_mixture_1m.csv",
        f"{REGMIX}/data/train_pile_loss_1m.csv",
    ),
    "test_1m": (f"{REGMIX}/data/test_mixture_1m.csv", f"{REGMIX}/data/test_pile_loss_1m.csv"),
    "extra_1m": (
        f"{REGMIX_FIRST}/data/pile/tiny_config_1M_pile.csv",
        f"{REGMIX_FIRST}/data/pile/tiny_wandb_1M_1000_pile_4B.csv",
    ),
}


def _regmix(name: str, title: str, splits: tuple[str, ...], checksum: str) -> Entry:
    info = Info(
        name=name,
        title=title,
        paper="Liu et al., RegMix, arXiv 2407.01492",
        repository="sail-sg/regmix",
        files=tuple(file for split in splits for file in REGMIX_FILES[split]),
        licence="MIT",
        rows="a run; label: train-1m, test-1m or extra-1m",
        unit=NATS,
        left_out="the 60M and 1B runs, whose values have no checksum here",
        oddities=(
            "shares are rounded to three decimals (rows sum to .996 to 1.003 and are rescaled); "
            "45 % are zero",
            "nih_exporter, philpapers, enron_emails and europarl are trained on, and not measured",
            "1M parameters is what the source calls the model",
            "tokens of extra-1m are not stated (its file's name says 4B)",
            "RegMix's own notebook stops its trees early on test-1m",
        ),
        local="regmix_pile/runs.parquet",
        checksum=checksum,
    )
    return Entry(info, RegMix(splits))


REGMIXES = (
    _regmix(
        "regmix",
        "1M-parameter runs on 17 domains of the Pile, 13 targets: 512 to learn from, 256 to test "
        "on and 488 more",
        ("train_1m", "test_1m", "extra_1m"),
        "2dec970343a93ec1a077508e527493e6f1e1d85e56ae9e2c925a9b53a226ced2",
    ),
    _regmix(
        "regmix/train-1m",
        "RegMix's 512 runs to learn from",
        ("train_1m",),
        "61019fd354008dea262a6bfb6c04148583d4ac0f53ff118f3165058573e9e4fc",
    ),
    _regmix(
        "regmix/test-1m",
        "RegMix's 256 runs to test on",
        ("test_1m",),
        "361bcaa33b09ff979f4054c95958b4399e2d57bf2c8c6a18005ea774b7c4c125",
    ),
    _regmix(
        "regmix/extra-1m",
        "488 runs of RegMix's first commit",
        ("extra_1m",),
        "94af01e437c317eb303b5dcc0964a6cc39f3d3f7bfba31cb1375ab698d468ed1",
    ),
)

GRAPE, GRAPE_TRAIN = (
    "ee8a96f0e7922ca1f21318959eede87b767d5c28",
    "7b8ee782df8adcaf7de72ece4b0a43e7b8e6c394",
)
TASK_FILES = {
    "train": (
        f"{GRAPE}/misc/regmix/data/redpj/train_mixture_1m.csv",
        f"{GRAPE_TRAIN}/misc/regmix/data/train_loss_1m.csv",
    ),
    "test": (
        f"{GRAPE}/misc/regmix/data/redpj/test_mixture_1m.csv",
        f"{GRAPE}/misc/regmix/data/redpj/test_loss_1m.csv",
    ),
}


def _tasks(name: str, title: str, splits: tuple[str, ...], checksum: str) -> Entry:
    info = Info(
        name=name,
        title=title,
        paper="Fan et al., GRAPE, arXiv 2505.20380",
        repository="Olivia-fsm/multi-target-data-mixing",
        files=tuple(file for split in splits for file in TASK_FILES[split]),
        licence=NO_LICENCE,
        rows="a run; label: train or test",
        unit=NATS,
        left_out="runs on other domains or with other targets elsewhere in its history",
        oddities=(
            "about 1M parameters; neither their number nor the tokens are stated",
            "no target is a domain's own, not even task_commoncrawl by its name",
            "the files are in the repository's history, not in its newest commit",
        ),
        local="grape_regmix_1m/slimpajama_tasks.parquet",
        checksum=checksum,
    )
    return Entry(info, Tasks(splits))


TASKS = (
    _tasks(
        "slimpajama-tasks",
        "1M-parameter runs on seven domains of SlimPajama, 11 targets, most of them tasks: 512 to "
        "learn from and 256 to test on",
        ("train", "test"),
        "6cd7eed5954683e042cafb8b17e26b3ff37f853cee7dec46164b53b13cdaa79a",
    ),
    _tasks(
        "slimpajama-tasks/train",
        "the 512 runs to learn from",
        ("train",),
        "d4075dfe8fa327daff83c797a935d58488ae8fac2d62e1c46af05be826499f66",
    ),
    _tasks(
        "slimpajama-tasks/test",
        "the 256 runs to test on",
        ("test",),
        "8aa076024b6b0164bcb39f116a72e3fe81983359b47903c8daebe8641029c828",
    ),
)

DMSL = Entry(
    Info(
        name="dmsl-slimpajama",
        title="122M, 310M (60 mixtures each), 680M and 937M (40), seven domains of SlimPajama, 11 "
        "checkpoints, 8 targets",
        paper="Scaling Laws for Optimal Data Mixtures, arXiv 2507.09404",
        repository="meiqwq/Explaining-Data-Mixing-Scaling-Laws",
        files=("c2bf1106e8e54b8d368cd6de2515d4804f1c8a36/data/dmsl_llm_slimpajama.csv",),
        licence=NO_LICENCE + "; the file is also in apple/ml-scalefit, which has its own licence",
        rows="a run at a checkpoint; runs are called <mixture>-<size>, the label is the mixture",
        unit=NATS,
        left_out="larger models, whose values have no checksum here",
        oddities=(
            "the last two checkpoints are nearly the same step (19.998 and 20 billion tokens)",
            "16 losses are missing, at 310M",
            "every share is .02 or more",
            "sizes are as the source has them; whether they count embeddings is not stated",
        ),
        local="dmsl_slimpajama/runs.parquet",
        checksum="0d77477b5e354a8a751fdd0d260feeba2b69d1c0a82cbb85ce57a99581b32492",
    ),
    Dmsl(),
)


def _olmix(name: str, title: str, stem: str, local: str, checksum: str) -> Entry:
    commit = "b98f5e39f261518c2f20d52863b6ee5b4f26fad0"
    info = Info(
        name=name,
        title=title,
        paper="Chen et al., Olmix, arXiv 2602.12237",
        repository="allenai/olmix",
        files=(f"{commit}/{stem}_ratios.csv", f"{commit}/{stem}_metrics.csv"),
        licence="Apache-2.0",
        rows="a run, called by its W&B id; the label is its W&B name",
        unit=BITS,
        left_out="other swarms of its history",
        oddities=(
            "30M parameters and 3 billion tokens are inferred from the names (5xC-30m)",
            "57 targets are single subjects of MMLU; basic_skills is an aggregate of six others",
            "the next commit took the files out of the repository",
        ),
        local=f"olmix_swarms/{local}.parquet",
        checksum=checksum,
    )
    return Entry(info, Olmix())


OLMIXES = (
    _olmix(
        "olmix/dclm",
        "127 runs of 30M parameters on 24 topics of DCLM, 110 tasks; 86 % of the shares are zero",
        "dclm",
        "dclm_swarm",
        "b9c83d6d73d6da8a0fc250d00846269dce2a1f91cff8a763fd62bb87c7c6a24a",
    ),
    _olmix(
        "olmix/full-reuse",
        "64 runs of 30M parameters on 21 topics of PDFs and the earlier mixture as one domain",
        "full_reuse_update_5_seed_0",
        "full_reuse_update5_seed0",
        "7441b31ddd85fe9f12b9950590783184c7b3c9fa9cd4efe664e8bcd671cb3ada",
    ),
)

TINY_ENV = Entry(
    Info(
        name="tiny-env",
        title="mixlaw's own swarm on the text of a Python environment: 20 to 440 thousand "
        "parameters, five domains, seven targets",
        paper="",
        repository="",
        files=(),
        licence="own measurements, free to use",
        rows="a run at a horizon, after its decay; runs are called <size>-<mixture>-<seed>, the "
        "label is the mixture: m0 to m31, uni(form) or nat(ural)",
        unit="nats per byte",
        left_out="",
        oddities=(
            "hosted nowhere: read from the folder of MIXLAW_DATA only",
            "horizons of one mixture share their trunk, mixtures of one seed share initial weights "
            "and the order of each domain's data",
            "cython and stubs were never trained on",
        ),
        local="tiny_env_swarm/runs.parquet",
        checksum="c86f11f8ae9626eabeea4ed5de948b49b9fa924ea8f0c763969ac710f98c4b5a",
    ),
    TinyEnv(),
)

ENTRIES = {
    entry.info.name: entry for entry in (*SUITES, *REGMIXES, *TASKS, DMSL, *OLMIXES, TINY_ENV)
}


def find(name: str) -> Entry:
    """Raises: RunTableError: no table of this name; names the nearest."""
    if name in ENTRIES:
        return ENTRIES[name]
    alike = {known.rpartition("/")[2]: known for known in ENTRIES} | {k: k for k in ENTRIES}
    near = difflib.get_close_matches(name.lower(), alike, n=1, cutoff=0.5)
    hint = f"did you mean {alike[near[0]]!r}? " if near else ""
    raise RunTableError(f"no published table {name!r}; {hint}known are {', '.join(ENTRIES)}")
