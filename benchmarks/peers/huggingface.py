"""Hugging Face transformers: a Llama of the same non-embedding parameters, two loops.

`trainer` is `transformers.Trainer` as people call it; `llama_loop` is the same model in the plain
loop of `nanogpt`, which spares it the Trainer's own time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers import On, OnStep, Shape, Train
from benchmarks.peers.nanogpt import batches, run_loop

DATASET_SEQUENCES = 16_384
FOREVER = 10**7
"""Steps; the clock stops the training long before."""


def llama(shape: Shape) -> Any:
    """A Llama; its MLP has three matrices, so each is two thirds as wide."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.width,
            intermediate_size=round(2 * shape.mlp_ratio * shape.width / 3),
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.width // shape.head_width,
            max_position_embeddings=shape.sequence_length,
            tie_word_embeddings=True,
            use_cache=False,
        )
    )
    assert model.config._attn_implementation == "sdpa"  # the default; the fast one
    return model


def non_embedding_params(model: nn.Module) -> int:
    """Parameters outside the (tied) embedding."""
    return sum(p.numel() for n, p in model.named_parameters() if "embed_tokens" not in n)


class RandomTokens(torch.utils.data.Dataset):
    """Random sequences in memory, as a tokenised data set in memory gives them."""

    def __init__(self, shape: Shape):
        generator = torch.Generator().manual_seed(0)
        size = (DATASET_SEQUENCES, shape.sequence_length)
        self.tokens = torch.randint(0, shape.vocab_size, size, generator=generator)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def trainer(shape: Shape, on: On) -> Train:
    """`Trainer.train()` with its defaults, but neither checkpoints nor reports nor a progress bar.

    The gradient clipping (1.0), fused AdamW, schedule, shuffling, collation and logging are its
    defaults.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils import logging

    logging.set_verbosity_error()

    def train(on_step: OnStep) -> None:
        class Clock(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                control.should_training_stop = not on_step()

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=shape.batch_size,
                max_steps=FOREVER,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=on.device == "cpu",
                bf16=on.bfloat16,
            )
            data = RandomTokens(shape)
            work = Trainer(llama(shape), arguments, train_dataset=data, callbacks=[Clock()])
            work.remove_callback(PrinterCallback)  # it fills standard output
            work.train()

    return train


def llama_loop(shape: Shape, tokens: Path, on: On) -> Train:
    """nanoGPT's loop on a Llama."""

    def train(on_step: OnStep) -> None:
        model = llama(shape).to(on.device)
        forward = torch.compile(model, backend=on.backend) if on.backend else model

        def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
            # shift_labels: the targets are the next tokens already
            return forward(input_ids=inputs, labels=targets, shift_labels=targets).loss

        run_loop(loss_of, model, batches(shape, tokens, on), on, on_step)

    return train
