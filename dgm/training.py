"""Training as a generator: rate schedules, and a loop that resumes exactly.

The caller logs, plots and stops early; nothing here prints except `progress`. Randomness is handed
down as a generator, and a checkpoint holds all of it, so that a resumed run repeats the
uninterrupted one bit for bit on a CPU.
"""

import copy
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dgm.batches import Minibatches, minibatches  # noqa: F401  (part of the loop)


@dataclass(frozen=True)
class Fit:
    """How to train: number of steps, learning rate and its schedule, clipping, checkpoints.

    `lr` is the highest rate of the schedule, "constant" or "one_cycle"; `clip` bounds the l2 norm
    of the gradient (0: no bound); `save_every` is in seconds.
    """

    steps: int
    lr: float = 1e-3
    schedule: str = "constant"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 0.0
    save_every: float = 120.0


def learning_rate(step: int, cfg: Fit) -> float:
    """Rate of the 0-based step `step`: constant, or one cycle (Smith & Topin, 2018).

    One cycle: a half cosine from lr/25 up to lr over the first 30 % of the steps, then one down to
    lr/250,000. Raises ValueError for another schedule.
    """
    if cfg.schedule == "constant":
        return cfg.lr
    if cfg.schedule != "one_cycle":
        raise ValueError(f"schedule is 'constant' or 'one_cycle', not {cfg.schedule!r}")
    top = 0.3 * cfg.steps - 1
    if step <= top:
        low, high, at = cfg.lr / 25, cfg.lr, step / max(top, 1e-9)
    else:
        low, high, at = cfg.lr, cfg.lr / 250_000, (step - top) / max(cfg.steps - 1 - top, 1e-9)
    return high + (low - high) * (1 + math.cos(math.pi * at)) / 2


def fit(
    loss: Callable[[Any], Tensor],
    module: nn.Module,
    batches: Iterable,
    cfg: Fit,
    checkpoint: str | os.PathLike | None = None,
    rng: torch.Generator | None = None,
    also: Mapping[str, Any] | None = None,
) -> Iterator[float]:
    """Adam on the scalar loss(batch), cfg.steps times; yields each loss, before its step.

    With `checkpoint` (a path) the state is saved every cfg.save_every seconds and at the end, and
    a file that is already there is resumed: the losses so far are yielded at once (with the state
    of the last), then training goes on. The file holds the module, Adam, `batches`, `rng` and what
    stands in `also` (such as {"ema": ema}); batches: `minibatches(...)`, or drawn from `rng` alone.
    """
    opt = torch.optim.Adam(
        module.parameters(), lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay
    )
    parts = {"module": module, "opt": opt, **(also or {})}
    if hasattr(batches, "state_dict"):
        parts["batches"] = batches
    if checkpoint and rng is None and "batches" not in parts:
        raise ValueError("to resume exactly, pass rng=, or batches made by minibatches(...)")
    losses = _resume(checkpoint, parts, rng, cfg)
    if losses:
        yield from losses
        _resume(checkpoint, parts, rng, cfg)  # undoes what the caller did to them meanwhile
    saved, draw = time.monotonic(), iter(batches)
    for step in range(len(losses), cfg.steps):
        if checkpoint and time.monotonic() - saved >= cfg.save_every:
            _save_checkpoint(checkpoint, parts, rng, cfg, losses)
            saved = time.monotonic()
        losses.append(_adam_step(loss, module, opt, next(draw), learning_rate(step, cfg), cfg.clip))
        yield losses[-1]
    if checkpoint:
        _save_checkpoint(checkpoint, parts, rng, cfg, losses)


def _adam_step(loss, module, opt, batch, lr, clip) -> float:
    for group in opt.param_groups:
        group["lr"] = lr
    opt.zero_grad()
    value = loss(batch)
    value.backward()
    if clip:
        nn.utils.clip_grad_norm_(module.parameters(), clip)
    opt.step()
    return value.item()


def _save_checkpoint(path, parts, rng, cfg, losses) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"cfg": asdict(cfg), "losses": losses, "global_rng": torch.get_rng_state()}
    state["rng"] = None if rng is None else rng.get_state()
    part_file = Path(f"{path}.part")
    torch.save(state, part_file)
    part_file.replace(path)  # a disconnect while writing must not destroy the last good file


def _resume(path, parts, rng, cfg) -> list[float]:
    if path is None or not Path(path).exists():
        return []
    state = torch.load(path, weights_only=True)
    if state["cfg"] | {"save_every": 0} != asdict(cfg) | {"save_every": 0}:
        raise ValueError(
            f"{path} was made with {state['cfg']}, now asked for {asdict(cfg)}: "
            "delete the file to train anew, or take the old settings to resume"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    if rng is not None:
        rng.set_state(state["rng"])
    torch.set_rng_state(state["global_rng"])  # dropout reads it
    return state["losses"]


class Ema(nn.Module):
    """Exponential moving average of a module's parameters: average <- decay * average + rest.

    `average` is a module like the original that holds the averages; buffers are copied.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999):
        super().__init__()
        self.decay, self.average = decay, copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the averages one step towards `module`."""
        for mean, new in zip(self.average.parameters(), module.parameters()):
            mean.lerp_(new, 1 - self.decay)
        for mean, new in zip(self.average.buffers(), module.buffers()):
            mean.copy_(new)


def progress(values: Iterable[float], total: int, name: str = "") -> Iterator[float]:
    """Pass losses on, with a plain-text bar on stdout: done, seconds, seconds left, mean loss."""
    bar = tqdm(total=total, desc=name, ascii=True, ncols=88, mininterval=1.0, file=sys.stdout)
    mean = None
    with bar:
        for value in values:
            mean = value if mean is None else 0.98 * mean + 0.02 * value
            bar.set_postfix_str(f"loss {mean:.4g}", refresh=False)
            bar.update()
            yield value
