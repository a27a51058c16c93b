"""From token files to the device: batches made ahead of the step that wants them."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 1 << 22
MAX_CHUNK_STEPS = 16
AHEAD = 2


class Feed:
    """Batches (K, B, T + 1) by step, made in chunks of several steps.

    On a GPU the next chunks are drawn by a thread, pinned, and copied while the device works; on a
    CPU a thread would only take turns with the training, so chunks are drawn when they are wanted.

    Args:
        draw: (first step, number of steps) -> token ids (steps, K, B, T + 1); a pure function.
        step_bytes: of one step's batch, to choose the steps of a chunk.
        last_step: no step at or after it is drawn ahead.
    """

    def __init__(
        self,
        draw: Callable[[int, int], np.ndarray],
        *,
        step_bytes: int,
        last_step: int,
        device: torch.device,
    ):
        self.draw, self.device, self.last_step = draw, device, last_step
        self.chunk_steps = max(1, min(MAX_CHUNK_STEPS, CHUNK_BYTES // step_bytes))
        self.first, self.chunk = 0, torch.empty(0)
        self.ahead = _Ahead(self._make, last_step) if device.type == "cuda" else None

    def __call__(self, step: int) -> Tensor:
        """The batch of a step, on the device."""
        if not self.first <= step < self.first + len(self.chunk):
            self.first = step
            self.chunk = self.ahead.get(step) if self.ahead else self._make(step)
        return self.chunk[step - self.first].to(self.device, non_blocking=True)

    def renew(self, last_step: int) -> None:
        """Other batches come from now on, as far as `last_step`: forget what was drawn."""
        self.last_step, self.chunk = last_step, torch.empty(0)
        if self.ahead:
            self.ahead.renew(last_step)

    def close(self) -> None:
        """End the thread, if there is one."""
        if self.ahead:
            self.ahead.stop.set()

    def _make(self, first: int) -> Tensor:
        count = max(1, min(self.chunk_steps, self.last_step - first))
        chunk = torch.from_numpy(self.draw(first, count))
        return chunk.pin_memory() if self.device.type == "cuda" else chunk


class _Ahead:
    """Makes the chunks that follow each other in a thread, and starts anew where they do not."""

    def __init__(self, make: Callable[[int], Tensor], last_step: int):
        self.make, self.last_step = make, last_step
        self.next_step: int | None = None
        self.ready: queue.Queue[Tensor | BaseException] = queue.Queue()
        self.stop = threading.Event()

    def get(self, step: int) -> Tensor:
        if step != self.next_step:
            self._start(step)
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        self.next_step = step + len(found)
        return found

    def renew(self, last_step: int) -> None:
        self.stop.set()
        self.last_step, self.next_step = last_step, None

    def _start(self, step: int) -> None:
        self.stop.set()
        stop, ready = threading.Event(), queue.Queue(maxsize=AHEAD)
        self.stop, self.ready = stop, ready

        def hand_over(what: Tensor | BaseException) -> None:
            while not stop.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(what, timeout=1)
                    return

        def work(first: int) -> None:
            try:
                while first < self.last_step and not stop.is_set():
                    chunk = self.make(first)
                    first += len(chunk)
                    hand_over(chunk)
            except BaseException as error:  # of the sampler or the disk: raised where it is read
                hand_over(error)

        self.thread = threading.Thread(target=work, args=(step,), daemon=True)
        self.thread.start()
