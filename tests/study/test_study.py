"""The steps of a study: resumable, idempotent, honest about edits and failures."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mixlaw.errors import CorpusError, DesignError, FitError, InfeasibleError, StudyError
from mixlaw.files import read_json
from mixlaw.mixture import Mixture
from mixlaw.runs import FAILED, RunResult, RunTable
from mixlaw.study import Scale, Study

pytest.importorskip("torch", reason="training needs torch")


def edit(folder, old, new):
    path = folder / "study.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_swarm_is_what_was_asked_for(trained_folder):
    runs = Study(trained_folder).runs()
    assert len(set(runs.label)) == 8
    assert set(runs.num_params) == {3072, 6144}
    assert sorted(set(runs.train_tokens)) == [320, 640, 1280]
    assert len(runs) == (8 + 2) * 2 * 3
    assert set(runs.targets) == {
        f"{m}/{d}" for m in ("loss", "bpb") for d in Study(trained_folder).corpus().targets
    }
    assert np.isfinite(runs.values).all()
    # Bytes are the tokens here, so bits per byte are nats per token over ln 2.
    np.testing.assert_allclose(runs.column("bpb/abc"), runs.column("loss/abc") / np.log(2))


def test_replicates_differ_and_share_their_mixture(trained_folder):
    runs = Study(trained_folder).runs()
    last = runs.select((runs.train_tokens == 1280) & (runs.num_params == 3072))
    extra = last.select(last.role == "replicate")
    assert set(extra.seed) == {4}
    for label, value in zip(extra.label, extra.column("loss/abc"), strict=True):
        twin = (last.label == label) & (last.role == "swarm")
        assert last.column("loss/abc")[twin] != value


def test_every_step_twice_is_every_step_once(trained_study):
    study = Study(trained_study)
    first = (study.train().rows(), study.fit().to_dict(), study.optimize().to_dict())
    before = {p: p.stat().st_mtime_ns for p in trained_study.rglob("fit.json")}
    again = Study(trained_study)
    assert (again.train().rows(), again.fit().to_dict(), again.optimize().to_dict()) == first
    assert {p: p.stat().st_mtime_ns for p in trained_study.rglob("fit.json")} == before


def test_artefacts_record_seed_version_and_inputs(trained_study):
    study = Study(trained_study)
    study.optimize()
    for name in ("design.json", "fit.json", "decision.json"):
        data = read_json(trained_study / name)
        assert data["seed"] == 3
        assert data["mixlaw"]
        assert len(data["inputs"]) == 16


def test_a_new_objective_makes_a_new_decision_without_training(trained_study):
    study = Study(trained_study)
    old = study.optimize()
    edit(trained_study, "objective: {bpb/mixed: 1, bpb/abc: 1}", "objective: {bpb/digits: 1}")
    new = Study(trained_study).optimize()
    assert new.objective != old.objective
    assert new.recommended["digits"] > old.recommended["digits"]


def test_a_study_edited_under_its_swarm_is_refused_and_named(trained_study):
    edit(trained_study, "batch_size: 2", "batch_size: 4")
    with pytest.raises(StudyError, match=r"training\.batch_size was 2, is 4.*Restore"):
        Study(trained_study).train()


def test_text_edited_under_a_swarm_is_refused(trained_study):
    """Deleting the corpus, as its own error advises, must not mix two corpora in one swarm."""
    with open(trained_study / "text" / "abc" / "00.txt", "a") as handle:
        handle.write(" more text of the same kind")
    with pytest.raises(CorpusError, match="build it again"):
        Study(trained_study).train()
    shutil.rmtree(trained_study / "corpus")
    with pytest.raises(StudyError, match="corpus was"):
        Study(trained_study).train()
    assert Study(trained_study).status()["runs"]["done"] == 20


def test_train_decides_nothing(trained_study):
    """Training again must work whatever the decision part of the study says."""
    study = Study(trained_study)
    study.optimize()
    before = (trained_study / "decision.json").read_bytes()
    edit(trained_study, "max_epochs: 4", "max_epochs: 0.001")
    edit(trained_study, "size: 12k, ", "num_params: 9000, ")
    Study(trained_study).train()
    assert (trained_study / "decision.json").read_bytes() == before


def test_what_is_claimed_of_the_big_run_caps_no_proxy(tiny_study):
    edit(tiny_study, "abc: {paths: [text/abc]}", "abc: {paths: [text/abc], available_tokens: 2e9}")
    study = Study(tiny_study)
    claimed = {domain.name: domain for domain in study.domains()}
    assert claimed["abc"].available_tokens == claimed["abc"].found_tokens == 2_000_000_000
    assert study.baselines()["natural"]["abc"] > 0.99
    on_disk = {domain.name: domain for domain in study.corpus().domains}
    longest = 40 * 2 * 16
    for spec in study.design():
        epochs = spec.mixture.epochs(longest, list(on_disk.values()))
        assert max(epochs.values()) <= 4 + 1e-9


UNIQUE = {"abc": 3000, "digits": 240, "words": 10**9}
"""Tokens that the target run has; `words` it cannot repeat."""

SEQUENCE = 16


def train_here(study: Study, specs) -> None:
    """In this process."""
    from mixlaw.claims import Worker

    swarm = study._own_runs.swarm
    with Worker(swarm.store) as worker:
        swarm.train(specs, worker)


class TestMatchedRepetition:
    """A target of 1,920 tokens, with little of `abc` and `digits`; proxies of 1,280."""

    @pytest.fixture
    def study(self, tiny_study):
        for name, tokens in UNIQUE.items():
            edit(tiny_study, f"[text/{name}]", f"[text/{name}], available_tokens: {tokens}")
        edit(tiny_study, "  mixtures: 8", "  match_repetition: true\n  mixtures: 4")
        edit(tiny_study, "training:\n  sizes: [3k, 6k]", "training:\n  sizes: [3k]")
        edit(tiny_study, "hardware:", "launch: {workers: 1}\nhardware:")
        edit(tiny_study, "horizon_steps: [10, 20, 40]", "horizon_steps: [20, 40]")
        return Study(tiny_study)

    def held(self, study, name):
        """Tokens in whole sequences on the disk."""
        return (len(study.corpus().train_tokens(name)) - 1) // SEQUENCE * SEQUENCE

    def test_swarm_and_verification_repeat_as_the_target_does(self, study):
        specs = study.design()
        assert len(specs) == 4 + 2
        # Nobody repeats `words`: of it, all that is here will do.
        proxy = {"abc": 2000, "digits": 160, "words": self.held(study, "words")}
        target = {**proxy, "abc": 3008, "digits": 240}  # 3,000 in sequences of 16
        assert all(spec.pools == proxy for spec in specs)
        verified = study._own_runs.training.verify_specs({"uniform": Mixture.uniform(list(proxy))})
        assert all(spec.pools == target for spec in verified)
        for spec in specs:
            there = spec.mixture.epochs(1920, study.domains())
            here = spec.mixture.epochs(1280, study._own_runs.training.proxy_domains())
            assert here["abc"] == pytest.approx(there["abc"])
            assert here["digits"] == pytest.approx(there["digits"])
            assert here["words"] <= 1
            # max_epochs caps what the proxies repeat, so their share of a small domain, too.
            assert here["digits"] <= 4 + 1e-9
        assert max(spec.mixture["digits"] for spec in specs) <= 0.5 + 1e-9

    def test_trains_and_the_table_tells_what_each_run_drew_from(self, study):
        specs = study.design()
        study.train()
        verified = study._own_runs.training.verify_specs({"uniform": Mixture.uniform(list(UNIQUE))})
        train_here(study, verified)
        study._own_runs.write_table(verified)
        table = study.runs()
        pools = {spec.run_id: spec.pools for spec in (*specs, *verified)}
        assert set(table.run) == set(pools)
        for run, available in zip(table.run, table.available_tokens, strict=True):
            assert dict(zip(table.domains, available, strict=True)) == pools[run]

    def test_a_run_draws_from_its_pools_alone(self, study, monkeypatch):
        from mixlaw.corpus import BatchSampler

        drawn = []

        class Recording(BatchSampler):
            def windows_of(self, step, proportions, *, num_steps=1):
                domain, start = super().windows_of(step, proportions, num_steps=num_steps)
                for i in range(num_steps):
                    here = slice(i * self.batch_size, (i + 1) * self.batch_size)
                    drawn.append((step + i, domain[:, here], start[:, here]))
                return domain, start

        monkeypatch.setattr("mixlaw.train.stack.BatchSampler", Recording)
        spec = next(spec for spec in study.design() if spec.mixture["digits"] > 0.1)
        train_here(study, [spec])
        # A branch draws its last steps again when the trunk goes on over them.
        steps = {step: found for step, *found in drawn}
        assert sorted(steps) == list(range(40))
        domain, start = (np.concatenate([f[i][0] for f in steps.values()]) for i in (0, 1))
        for j, name in enumerate(UNIQUE):
            windows, counts = np.unique(start[domain == j], return_counts=True)
            pool = spec.pools[name] // SEQUENCE
            assert len(windows) == min(pool, counts.sum())
            assert counts.size == 0 or np.ptp(counts) <= 1

    def test_a_pool_is_part_of_what_a_run_is(self, study):
        stored = study.design()
        edit(study.folder, "available_tokens: 240", "available_tokens: 480")
        other = Study(study.folder).design()
        same = Mixture.uniform(list(UNIQUE))
        old, new = (replace(specs[0], mixture=same, label="uniform") for specs in (stored, other))
        assert (old.context, old.seed) == (new.context, new.seed)
        assert old.run_id != new.run_id
        assert replace(old, pools=None).run_id not in {old.run_id, new.run_id}

    def test_the_target_may_not_change_under_the_swarm(self, study):
        spec = study.design()[0]
        study.store.save(spec, RunResult(FAILED, (), "stands for a finished run"))
        edit(study.folder, "train_tokens: 1920", "train_tokens: 3840")
        with pytest.raises(StudyError, match=r"pools\.abc was 2000, is 992"):
            Study(study.folder).design()

    def test_what_is_unknown_of_the_target_is_asked_for(self, study):
        edit(study.folder, ", available_tokens: 240", "")
        edit(study.folder, ", train_tokens: 1920", "")
        message = r"say .* with \['target.train_tokens', 'domains.digits.available_tokens'\]"
        with pytest.raises(StudyError, match=message):
            Study(study.folder)

    def test_too_little_text_for_the_pool_is_said(self, study):
        edit(study.folder, "train_tokens: 1920", "train_tokens: 25_600")
        edit(study.folder, "available_tokens: 3000", "available_tokens: 24_000")
        edit(study.folder, "horizon_steps: [20, 40]", "horizon_steps: [20, 400]")
        with pytest.raises(DesignError, match=r"'abc' has 24,000 .* draw from 12,000; this disk"):
            Study(study.folder).design()


@pytest.mark.parametrize("damage", ["", "{}", '{"mixlaw": 1'])
def test_a_damaged_artefact_is_named(trained_study, damage):
    Study(trained_study).fit()
    (trained_study / "fit.json").write_text(damage)
    with pytest.raises(StudyError, match=r"fit\.json is damaged.*delete it"):
        Study(trained_study).fit()


def test_settings_of_speed_may_change_under_a_swarm(trained_study):
    edit(trained_study, "report_steps: 5", "report_steps: 7, stack_size: 3")
    assert len(Study(trained_study).train()) == 60


def test_a_design_without_runs_may_be_edited(tiny_study):
    assert len(Study(tiny_study).design()) == 20
    edit(tiny_study, "mixtures: 8", "mixtures: 9")
    assert len(Study(tiny_study).design()) == 22


def test_predict_agrees_with_the_decision(trained_study):
    study = Study(trained_study)
    decision = study.optimize()
    (forecast,) = study.predict([decision.recommended])
    for target, interval in decision.forecast.targets.items():
        assert forecast[target] == pytest.approx((interval.value, interval.half_width))
    (smaller,) = study.predict([decision.recommended], Scale(6144, 640))
    assert smaller != forecast


def test_a_failed_run_is_kept_told_and_left_out(trained_study):
    study = Study(trained_study)
    spec = next(s for s in study.design() if s.label == "m03" and s.size == "3k")
    study.store.save(spec, RunResult(FAILED, (), "the loss was not finite at step 7"))
    table = study.train()
    assert set(table.label[table.status == FAILED]) == {"m03"}
    assert study.status()["runs"] == {"planned": 20, "done": 20, "failed": 1}
    fitted = study.fit()
    assert any("failed" in warning for warning in fitted.warnings)


def test_verify_compares_with_what_was_promised(trained_study):
    study = Study(trained_study)
    found = study.verify()
    assert list(found.mixtures) == ["recommended", "natural", "uniform"]
    decision = study.optimize()
    assert found.mixtures["recommended"].predicted == decision.forecast.objective
    assert all(len(v.observed) == 2 for v in found.mixtures.values())
    natural = found.gains["natural"]
    expected = found.mixtures["natural"].mean - found.mixtures["recommended"].mean
    assert natural.mean == pytest.approx(expected)
    assert study.verification() == found
    # Verification runs stand in the table and are never fitted.
    assert "verify" in set(study.runs().role)
    assert "verify" not in set(study.fit().cross_validation.runs.role)
    assert Study(trained_study).optimize() == decision
    # Nor do a further seed's results exist yet.
    edit(trained_study, "seeds: 2}", "seeds: 3}")
    assert Study(trained_study).verification() is None
    edit(trained_study, "seeds: 3}", "seeds: 2}")
    assert Study(trained_study).verification() is not None
    # Training again keeps the verified runs in the table.
    assert "verify" in set(Study(trained_study).train().role)
    # A later decision is not verified by these runs.
    edit(trained_study, "objective: {bpb/mixed: 1, bpb/abc: 1}", "objective: {bpb/digits: 1}")
    assert Study(trained_study).verification() is None


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        (
            "max_epochs: 4",
            "max_epochs: 0.001",
            InfeasibleError,
            r"upper\[\w+\] = 0.0\d+ \(epoch cap: 0.001 epochs of",
        ),
        (
            "max_epochs: 4",
            "lower: {abc: .6, words: .6}",
            InfeasibleError,
            r"conflict: lower\[abc\] = 0.6.*lower\[words\] = 0.6",
        ),
        ("bpb/abc: 1}", "loss/abc: 1}", StudyError, r"mixes the metrics \['bpb', 'loss'\]"),
        ("bpb/abc: 1}", "bpb/abd: 1}", StudyError, "did you mean 'bpb/abc'"),
        ("constraints: {", "fit: {laws: [m9]}\nconstraints: {", FitError, "m9"),
    ],
)
def test_what_cannot_be_decided_says_why(trained_study, old, new, error, message):
    edit(trained_study, old, new)
    with pytest.raises(error, match=message):
        Study(trained_study).optimize()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("target: {size: 12k, train_tokens: 1920}", "target: {num_params: 9000}", "train_tokens"),
        ("train_tokens: 1920", "train_tokens: 1930", "they must be equal"),
    ],
)
def test_verification_needs_a_target_it_can_train(trained_study, old, new, message):
    edit(trained_study, old, new)
    with pytest.raises(StudyError, match=message):
        Study(trained_study).verify()


def test_steps_out_of_order_name_the_one_before(tiny_study):
    with pytest.raises(StudyError, match="mixlaw train"):
        Study(tiny_study).fit()
    assert Study(tiny_study).status()["next"] == "corpus"


def test_ready_token_files_are_trained_on_in_place(tiny_study):
    """The corpus of one study as the token files of another, of which no text is known."""
    Study(tiny_study).corpus()
    names = ("abc", "digits", "words")
    domains = "".join(
        f"  {n}: {{tokens: {{train: corpus/{n}.train.bin, valid: corpus/{n}.valid.bin}}}}\n"
        for n in names
    )
    text = (tiny_study / "study.yaml").read_text()
    text = text[text.index("sizes:") :].replace("bpb/mixed: 1, bpb/abc: 1", "loss/abc: 1")
    own = tiny_study / "own"
    own.mkdir()
    (own / "study.yaml").write_text(
        "seed: 3\ntokenizer: {kind: ids, vocab_size: 257}\ndomains:\n"
        + domains.replace("corpus/", "../corpus/")
        + text
    )
    study = Study(own)
    runs = study.train()
    assert set(runs.targets) == {f"loss/{n}" for n in names}
    assert study.optimize().recommended["abc"] > 0.5


class TestFromATable:
    """A user with finished runs and no text."""

    @pytest.fixture
    def study(self, trained_folder, tmp_path):
        RunTable.read(trained_folder / "runs.csv").write(tmp_path / "mine.csv")
        (tmp_path / "study.yaml").write_text(
            "table: mine.csv\n"
            "domains: {abc: {available_tokens: 5000}, digits: {available_tokens: 9000},"
            " words: {available_tokens: 1e4}}\n"
            "objective: {loss/mixed: 1}\n"
            "constraints: {max_epochs: 1}\n"
            "target: {num_params: 12288, train_tokens: 8000}\n"
        )
        return Study(tmp_path)

    def test_decides(self, study):
        decision = study.optimize()
        assert decision.recommended["abc"] <= 5000 / 8000 + 1e-9
        assert set(decision.baselines) == {"natural", "uniform"}
        assert decision.baselines["natural"].forecast.mixture == Mixture.from_weights(
            {"abc": 5000.0, "digits": 9000.0, "words": 10000.0}
        )
        assert study.status()["next"] == "report"

    def test_has_nothing_to_train(self, study):
        for step in (study.corpus, study.design, study.verify):
            with pytest.raises(StudyError, match="works from the table"):
                step()

    def test_needs_a_scale(self, study):
        edit(study.folder, "train_tokens: 8000", "train_tokens: null")
        with pytest.raises(StudyError, match="differ in train_tokens"):
            Study(study.folder).optimize()

    def test_a_domain_that_the_table_lacks(self, study):
        edit(study.folder, "digits:", "numbers:")
        with pytest.raises(StudyError, match="'numbers'"):
            Study(study.folder).optimize()
