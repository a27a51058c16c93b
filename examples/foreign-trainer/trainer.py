"""The team's trainer, which knows nothing of mixlaw: `python trainer.py --steps 600 RUN_FOLDER...`.

For each folder it trains a Llama of 55 thousand parameters with Hugging Face's Trainer, on the
mixture that load_mixture.py there loads, and keeps in RUN_FOLDER/seed-0 what Trainer keeps: the
losses on every validation set, in TensorBoard's files and in trainer_state.json.
"""

from __future__ import annotations

import argparse
import runpy
from pathlib import Path

import datasets
import torch
import transformers

BLOCK_TOKENS, VOCAB_SIZE = 64, 1_024
BATCH_BLOCKS = 16


def make_model() -> transformers.LlamaForCausalLM:
    """Of 55,536 parameters beside the embeddings."""
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=BLOCK_TOKENS,
    )
    return transformers.LlamaForCausalLM(config)


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    blocks = torch.tensor([row["input_ids"] for row in rows])  # (batch, tokens)
    return {"input_ids": blocks, "labels": blocks}


def train(folder: Path, data: Path, steps: int, seed: int) -> None:
    transformers.set_seed(seed)
    # datasets.interleave_datasets, with the probabilities of mixture.json beside it.
    load = runpy.run_path(str(folder / "load_mixture.py"))["load"]
    validation = {
        path.parent.name: datasets.load_from_disk(path) for path in sorted(data.glob("*/valid"))
    }
    trainer = transformers.Trainer(
        make_model(),
        transformers.TrainingArguments(
            output_dir=str(folder / f"seed-{seed}"),
            max_steps=steps,
            per_device_train_batch_size=BATCH_BLOCKS,
            per_device_eval_batch_size=125,
            learning_rate=3e-3,
            warmup_steps=steps // 12,
            weight_decay=0.1,
            adam_beta2=0.95,
            eval_strategy="steps",
            eval_steps=steps // 2,
            logging_steps=steps // 2,
            include_num_input_tokens_seen="all",
            save_strategy="no",
            report_to="tensorboard",
            disable_tqdm=True,
            seed=seed,
            use_cpu=True,
        ),
        data_collator=collate,
        train_dataset=load(prepare=lambda part: part.shuffle(seed=seed).to_iterable_dataset()),
        eval_dataset=validation,
    )
    trainer.train()
    trainer.save_state()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seeds", default="0", help="0, or several: 1,2,3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    for folder in options.folders:
        for seed in options.seeds.split(","):
            train(folder, options.data, options.steps, int(seed))


if __name__ == "__main__":
    main()
