"""What columns mean is guessed where names or sums leave no doubt, and asked where they do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mixlaw.errors import RunTableError
from mixlaw.interop import Columns, Hints
from mixlaw.interop.frame import Frame, packed
from mixlaw.interop.guess import guess
from mixlaw.interop.logged import LoggedRun, Series

MIXTURES = [(0.2, 0.5, 0.3), (0.6, 0.1, 0.3), (0.25, 0.25, 0.5), (1.0, 0.0, 0.0)]


def frame(**columns: list[Any]) -> Frame:
    return Frame.of_table({name: packed(cells) for name, cells in columns.items()}, "runs.csv")


def shares(pattern: str, factor: float = 1.0) -> dict[str, list[float]]:
    """Columns of three domains."""
    names = ("web", "code", "my_books")
    return {
        pattern.replace("*", name): [row[j] * factor for row in MIXTURES]
        for j, name in enumerate(names)
    }


LOSS = {"loss/web": [3.0, 2.9, 2.8, 3.1]}


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "weight/*",
            "mixture_*",
            "mixture.*",
            "r_*",
            "w_*",
            "config.mixture.*",
            "train_weights/*",
        ),
        *(
            "data.*.weight",
            "config.data.*.weight",
            "ratio/*",
            "*_share",
            "config.data_mix.weights.*",
        ),
        *("proportions.*", "train_*", "p_*", "mix-*"),
        *("share of *", "Fraction of *", "% of *", "share_of_*"),
    ],
)
@pytest.mark.parametrize(("factor", "unit"), [(1.0, "shares"), (100.0, "percent")])
def test_mixtures_are_found_by_name(pattern, factor, unit):
    others = {"lr": [0.1, 0.2, 0.1, 0.2], "config.warmup": [0.25, 0.75, 0.5, 0.5]}
    found = guess(frame(**others, **shares(pattern, factor), **LOSS))
    assert found.mixture == {n: pattern.replace("*", n) for n in ("web", "code", "my_books")}
    assert found.unit == unit


def test_mixtures_are_found_by_their_sums():
    found = guess(frame(width=[1, 2, 3, 4], **shares("*"), dropout=[0.1, 0.1, 0.2, 0.1], **LOSS))
    assert found.mixture == {n: n for n in ("web", "code", "my_books")}


def test_several_possible_mixtures_are_asked_about():
    columns = {**shares("mixture.*"), **shares("blend.*")}
    columns["blend.web"] = columns["blend.web"][::-1]
    columns["blend.code"] = columns["blend.code"][::-1]
    columns["blend.my_books"] = columns["blend.my_books"][::-1]
    with pytest.raises(RunTableError, match=r"'mixture\.\*' or in 'blend\.\*'.*--mixture"):
        guess(frame(**columns, **LOSS))
    found = guess(frame(**columns, **LOSS), Hints(mixture="blend.*"))
    assert found.mixture == {n: f"blend.{n}" for n in ("web", "code", "my_books")}


def test_the_same_mixture_twice_is_no_question():
    found = guess(frame(**shares("mixture.*"), **shares("r_*"), r_sum=[1.0] * 4, **LOSS))
    assert list(found.mixture.values()) == ["mixture.web", "mixture.code", "mixture.my_books"]


def test_a_mixture_may_be_listed():
    columns = {**shares("*"), "acc": [0.3, 0.4, 0.5, 0.6], "err": [0.7, 0.6, 0.5, 0.4], **LOSS}
    with pytest.raises(RunTableError, match=r"'web, code, my_books' or in 'acc, err'"):
        guess(frame(**columns))
    found = guess(frame(**columns), Hints(mixture="web, code, my_books"))
    assert found.mixture == {n: n for n in ("web", "code", "my_books")}


def test_relative_weights_are_offered_and_taken_where_the_user_says_so():
    with pytest.raises(RunTableError, match=r"w_\* sum to between 7 and 7;.*--unit relative"):
        guess(frame(**shares("w_*", 7), **LOSS))
    found = guess(frame(**shares("w_*", 7), **LOSS), Hints(unit="relative"))
    assert list(found.mixture) == ["web", "code", "my_books"]
    assert found.unit == "relative"


def test_no_mixture_shows_the_columns():
    with pytest.raises(RunTableError, match=r"--mixture.*There are lr, width"):
        guess(frame(lr=[0.1, 0.2], width=[1, 2], **{"loss/web": [3.0, 2.0]}))


@pytest.mark.parametrize(
    "cells",
    [
        [[0.3, "/d/web_text_document", 0.7, "/d/code_text_document"]] * 2,
        ["[0.3, '/d/web_text_document', 0.7, '/d/code_text_document']"] * 2,
        ["0.3 /d/web_text_document 0.7 /d/code_text_document"] * 2,
        ['["30", "/d/web_text_document", "70", "/d/code_text_document"]'] * 2,
        [[["/d/web", "/d/code"], [0.3, 0.7]]] * 2,
        [
            [
                {"source_name": "web", "target_ratio": 0.3},
                {"source_name": "code", "target_ratio": 0.7},
            ]
        ]
        * 2,
    ],
)
def test_one_column_may_hold_the_mixture(cells):
    found = guess(frame(data_path=cells, **{"loss/web": [3.0, 2.0]}))
    assert found.mixture == "data_path"


@pytest.mark.parametrize(
    ("column", "target"),
    [
        *(("loss/web", "loss/web"), ("loss_web", "loss/web"), ("web_loss", "loss/web")),
        *(("eval/web/loss", "loss/web"), ("eval.web.loss", "loss/web"), ("web.loss", "loss/web")),
        *(("val_loss_web", "loss/web"), ("web_val_loss", "loss/web"), ("bpb.web", "bpb/web")),
        *(("hellaswag_acc", "score/hellaswag/acc"), ("val_loss", "loss/validation")),
        *(("metrics.loss/web", "loss/web"), ("results.eval.web.loss", "loss/web")),
        *(("loss", "loss/validation"), ("eval/lm/c4/CE loss", "loss/c4")),
    ],
)
def test_targets_are_found_by_name(column, target):
    found = guess(frame(**shares("w_*"), train_loss=[3.0] * 4, **{column: [3.0, 2.9, 2.8, 3.1]}))
    assert found.targets == {target: column}


@pytest.mark.parametrize("column", ["ppl_web", "web_ppl", "eval/lm/web/PPL", "web_perplexity"])
def test_perplexities_are_read_as_logarithms(column):
    found = guess(frame(**shares("w_*"), **{column: [30.0, 29.0, 28.0, 31.0]}))
    assert found.targets == {"loss/web": f"log({column})"}
    both = {column: [30.0] * 4, "loss/web": [3.4] * 4}
    assert guess(frame(**shares("w_*"), **both)).targets == {"loss/web": "loss/web"}


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("m.*.x=loss/*", {"loss/web": "m.web.x", "loss/code": "m.code.x"}),
        ("m.web.x=score/fun", {"score/fun": "m.web.x"}),
        ("loss/*2", {"loss/w2": "loss/w2"}),
        ("loss/w2", {"loss/w2": "loss/w2"}),
        ("web_ppl=loss/web", {"loss/web": "log(web_ppl)"}),
    ],
)
def test_targets_as_the_user_says(hint, expected):
    columns = {"m.web.x": [1.0] * 4, "m.code.x": [2.0] * 4, "loss/w2": [3.0] * 4}
    columns["web_ppl"] = [9.0] * 4
    assert guess(frame(**shares("w_*"), **columns), Hints(targets=(hint,))).targets == expected


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        (Hints(targets=("m.weq.x=loss/a",)), r"no column 'm\.weq\.x'.*did you mean 'm\.web\.x'"),
        (Hints(targets=("m.web.x=web",)), r"'web' is no target; it must be one of loss/<name>"),
        (Hints(targets=("m.web.x",)), r"not clear which target.*--target 'm\.web\.x=loss/<name>'"),
        (Hints(targets=("m.*.x=loss/a",)), r"makes loss/a of both.*put a \*"),
        (Hints(mixture="wieght_*"), "no column 'wieght_\\*'"),
        (Hints(run="rum"), "no column 'rum' for the runs; did you mean 'run'"),
        (Hints(num_params="prams"), "no column 'prams' for num_params"),
        (Hints(seed="NA"), "no column 'NA' for seed"),
        (Hints(rename={"wob": "x"}), "--rename wob=.*did you mean 'web'"),
        (Hints(rename={"web": "code"}), "--rename makes 'code' of both"),
        (Hints(unit="grams"), "unit is 'grams'"),
    ],
)
def test_a_wrong_hint_is_named(hints, message):
    columns = {"run": [1, 2, 3, 4], "m.web.x": [1.0] * 4, "m.code.x": [2.0] * 4, **LOSS}
    with pytest.raises(RunTableError, match=message):
        guess(frame(**shares("w_*"), **columns), hints)


def test_no_target_lists_what_there_is():
    with pytest.raises(RunTableError, match=r"--target.*There are w_web.*speed"):
        guess(frame(**shares("w_*"), speed=[1.0] * 4, train_loss=[3.0] * 4))


def test_counts_by_their_names_and_as_numbers():
    columns = {"run_id": list("abcd"), "nParams": ["30M"] * 4, "tokens_seen": [10, 20, 30, 40]}
    columns |= {"config.seed": [1, 2, 3, 4], **LOSS}
    found = guess(frame(**shares("w_*"), **columns))
    assert (found.run, found.num_params, found.train_tokens) == ("run_id", "nParams", "tokens_seen")
    assert found.seed == "config.seed"
    said = guess(frame(**shares("w_*"), **columns), Hints(num_params="1e6", train_tokens=5.0))
    assert (said.num_params, said.train_tokens) == (1e6, 5.0)


def test_a_size_is_of_a_model_where_it_says_so():
    texts = {"size": ["30M"] * 4, **LOSS}
    assert guess(frame(**shares("w_*"), **texts)).num_params == "size"
    numbers = {"config.batch.size": [256] * 4, "size": [3] * 4, **LOSS}
    assert guess(frame(**shares("w_*"), **numbers)).num_params is None


def test_tokens_per_step_as_said_go_before_a_guess():
    columns = {"step": [1, 2, 3, 4], "tokens": [1, 2, 3, 4], **LOSS}
    assert guess(frame(**shares("w_*"), **columns)).tokens_per_step is None
    found = guess(frame(**shares("w_*"), **columns), Hints(tokens_per_step=100))
    assert (found.train_tokens, found.tokens_per_step, found.step) == (None, 100, "step")


def test_runs_that_are_numbered_anew_in_each_split():
    columns = {"split": ["a", "a", "b", "b"], "run": [1, 2, 1, 2]}
    assert guess(frame(**columns, **shares("w_*"), **LOSS)).run == "split+run"


def test_checkpoints_without_a_run_column():
    two = {
        f"w_{name}": cells[:2] * 2
        for name, cells in zip("ab", ([0.3, 0.4], [0.7, 0.6]), strict=True)
    }
    columns = {
        "mixture": ["m0", "m1"] * 2,
        "size": ["S"] * 4,
        "tokens": [1, 1, 2, 2],
        **two,
        **LOSS,
    }
    found = guess(frame(**columns))
    assert found.run == "mixture"
    assert found.checkpoints == "all"


def test_rows_without_any_name_are_runs_of_their_own():
    assert guess(frame(**shares("w_*"), **LOSS)).run is None


def test_renames_of_domains_and_targets():
    found = guess(
        frame(**shares("w_*"), **LOSS, **{"loss/x": [1.0] * 4}),
        Hints(rename={"web": "crawl", "loss/x": "loss/y"}),
    )
    assert found.mixture["crawl"] == "w_web"
    assert found.targets == {"loss/crawl": "loss/web", "loss/y": "loss/x"}


def test_logged_runs_are_guessed_from_settings_and_series():
    series = {
        "eval/web/loss": Series(np.array([10.0, 20.0]), np.array([3.0, 2.5])),
        "train/loss": Series(np.array([20.0]), np.array([2.0])),
        "throughput/total_tokens": Series(np.array([20.0]), np.array([2e6])),
    }
    settings = {"config.mixture.web": 0.4, "config.mixture.code": 0.6, "config.num_params": 1e6}
    settings["summary.eval/web/loss"] = 2.5
    found = guess([LoggedRun("a", "a", settings, series)])
    assert found.mixture == {"web": "config.mixture.web", "code": "config.mixture.code"}
    assert found.targets == {"loss/web": "eval/web/loss"}
    assert found.train_tokens == "throughput/total_tokens"
    assert found.run is None
    assert found.checkpoints == "last"


def test_planned_runs_need_no_mixture():
    found = guess([LoggedRun("a", "a", {"eval/web/loss": 3.0})], planned=True)
    assert found.mixture == {}
    assert Columns.from_dict(found.to_dict()) == found


def test_a_guess_is_explained_and_survives_a_file():
    found = guess(frame(**shares("w_*"), run=list("abcd"), **LOSS), Hints(seed=3))
    assert ("w_web", "share of web") in found.meanings()
    assert ("loss/web", "target loss/web") in found.meanings()
    assert ("run", "run") in found.meanings()
    assert Columns.from_dict(found.to_dict()) == found


@pytest.mark.parametrize(
    ("columns", "mixture"),
    [
        (  # a domain of a share that rounding would explain, too
            {"web": [0.5, 0.3, 0.2], "code": [0.499, 0.698, 0.799], "math": [0.001, 0.002, 0.001]},
            ["web", "code", "math"],
        ),
        (  # one without any share
            {"web": [0.5, 0.3, 0.2], "code": [0.5, 0.7, 0.8], "math": [0.0, 0.0, 0.0]},
            ["web", "code", "math"],
        ),
        ({"web": [0.5, 0.3, 0.2], "lr": [3e-4] * 3, "code": [0.5, 0.7, 0.8]}, ["web", "code"]),
        ({"eta": [3e-4] * 3, "web": [0.5, 0.3, 0.2], "code": [0.5, 0.7, 0.8]}, ["web", "code"]),
        ({"web": [0.5, 0.3, 0.2], "eta": [3e-4] * 3, "code": [0.5, 0.7, 0.8]}, ["web", "code"]),
    ],
)
def test_sums_take_all_domains_and_no_setting(columns, mixture):
    found = guess(frame(**columns, **{"loss/web": [3.0, 2.9, 2.8]}))
    assert list(found.mixture) == mixture


def test_a_constant_that_may_be_a_share_is_asked_about():
    columns = {"eta": [3e-4] * 3, "web": [0.501, 0.3, 0.2], "code": [0.5, 0.7, 0.8]}
    with pytest.raises(RunTableError, match=r"'eta, web, code' or in 'web, code'.*--mixture"):
        guess(frame(**columns, **{"loss/web": [3.0, 2.9, 2.8]}))


def test_thousands_of_plain_domains_are_one_mixture():
    shares = np.random.default_rng(0).dirichlet(np.ones(3000), size=20).round(9)
    columns = {f"d{j}": list(shares[:, j]) for j in range(3000)}
    assert len(guess(frame(**columns, **{"loss/web": [3.0] * 20})).mixture) == 3000


@pytest.mark.parametrize("decay", [0.1, 0.001])
def test_weight_decay_is_no_domain(decay):
    columns = {"weight_web": [0.5, 0.4], "weight_code": [0.5, 0.6], "weight_decay": [decay] * 2}
    assert set(guess(frame(**columns, **{"loss/web": [3.0, 2.0]})).mixture) == {"web", "code"}


@pytest.mark.parametrize(
    "column",
    [
        *("loss_scale", "z_loss", "aux_loss", "loss_std", "score_std", "final_loss", "train_loss"),
        *("my_train_loss", "web_train_loss", "training loss", "training/accuracy", "reward/acc"),
        *("batch/accuracy", "error_rate", "val_loss_step"),
    ],
)
def test_what_is_no_target_by_its_name(column):
    columns = {**shares("w_*"), **LOSS, column: [3.0, 2.9, 2.8, 3.1]}
    assert guess(frame(**columns)).targets == {"loss/web": "loss/web"}


def test_two_columns_for_one_target_are_named():
    columns = {**shares("w_*"), "eval/web-val/loss": [3.0] * 4, "eval/web/loss": [2.0] * 4}
    with pytest.raises(RunTableError, match=r"'eval/web-val/loss' and 'eval/web/loss' are both"):
        guess(frame(**columns))
    said = guess(frame(**columns), Hints(targets=("eval/web/loss=loss/web",)))
    assert said.targets == {"loss/web": "eval/web/loss"}
    both = Hints(targets=("eval/web/loss=loss/x", "eval/web-val/loss=loss/x"))
    with pytest.raises(RunTableError, match="--target makes loss/x of both"):
        guess(frame(**columns), both)
    columns["eval/web-val/loss"] = columns["eval/web/loss"]
    assert guess(frame(**columns)).targets == {"loss/web": "eval/web-val/loss"}


@pytest.mark.parametrize(("column", "target"), [("Loss/web", "web"), ("Val Loss", "validation")])
def test_capitals_make_no_difference(column, target):
    found = guess(frame(**shares("w_*"), **{column: [3.0, 2.9, 2.8, 3.1]}))
    assert found.targets == {f"loss/{target}": column}


def test_domains_of_a_run_table_may_be_called_as_metrics():
    columns = {"weight/loss": [0.5, 0.4], "weight/train": [0.5, 0.6], "loss/train": [3.0, 2.0]}
    found = guess(frame(**columns))
    assert set(found.mixture) == {"loss", "train"}
    assert found.targets == {"loss/train": "loss/train"}


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("tokens", ["100", "oops", "300", "400"], r"row 2: tokens is 'oops'"),
        ("run", ["a", None, "b", "c"], r"row 2: run is empty"),
        ("weight/", [0.0] * 4, "names no domain"),
    ],
)
def test_a_cell_that_would_be_ignored_is_an_error(column, cells, message):
    with pytest.raises(RunTableError, match=message):
        guess(frame(**shares("w_*"), **LOSS, **{column: cells}))


@pytest.mark.parametrize("hints", [Hints(num_params=0.0), Hints(train_tokens=float("nan"))])
def test_a_number_that_is_none_is_no_hint(hints):
    with pytest.raises(RunTableError, match="must be a number above 0, or a column"):
        guess(frame(**shares("w_*"), **LOSS), hints)


def test_hints_read_counts_and_common_beginnings():
    columns = {f"weight/{name}": cells for name, cells in shares("*").items()}
    listed = Hints(num_params="30M", mixture="weight/web,weight/code,weight/my_books")
    found = guess(frame(**columns, **LOSS), listed)
    assert found.num_params == 3e7
    assert list(found.mixture) == ["web", "code", "my_books"]


def test_a_target_without_numbers_is_named():
    runs = [LoggedRun("a", "a", {"config.mixture.web": 0.4, "eval/web/loss": float("nan")})]
    with pytest.raises(RunTableError, match="eval/web/loss hold no number"):
        guess(runs, planned=True)
