"""Choose a mixture with a trainer that is not mixlaw's: `python loop.py NEW_FOLDER [--short]`.

The first proxies go by files and commands (mixlaw design --export-to, mixlaw import), the further
ones by `study.ask` and `study.tell`. Then the recommended mixture and the uniform one are trained
with three seeds, as long as the proxies and twice as long, and compared with the forecast.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from mixlaw import Study

HERE = Path(__file__).resolve().parent
TOKENS_PER_STEP = 16 * 64
FIRST_RUNS, ROUNDS, RUNS_PER_ROUND = 10, 2, 4


def train(runs: list[Path], train_tokens: float, *, folder: Path, seeds=(0,)) -> None:
    """The team's trainer, in two processes that share the runs."""
    steps = str(int(train_tokens) // TOKENS_PER_STEP)
    command = [sys.executable, HERE / "trainer.py", "--steps", steps]
    command += ["--seeds", ",".join(map(str, seeds))]
    with open(folder / "trainer.log", "a") as log:
        started = [
            subprocess.Popen([*command, *share], cwd=folder, stdout=log, stderr=log)
            for share in (runs[0::2], runs[1::2])
            if share
        ]
        failed = [process.wait() != 0 for process in started]
        if any(failed):
            raise SystemExit(f"the trainer failed; see {log.name}")


def losses(run: Path, seed: int = 0) -> dict[str, float]:
    """What Trainer measured at the end, under the names of the study."""
    state = json.loads((run / f"seed-{seed}" / "trainer_state.json").read_text())
    found = {}
    for entry in state["log_history"]:
        for name, value in entry.items():
            if measured := re.fullmatch("eval_(.+)_loss", name):
                found[f"loss/{measured[1]}"] = value
    return found


def first_runs_by_files(folder: Path, count: int) -> None:
    """Commands and files: a folder for each run, and TensorBoard's files back."""
    mixlaw = Path(sys.executable).with_name("mixlaw")
    design = ["design", ".", "--next", str(count), "--export-to", "huggingface", "--out", "runs"]
    subprocess.run([mixlaw, *design], cwd=folder, check=True)
    planned = [json.loads(line) for line in (folder / "runs/runs.jsonl").read_text().splitlines()]
    runs = [folder / "runs" / run["run"] for run in planned]
    train(runs, planned[0]["train_tokens"], folder=folder)
    results = ["import", "runs", "--into", ".", "--design", "runs"]
    subprocess.run([mixlaw, *results], cwd=folder, check=True)


def further_runs_by_ask_and_tell(study: Study, rounds: int, count: int) -> None:
    """The same in Python."""
    for number in range(rounds):
        plan = study.ask(count)
        print(plan.reason)
        if plan.stop:
            break
        runs = [study.folder / f"asked/{number}-{i}" for i in range(len(plan.proposals))]
        for run, proposal in zip(runs, plan.proposals, strict=True):
            study.export(mixture=proposal.mixture, out=run)
        train(runs, plan.proposals[0].train_tokens, folder=study.folder)
        for run, proposal in zip(runs, plan.proposals, strict=True):
            scale = {"num_params": proposal.num_params, "train_tokens": proposal.train_tokens}
            study.tell(proposal.mixture, losses(run), **scale)


def compare(study: Study, *, seeds: tuple[int, ...], lengths: tuple[int, ...]) -> dict:
    """Forecast and trained objective of both mixtures; lengths: in those of the proxies."""
    decision = study.optimize()
    forecasts = {
        "recommended": decision.forecast.objective,
        "uniform": decision.baselines["uniform"].forecast.objective,
    }
    proxy_tokens = study.config.target.train_tokens
    trained = {}
    for train_tokens in (length * proxy_tokens for length in lengths):
        runs = [study.folder / f"final/{name}-{train_tokens}" for name in forecasts]
        study.export(out=runs[0], train_tokens=train_tokens)
        study.export(mixture="uniform", out=runs[1], train_tokens=train_tokens)
        train(runs, train_tokens, folder=study.folder, seeds=seeds)
        for name, run in zip(forecasts, runs, strict=True):
            found = [losses(run, seed) for seed in seeds]
            values = [(each["loss/docs"] + each["loss/cython"]) / 2 for each in found]
            trained.setdefault(name, {})[str(train_tokens)] = values
    return {
        "mixture": dict(decision.recommended),
        "runs": len(study.runs()),
        "forecast": {name: interval.to_dict() for name, interval in forecasts.items()},
        "forecast_gain": decision.baselines["uniform"].gain,
        "trained": trained,
    }


def show(result: dict) -> None:
    print("recommended after", result["runs"], "proxies:")
    print(", ".join(f"{name} {share:.3f}" for name, share in result["mixture"].items()))
    for name, interval in result["forecast"].items():
        width = interval["half_width"]
        known = f"+- {width:.3f}" if width is not None else "of unknown error"
        print(f"{name}: forecast {interval['value']:.3f} {known}")
        for tokens, values in result["trained"][name].items():
            each = ", ".join(f"{value:.3f}" for value in values)
            print(f"  trained for {int(tokens):,} tokens: {statistics.mean(values):.3f} ({each})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--short", action="store_true", help="the way in a minute; no result")
    options = parser.parse_args()
    began = time.monotonic()
    folder = options.folder.resolve()
    folder.mkdir(parents=True)
    text = (HERE / "study.yaml").read_text()
    if options.short:  # 24 steps a run, and every round is done
        text = text.replace("614_400", "24_576").replace("threshold: 0.002", "threshold: 0")
    (folder / "study.yaml").write_text(text)
    subprocess.run([sys.executable, HERE / "texts.py", folder / "data"], check=True)

    first_runs_by_files(folder, 7 if options.short else FIRST_RUNS)
    study = Study(folder)
    rounds, count = (1, 2) if options.short else (ROUNDS, RUNS_PER_ROUND)
    further_runs_by_ask_and_tell(study, rounds, count)
    longer = {"seeds": (1, 2, 3), "lengths": (1, 2)}
    result = compare(study, **({"seeds": (1,), "lengths": (1,)} if options.short else longer))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    print(f"{time.monotonic() - began:.0f} seconds")


if __name__ == "__main__":
    main()
