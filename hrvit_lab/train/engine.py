"""One optimizer step of any task: precision, accumulation, clipping, moving average, several processes.

Every random number of a step is a function of (seed, step, rank), so a step is reproducible after a restart.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hrvit_lab.network.seeding import seeded
from hrvit_lab.train.data.order import mixed
from hrvit_lab.train.distributed import Ranks
from hrvit_lab.train.loop import TrainingDiverged
from hrvit_lab.train.sync_norm import synchronised

Loss = Callable[[Any, Tensor], Tensor]
"""(output of the model in training mode, targets) → mean loss, float32."""

MIN_SCALE = 1e-6
"""A gradient scaler falls below this scale only after dozens of steps without finite gradients."""


@dataclass(frozen=True)
class EngineOptions:
    """Options of a training step.

    Attributes:
        dtype: of activations under autocast: ``float32`` (no autocast), ``bfloat16``, or ``float16`` with a gradient
            scaler.
        accumulate: number of parts of a batch whose gradients are accumulated before a step, equal in all processes;
            at most the images of a process.
        clip: gradient clipping limit; None: no clipping.
        clip_mode: ``"value"`` of each element or ``"norm"`` of all.
        ema_decay: decay of the moving average of the weights per step, None for no average.
        sync_batch_norm: BatchNorm over the batches of all processes.
        channels_last: memory format of the model and its input.
        compile: whether each block is compiled by ``torch.compile``.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulate: int = 1
    clip: float | None = None
    clip_mode: Literal["value", "norm"] = "value"
    ema_decay: float | None = None
    sync_batch_norm: bool = False
    channels_last: bool = False
    compile: bool = False


class StepResult(NamedTuple):
    """Attributes:
    loss: mean over this process's part of the batch.
    rate: learning rate of the step.
    """

    loss: float
    rate: float


class Engine:
    """A model in training.

    Args:
        model: on its device; trained in place.
        loss: of the task.
        optimizer: over the model's parameters, with ``lr_scale`` in its groups.
        rate: learning rate by the number of finished steps.
        options: of a step.
        seed: of all random numbers.
        ranks: the processes of this training.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        rate: Callable[[int], float],
        options: EngineOptions,
        *,
        seed: int,
        ranks: Ranks,
    ) -> None:
        self.device = next(model.parameters()).device
        self.model = synchronised(model) if options.sync_batch_norm and ranks.size > 1 else model
        self.loss = loss
        self.optimizer = optimizer
        self.rate = rate
        self.options = options
        self.seed = seed
        self.ranks = ranks
        self.step = 0
        if options.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if options.compile:
            compile_blocks(self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.dtype == "float16")
        self.ema: nn.Module | None = None
        if options.ema_decay is not None:
            from timm.utils import ModelEmaV3  # imported here because it is as slow as torch

            self.ema = ModelEmaV3(self.model, decay=options.ema_decay, exclude_buffers=False)
        self.wrapped: nn.Module = self.model
        if ranks.size > 1:
            devices = [self.device] if self.device.type == "cuda" else None
            self.wrapped = DistributedDataParallel(self.model, device_ids=devices)

    def train_step(self, x_BCHW: Tensor, targets: Tensor, global_batch: int) -> StepResult:
        """Update the weights by one batch.

        Args:
            x_BCHW: this process's images, (B, C, H, W).
            targets: of the task, B in front.
            global_batch: number of images of all processes in this step; all images have the same weight.
        Raises:
            TrainingDiverged: if the loss is not finite, or the scaler finds no finite gradients.
        """
        rate = self.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.wrapped.train()
        self.optimizer.zero_grad(set_to_none=True)
        x_BCHW = x_BCHW.to(self.device, non_blocking=True)
        targets = targets.to(self.device, non_blocking=True)
        if self.options.channels_last:
            x_BCHW = x_BCHW.to(memory_format=torch.channels_last)
        parts = self.options.accumulate
        assert parts <= len(x_BCHW), "a process without an image would skip the collective operations of the others"
        total = 0.0
        with seeded(mixed(self.seed, self.step, self.ranks.rank), self.device):
            for number, (x, y) in enumerate(zip(x_BCHW.tensor_split(parts), targets.tensor_split(parts), strict=True)):
                with self._without_sync(number < parts - 1):
                    with self._autocast():
                        output = self.wrapped(x)
                    loss = self.loss(output, y)
                    # DistributedDataParallel averages over processes; the weights turn this into the mean over images.
                    weight = len(x) * self.ranks.size / global_batch
                    self.scaler.scale(loss * weight).backward()
                    total += float(loss.detach()) * len(x)
        mean = total / len(x_BCHW)
        if self.ranks.any(not math.isfinite(mean), self.device):  # all processes end, as they wait for each other
            raise TrainingDiverged(
                f"the training loss is not finite in step {self.step + 1}; lower the learning rate ({rate:g}) or raise "
                "the warm-up"
            )
        self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < MIN_SCALE:
            raise TrainingDiverged(f"no finite gradient up to step {self.step + 1} in float16; use bfloat16 or float32")
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.model, step=self.step)  # type: ignore[operator]
        return StepResult(mean, rate)

    @property
    def averaged(self) -> nn.Module | None:
        """The model with averaged weights, in evaluation mode; None without an average."""
        return None if self.ema is None else cast(nn.Module, self.ema.module)

    def state(self) -> dict[str, Any]:
        """The engine's state for a checkpoint: tensors and numbers."""
        return {
            "step": self.step,
            "seed": self.seed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.averaged is None else self.averaged.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])
        self.step = state["step"]

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.options.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.options.dtype))

    def _without_sync(self, more: bool) -> contextlib.AbstractContextManager[Any]:
        """Skip the synchronization of gradients, except for the last part of a batch."""
        return self.wrapped.no_sync() if more and isinstance(self.wrapped, DistributedDataParallel) else (
            contextlib.nullcontext()
        )  # fmt: skip

    def _clip(self) -> None:
        if self.options.clip is None:
            return
        self.scaler.unscale_(self.optimizer)
        parameters: Sequence[nn.Parameter] = list(self.model.parameters())
        if self.options.clip_mode == "value":
            nn.utils.clip_grad_value_(parameters, self.options.clip)
        else:
            nn.utils.clip_grad_norm_(parameters, self.options.clip)


def compile_blocks(model: nn.Module) -> None:
    """Compile each block in place. Names of weights do not change, and equal blocks share their code."""
    from hrvit_lab.network.blocks import Block

    blocks: list[nn.Module] = [module for module in model.modules() if isinstance(module, Block)]
    for module in blocks or [model]:
        module.compile(dynamic=False)
