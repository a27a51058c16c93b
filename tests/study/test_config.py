"""What a study file may not say, and how it is told."""

from __future__ import annotations

from importlib.resources import files

import pytest

from mixlaw.errors import StudyError
from mixlaw.study import load_config

GOOD = """\
domains: {web: {paths: [a]}, code: {paths: [b]}}
sizes: {s: {width: 32, layers: 2}, m: {width: 48, layers: 2}}
training: {sizes: [s], horizon_steps: [10, 20], warmup_steps: 4}
objective: {bpb/web: 1}
target: {size: m, train_tokens: 5e5}
"""


def load(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_a_good_file_loads_with_counts_in_any_notation(tmp_path):
    assert load(tmp_path, GOOD).target.train_tokens == 500_000
    text = GOOD.replace("5e5", "500_000")
    assert load(tmp_path, text).target.train_tokens == 500_000


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("paths: [a]", "pathes: [a]", r"'domains.web.pathes'; did you mean 'paths'"),
        ("objective:", "objectiv: {}\nobjective:", r"'objectiv'; did you mean 'objective'"),
        ("layers: 2}, m", "layer: 2}, m", r"'sizes.s.layer'; did you mean 'layers'"),
        ("horizon_steps: [10", "steps: [10", r"training.horizon_steps: Field required"),
        ("[10, 20]", "[20, 10]", r"must ascend"),
        ("width: 32", "width: 30", r"width is 30 and head width 16; .*multiple"),
        ("sizes: [s]", "sizes: [xl]", r"'xl' is not among sizes"),
        ("{web: {paths: [a]}", "{web: {}", r"'web' needs one of paths, environment, tokens"),
        ("bpb/web: 1", "bpb/web: -1", r"objective.*bpb/web.*greater than 0.*-1"),
        ("bpb/web: 1", "bpb/web: .nan", r"objective.*bpb/web"),
        ("{bpb/web: 1}", "{}", r"objective"),
        ("size: m", "size: m, num_params: 5", r"either size or num_params"),
        ("domains: {web", "seed: -1\ndomains: {web", r"seed.*-1"),
        ("target:", "constraints: {upper: {web: 1.5}}\ntarget:", r"constraints.upper.web.*1.5"),
        ("target:", "validation_only: {web: {paths: [c]}}\ntarget:", r"\['web'\] stand in both"),
        ("code: {paths", "web: {paths", r"line 1: 'web' is named twice"),
        ("objective: {bpb/web: 1}", "objective: [", r"not valid YAML"),
        ("target:", "verify: {horizon_steps: [20, 5, 10]}\ntarget:", r"\[20, 5, 10\]; they must"),
        ("sizes: [s]", "sizes: [s, s]", r"name each once"),
        ("layers: 2}, m", "layers: 2, learning_rate: .inf}, m", r"learning_rate.*finite"),
        ("objective:", "? [1, 2]\n: 3\nobjective:", r"cannot be a name"),
        ("domains:", "table: runs.csv\ndomains:", r"\['domains.code.paths'.*would do nothing"),
        ("target:", "tokenizer: {kind: bpe}\ntarget:", r"needs vocab_size"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(StudyError, match=message):
        load(tmp_path, GOOD.replace(old, new))


def test_every_problem_is_told_at_once(tmp_path):
    text = GOOD.replace("paths: [a]", "pathes: [a]").replace("width: 32", "width: -3")
    with pytest.raises(StudyError, match=r"pathes.*; .*width"):
        load(tmp_path, text)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(StudyError, match="mixlaw init"):
        load_config(tmp_path / "study.yaml")


def test_yaml_is_data_never_code(tmp_path):
    text = GOOD + "seed: !!python/object/apply:os.system ['touch /tmp/pwned']\n"
    with pytest.raises(StudyError, match="not valid YAML"):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["study.yaml", "demo.yaml", "demo-short.yaml"])
def test_the_shipped_files_are_valid(tmp_path, name):
    text = (files("mixlaw.study") / "templates" / name).read_text(encoding="utf-8")
    assert load(tmp_path, text).training is not None
