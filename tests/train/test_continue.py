"""A training that begins where another ended: what is carried on, what is refused, and that no bit
depends on interruptions, company or what is kept."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from mixlaw.claims import Worker  # noqa: E402
from mixlaw.corpus import load_corpus  # noqa: E402
from mixlaw.errors import CheckpointError, StorageError, TrainError  # noqa: E402
from mixlaw.files import sealed  # noqa: E402
from mixlaw.launch.commands import work_until_done  # noqa: E402
from mixlaw.launch.driver import train_swarm, write_swarm  # noqa: E402
from mixlaw.launch.local import LocalLauncher  # noqa: E402
from mixlaw.launch.tracking.base import points  # noqa: E402
from mixlaw.launch.work import Work  # noqa: E402
from mixlaw.mixture import Mixture  # noqa: E402
from mixlaw.runs import DONE, FAILED, RunSpec, RunTable, Start  # noqa: E402
from mixlaw.schedule import Online  # noqa: E402
from mixlaw.store import RunStore, model_facts, start_from  # noqa: E402
from mixlaw.study import Study  # noqa: E402
from mixlaw.train import record  # noqa: E402
from mixlaw.train.byhand import MemberStep  # noqa: E402
from mixlaw.train.checkpoint import continue_models, save_model  # noqa: E402
from mixlaw.train.loop import StackJob, train_stack  # noqa: E402
from mixlaw.train.recipe import ModelConfig, Recipe, Size  # noqa: E402
from mixlaw.train.state import TrainState  # noqa: E402
from mixlaw.train.step import StackStep  # noqa: E402
from mixlaw.train.swarm import Swarm  # noqa: E402

NEW = Mixture({"abc": 0.2, "digits": 0.3, "words": 0.5})


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


def make_swarm(folder: Path) -> tuple[Swarm, list[RunSpec]]:
    """The swarm of a study with one size, and three runs of it that keep their models."""
    study = Study(folder)
    specs = [spec for spec in study.design() if spec.size == "3k"][:3]
    swarm = study._own_runs.training.swarm(folder / "runs")
    swarm = replace(swarm, hardware=replace(swarm.hardware, stack_size=16))
    return swarm, [replace(spec, keep=True) for spec in specs]


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> tuple[Swarm, list[RunSpec]]:
    """Base runs with their models; not to be changed."""
    folder = tmp_path_factory.mktemp("bases") / "study"
    swarm, bases = make_swarm(Path(shutil.copytree(tiny_folder, folder)))
    train(swarm, bases)
    return swarm, bases


@pytest.fixture
def swarm(trained, tmp_path) -> Swarm:
    """Of the same corpus and sizes, with no run yet."""
    return replace(trained[0], runs=str(tmp_path / "runs"))


@pytest.fixture
def store(trained) -> RunStore:
    return trained[0].store


@pytest.fixture
def bases(trained) -> list[RunSpec]:
    return trained[1]


def train(swarm: Swarm, specs) -> list:
    """All in this process; their results."""
    with Worker(swarm.store) as worker:
        for stack in swarm.unfinished(specs):
            swarm.train(stack, worker)
    return [swarm.store.load(spec) for spec in specs]


def continued(base: RunSpec, start: Start, **changes) -> RunSpec:
    changes = {"mixture": NEW, "seed": 7, "keep": False, "start": start} | changes
    return replace(base, **changes)


def of_precision(swarm: Swarm, precision: str) -> Swarm:
    size = swarm.sizes["3k"]
    exact = replace(size, recipe=replace(size.recipe, precision=precision))
    return replace(swarm, sizes={"3k": exact})


# What is kept


def test_a_kept_model_says_what_it_is(store, bases, trained):
    facts, size = model_facts(store.model_url(bases[0].run_id)), trained[0].sizes["3k"]
    assert facts.num_params == size.config.num_params
    assert facts.config == asdict(size.config)
    assert facts.recipe == asdict(size.recipe)
    assert facts.vocabulary == {"name": "byte", "digest": "byte"}
    assert (facts.updates, facts.optimizer) == (40, True)
    assert store.models() == {spec.run_id for spec in bases}


def test_keeping_decides_neither_a_bit_nor_a_run_id(store, bases, swarm):
    plain = [replace(spec, keep=False) for spec in bases]
    assert [spec.run_id for spec in plain] == [spec.run_id for spec in bases]
    assert train(swarm, plain) == [store.load(spec) for spec in bases]
    assert swarm.store.models() == set()


def test_equal_trainings_keep_equal_models(store, bases, swarm):
    """Alone and with a checkpoint on the way: the digest, and with it the runs that continue."""
    train(replace(swarm, hardware=replace(swarm.hardware, checkpoint_seconds=1e9)), bases[1:2])
    start = swarm.store.start(bases[1].run_id)
    assert start.digest == store.start(bases[1].run_id).digest
    assert start.digest != store.start(bases[0].run_id).digest


def test_a_run_without_the_model_that_it_is_to_keep_is_trained_anew(store, swarm, bases):
    plain = [replace(spec, keep=False) for spec in bases]
    train(swarm, plain)
    assert swarm.unfinished(plain) == []
    assert swarm.store.unfinished([*plain[:2], bases[2]]) == [bases[2]]
    assert swarm.unfinished([*plain[:2], bases[2]]) == [[bases[2]]]
    expected = [swarm.store.load(spec) for spec in plain]
    assert train(swarm, [*plain[:2], bases[2]]) == expected
    assert swarm.store.models() == {bases[2].run_id}
    assert swarm.store.start(bases[2].run_id).digest == store.start(bases[2].run_id).digest


def test_a_diverged_run_keeps_no_model_and_is_finished(swarm, bases):
    size = swarm.sizes["3k"]
    wild = replace(size, recipe=replace(size.recipe, learning_rate=1e30))
    swarm = replace(swarm, sizes={"3k": wild})
    (result,) = train(swarm, bases[:1])
    assert result.status == FAILED
    assert swarm.store.models() == set()
    assert swarm.unfinished(bases[:1]) == []


def test_killed_before_the_result_the_model_is_made_again(store, bases, swarm, monkeypatch):
    def killed(self, spec, result):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "save", killed)
        with pytest.raises(Killed):
            train(swarm, bases)
    assert swarm.store.models() == {spec.run_id for spec in bases}
    assert swarm.store.finished() == set()
    assert train(swarm, bases) == [store.load(spec) for spec in bases]


def test_launchers_train_anew_what_lacks_its_model(store, bases, swarm):
    train(swarm, [replace(spec, keep=False) for spec in bases])
    expected = swarm.store.results(bases)
    with LocalLauncher(workers=1) as launcher:
        assert train_swarm(swarm, bases, launcher) == {}
    assert swarm.store.models() == store.models()
    assert swarm.store.results(bases) == expected


def test_workers_train_what_continues_a_model(store, bases, swarm):
    starts = [store.start(spec.run_id, optimizer=True) for spec in bases]
    specs = [continued(b, start, keep=True) for b, start in zip(bases, starts, strict=True)]
    work = Work(swarm, tuple(specs))
    assert Work.from_json(work.to_json()) == work
    write_swarm(swarm, specs)
    assert work_until_done(swarm.runs, workers=1) == {}
    found = swarm.store.results(specs)
    assert [found[s.run_id].at_start for s in specs] == [store.load(b).targets[-1] for b in bases]
    assert swarm.store.models() == {spec.run_id for spec in specs}
    missing = replace(starts[0], checkpoint=starts[0].checkpoint + "-gone")
    write_swarm(swarm, [continued(bases[0], missing, seed=9)])
    with pytest.raises(StorageError, match="has no file model"):
        work_until_done(swarm.runs, workers=1)


# Where it begins


def test_the_losses_at_step_0_are_the_last_of_the_base(store, bases, swarm):
    starts = [store.start(spec.run_id, optimizer=k == 1) for k, spec in enumerate(bases)]
    specs = [continued(base, start) for base, start in zip(bases, starts, strict=True)]
    found = train(swarm, specs)
    assert [dict(r.at_start) for r in found] == [dict(store.load(b).targets[-1]) for b in bases]
    told = [e for e in swarm.store.metrics(specs[0].run_id) if e.get("event") == "evaluated"]
    assert [line["step"] for line in told] == [0, 10, 20, 40]
    assert (told[0]["horizon"], told[0]["targets"]) == (0, found[0].at_start)
    tracked = points(specs[0], swarm.store.metrics(specs[0].run_id), found[0])
    evaluated = [point.tokens for point in tracked if point.series == "eval"]
    assert evaluated == [0, *specs[0].horizon_tokens]
    assert all(result.at_start == {} for result in map(store.load, bases))


def test_the_table_has_what_each_run_began_with(store, bases, swarm, tmp_path):
    starts = [store.start(bases[k].run_id, rewarm=r) for k, r in ((0, 0.5), (1, 2.0))]
    specs = [continued(bases[0], start) for start in starts]
    found = train(swarm, specs)
    runs = swarm.store.table(specs, ["abc", "digits", "words"])
    np.testing.assert_array_equal(runs.rewarm, [0.5] * 3 + [2.0] * 3)
    column = runs.targets.index("bpb/abc")
    expected = [result.at_start["bpb/abc"] for result in found for _ in range(3)]
    np.testing.assert_array_equal(runs.start[:, column], expected)
    runs.write(tmp_path / "runs.csv")
    again = RunTable.read(tmp_path / "runs.csv")
    np.testing.assert_array_equal(again.start, runs.start)
    np.testing.assert_array_equal(again.rewarm, runs.rewarm)


def test_what_is_carried_on_decides_the_losses(store, bases, swarm):
    weights = store.start(bases[0].run_id)
    specs = [continued(bases[0], weights), continued(bases[0], replace(weights, optimizer=True))]
    specs.append(continued(bases[0], replace(weights, rewarm=0.5)))
    assert len({spec.run_id for spec in specs}) == 3
    assert len(swarm.unfinished(specs)) == 2  # one learning rate in a stack
    first, second, third = train(swarm, specs)
    assert first.at_start == second.at_start == third.at_start
    last = [result.targets[-1]["loss/abc"] for result in (first, second, third)]
    assert len(set(last)) == 3


def test_where_the_model_lies_decides_nothing(store, bases, swarm, tmp_path):
    start = store.start(bases[0].run_id)
    shutil.copy(start.checkpoint, tmp_path / "base.safetensors")
    moved = start_from(tmp_path / "base.safetensors")
    assert moved.digest == start.digest
    one, other = continued(bases[0], start), continued(bases[0], moved)
    assert one.run_id == other.run_id
    elsewhere = replace(swarm, runs=str(tmp_path / "other"))
    assert train(swarm, [one]) == train(elsewhere, [other])


def test_a_run_folder_that_was_moved_takes_its_models_along(swarm, bases, tmp_path):
    train(swarm, bases[:1])
    start = swarm.store.start(bases[0].run_id)
    spec = continued(bases[0], start)
    write_swarm(swarm, [*bases[:1], spec])
    shutil.move(swarm.runs, tmp_path / "moved")
    assert work_until_done(str(tmp_path / "moved"), workers=1) == {}
    moved = RunStore(tmp_path / "moved")
    assert moved.load(spec).at_start == moved.load(bases[0]).targets[-1]
    other = replace(spec, seed=8, start=replace(start, digest="0" * 64))
    refused = replace(swarm, runs=str(tmp_path / "moved"))
    with pytest.raises(TrainError, match="it was replaced since"):
        train(refused, [other])


def test_a_model_in_a_bucket(store, bases, swarm, storage_url):
    bucket, run_id = RunStore(storage_url), bases[0].run_id
    with bucket.save_model(run_id) as path:
        shutil.copy(store.model_url(run_id), path)
    start = bucket.start(run_id, optimizer=True)
    assert start.checkpoint == f"{storage_url}/{run_id}/model.safetensors"
    spec = continued(bases[0], start)
    assert train(swarm, [RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))])
    assert swarm.store.load(spec).at_start == store.load(bases[0]).targets[-1]


def test_rewarming_scales_every_rate(store, bases, swarm):
    start = store.start(bases[0].run_id)
    specs = [continued(bases[0], replace(start, rewarm=rewarm)) for rewarm in (1.0, 0.25)]
    train(swarm, specs)
    full, low = (
        [line["rate"] for line in swarm.store.metrics(spec.run_id) if "event" not in line]
        for spec in specs
    )
    assert max(full) == swarm.sizes["3k"].recipe.learning_rate
    np.testing.assert_allclose(low, 0.25 * np.array(full), rtol=1e-15)
    fresh = [line["rate"] for line in store.metrics(bases[0].run_id) if "event" not in line]
    assert full == fresh


# No bit depends on stacks or interruptions


@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_alone_as_in_company(store, bases, swarm, tmp_path, precision):
    """With members that continue other models, with and without their moments."""
    swarm = of_precision(swarm, precision)
    starts = [store.start(bases[k].run_id, optimizer=o) for k, o in ((0, True), (1, False))]
    specs = [continued(bases[0], start, seed=seed) for start in starts for seed in (1, 2)]
    expected = train(swarm, specs)
    assert all(result.status == DONE for result in expected)
    for i in (2, 0):
        alone = replace(swarm, runs=str(tmp_path / f"alone-{i}"))
        assert train(alone, [specs[i]]) == [expected[i]]


@pytest.mark.parametrize("after_saves", [1, 4, 8, 17, 24])
def test_killed_and_resumed_gives_the_same_bits(
    store, bases, swarm, tmp_path, monkeypatch, after_saves
):
    """Also when the model is gone by then, and for the model that is kept in turn."""
    starts = [store.start(base.run_id, optimizer=k != 1) for k, base in enumerate(bases)]
    own = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for start, place in zip(starts, own, strict=True):
        shutil.copy(start.checkpoint, place)
    specs = [
        continued(base, replace(start, checkpoint=str(place)), keep=True)
        for base, start, place in zip(bases, starts, own, strict=True)
    ]
    undisturbed = replace(swarm, runs=str(tmp_path / "undisturbed"))
    expected = train(undisturbed, specs)
    real, saves = record.save_checkpoint, [0]

    def save(path, tensors, state) -> None:
        real(path, tensors, state)
        saves[0] += 1
        if saves[0] == after_saves:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(record, "save_checkpoint", save)
        with pytest.raises(Killed):
            train(swarm, specs)
    if after_saves > 3:
        for place in own:
            place.unlink()
    assert train(swarm, specs) == expected
    assert [result.at_start for result in expected] == [store.load(b).targets[-1] for b in bases]
    facts = [model_facts(swarm.store.model_url(spec.run_id)) for spec in specs]
    assert facts == [model_facts(undisturbed.store.model_url(spec.run_id)) for spec in specs]
    assert [fact.updates for fact in facts] == [80, 40, 80]


CONSTANT = Recipe(0.01, batch_size=2, sequence_length=8, warmup_steps=1, decay_fraction=0.0)
VOCABULARY = {"name": "made up", "digest": "d"}


@pytest.mark.parametrize("step", [MemberStep, StackStep])
@pytest.mark.parametrize("precision", ["float32", "float64", "bf16"])
def test_with_its_moments_a_training_goes_on_as_if_it_had_never_ended(tmp_path, step, precision):
    """At a constant rate and on the same data, in two pieces of other lengths for each member."""
    size = Size(ModelConfig(40, 32, 1), replace(CONSTANT, precision=precision))
    ends = [7, 12]

    def batch(i: int, k: int):
        return torch.from_numpy(np.random.default_rng([k, i]).integers(0, 40, (2, 9)))

    def job(seeds, horizon, first, **changes) -> StackJob:
        return StackJob(
            size=size,
            horizon_steps=[horizon],
            seeds=seeds,
            step=step(size),
            batches=lambda i: torch.stack([batch(first[k] + i, k) for k in seeds]),
            evaluate=lambda parameters: [{"loss/x": 1.0} for _ in seeds],
            report_steps=3,
            **changes,
        )

    starts = []
    for k, end in enumerate(ends):
        result = train_stack(job([k], end, {k: 0}))
        save_model(tmp_path / f"{k}.safetensors", result.state, 0, size=size, vocabulary=VOCABULARY)
        starts.append(start_from(tmp_path / f"{k}.safetensors", optimizer=True))

    def begin() -> TrainState:
        return continue_models(starts, size, vocabulary=VOCABULARY)

    result = train_stack(job([0, 1], 6, ends, begin=begin))
    assert result.start == [{"loss/x": 1.0}] * 2
    assert result.state.updates == [13, 18]
    for k, end in enumerate(ends):
        whole = train_stack(job([k], end + 6, {k: 0})).state
        assert whole.updates == [end + 6]
        for name, expected in whole.member("x", 0).items():
            found = result.state.member("x", k)[name]
            if step is MemberStep:
                assert torch.equal(found, expected)
            else:  # all members at once: up to the order of sums
                near = {"float64": 1e-9, "float32": 1e-3, "bf16": 1e-2}[precision]
                torch.testing.assert_close(found, expected, rtol=near, atol=near)


def test_moments_of_different_ages_are_updated_each_by_its_own(tmp_path):
    """All members at once, as on a GPU, against one after the other."""
    size = Size(ModelConfig(40, 32, 1), replace(CONSTANT, precision="float64"))
    sequences = torch.randint(0, 40, (4, 2, 9), generator=torch.Generator().manual_seed(0))
    states = []
    for step in (MemberStep(size), StackStep(size)):
        state = replace(TrainState.fresh(size, [0, 1, 2, 3], "cpu"), earlier=(9, 0, 0, 500))
        for _ in range(3):
            step(state, sequences, 0.01)
        states.append(state)
    assert states[0].updates == [12, 3, 3, 503]
    for one, other in zip(*(state.parameters.values() for state in states), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


# What is refused


def refused(swarm: Swarm, spec: RunSpec, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told) as error:
        train(swarm, [spec])
    assert "\n" not in str(error.value)
    assert swarm.store.finished() == set()


def test_a_model_that_is_not_there(store, bases, swarm, tmp_path):
    start = replace(store.start(bases[0].run_id), checkpoint=str(tmp_path / "no.safetensors"))
    refused(swarm, continued(bases[0], start), StorageError, r"has no file no\.safetensors")
    with pytest.raises(StorageError, match="has no file model"):
        store.start("unknown")


def test_runs_that_cannot_train_in_one_stack(store, bases, swarm):
    start = store.start(bases[0].run_id)
    plain, weights = replace(bases[0], keep=False), continued(bases[0], start)
    slow = continued(bases[0], replace(start, rewarm=0.5))
    short = replace(plain, horizon_tokens=plain.horizon_tokens[:1])
    adapting = replace(plain, online=Online({"loss/abc": 1.0}, rounds=1))
    for other in (weights, short, adapting, replace(weights, start=slow.start)):
        pair = [plain if other.start != slow.start else weights, other]
        with Worker(swarm.store) as worker, pytest.raises(TrainError, match="in one stack: they"):
            swarm.train(pair, worker)
    assert swarm.store.finished() == set()


def test_a_model_that_was_replaced(store, bases, swarm):
    start = replace(store.start(bases[0].run_id), digest=store.start(bases[1].run_id).digest)
    refused(swarm, continued(bases[0], start), TrainError, "it was replaced since")


def test_a_model_of_another_size(store, bases, swarm):
    size = swarm.sizes["3k"]
    wide = replace(size, config=replace(size.config, width=32))
    spec = continued(bases[0], store.start(bases[0].run_id))
    refused(replace(swarm, sizes={"3k": wide}), spec, TrainError, r"\(width 16, not 32\)")


def test_a_model_of_another_vocabulary(store, bases, swarm, tmp_path):
    root = Path(shutil.copytree(swarm.corpus, tmp_path / "corpus"))
    manifest = json.loads((root / "corpus.json").read_text())
    manifest["tokenizer"] |= {"name": "bpe-256", "digest": "other"}
    (root / "corpus.json").write_text(json.dumps(sealed(manifest)))
    assert load_corpus(root).vocab_size == load_corpus(swarm.corpus).vocab_size
    spec = continued(bases[0], store.start(bases[0].run_id))
    refused(replace(swarm, corpus=str(root)), spec, TrainError, "byte, the corpus .* bpe-256")


def test_moments_that_are_not_there(store, bases, swarm, tmp_path):
    from mixlaw.train import checkpoint

    start = store.start(bases[0].run_id)
    tensors, state = checkpoint._load(Path(start.checkpoint))
    weights = {k: v for k, v in tensors.items() if k.startswith("model/parameters/")}
    checkpoint._save(tmp_path / "weights.safetensors", weights, state)
    bare = start_from(tmp_path / "weights.safetensors", optimizer=True)
    assert not model_facts(bare.checkpoint).optimizer
    refused(swarm, continued(bases[0], bare), TrainError, "has no optimizer state")
    spec = continued(bases[0], replace(bare, optimizer=False))
    expected = train(replace(swarm, runs=swarm.runs + "2"), [continued(bases[0], start)])
    assert train(swarm, [spec]) == expected


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "checkpoint"])
def test_a_damaged_model(store, bases, swarm, tmp_path, damage):
    start = replace(store.start(bases[0].run_id), checkpoint=str(tmp_path / "x.safetensors"))
    data = bytearray(Path(store.model_url(bases[0].run_id)).read_bytes())
    data[-100] ^= 1
    files = {"flipped": data, "cut": data[:-200], "empty": b"", "text": b"no model at all, words"}
    if damage == "checkpoint":
        record.save_checkpoint(tmp_path / "x.safetensors", {"a": torch.ones(2)}, {})
    else:
        (tmp_path / "x.safetensors").write_bytes(files[damage])
    told = "is damaged" if damage in ("flipped", "cut") else "is no model that a run kept"
    refused(swarm, continued(bases[0], start), CheckpointError, rf"x\.safetensors {told}")
