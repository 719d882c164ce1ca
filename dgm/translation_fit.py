r"""The game of a translation: maps against judges, and what the one-sided methods need beside.

A method is two functions: the loss of its maps, which also returns what they made, and the loss of
its judges (discriminators or a potential) on what was made.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.translation import patch_nce
from dgm.translation_nets import TranslationUNet, patch_features


@dataclass(frozen=True)
class GameFit:
    """How to play: rounds, Adam rates of maps and judges, betas, map steps in each round.

    Rates are constant for the first half and fall linearly to 0 in the second; Zhu et al. (2017),
    sec. 4.
    """

    rounds: int
    lr_map: float = 1e-3
    lr_judge: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.999)
    map_steps: int = 1

    def rate(self, k: int) -> float:
        """Part of the full rates in round k, in (0, 1]."""
        return min(1.0, 2 * (self.rounds - k) / self.rounds)


def play_game(
    map_loss: Callable,
    judge_loss: Callable,
    maps: nn.Module,
    judges: nn.Module,
    batches: Iterable,
    cfg: GameFit,
) -> Iterator[tuple[float, float]]:
    """Play cfg.rounds rounds; yields the losses of maps and of judges, each before its step.

    map_loss(batch) -> (loss (), what the maps made: a tuple of tensors); judge_loss(batch, made)
    -> (). The judges' parameters take no gradient in the maps' steps, and what was made has no
    graph when the judges see it, so that neither side is moved by the other's loss.
    """
    opt_map = torch.optim.Adam(maps.parameters(), cfg.lr_map, cfg.betas)
    opt_judge = torch.optim.Adam(judges.parameters(), cfg.lr_judge, cfg.betas)
    draw = iter(batches)
    for k in range(cfg.rounds):
        opt_map.param_groups[0]["lr"] = cfg.lr_map * cfg.rate(k)
        opt_judge.param_groups[0]["lr"] = cfg.lr_judge * cfg.rate(k)
        judges.requires_grad_(False)
        for _ in range(cfg.map_steps):
            batch = next(draw)
            value, made = map_loss(batch)
            _game_step(opt_map, value)
        judges.requires_grad_(True)
        verdict = judge_loss(batch, tuple(a.detach() for a in made))
        _game_step(opt_judge, verdict)
        yield value.item(), verdict.item()


def _game_step(opt: torch.optim.Optimizer, loss: Tensor) -> None:
    opt.zero_grad()
    loss.backward()
    opt.step()


def encoder_features(net: TranslationUNet, x: Tensor) -> list[Tensor]:
    """What a U-Net without noise sees on its way down: (B, width, H/2, W/2), (B, 2 width, ...)."""
    fine = net.down1(x)
    return [fine, net.down2(fine)]


class PatchHead(nn.Module):
    """A small network for each level of features; Park et al. (2020), sec. 3.2, (B, P, C) -> K."""

    def __init__(self, channels: tuple[int, ...], d: int = 32):
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Linear(c, 64), nn.ReLU(), nn.Linear(64, d)) for c in channels
        )

    def forward(self, features: list[Tensor], places: list[Tensor]) -> list[Tensor]:
        """Features (B, C, H, W) and places (2, P) of each level -> (B, P, d) of each level."""
        at = [patch_features(f, *p) for f, p in zip(features, places)]
        return [level(a) for level, a in zip(self.levels, at)]


def random_places(h: int, w: int, n: int, rng: torch.Generator) -> Tensor:
    """Rows and columns of n different pixels of an h x w map, (2, n)."""
    at = torch.randperm(h * w, generator=rng)[:n]
    return torch.stack([at // w, at % w])


def contrast_loss(
    net: TranslationUNet, head: PatchHead, x: Tensor, y_fake: Tensor, rng: torch.Generator
) -> Tensor:
    """PatchNCE between x and its translation, mean over two levels, (B,); Park et al. (2020).

    Both images go through the generator's own encoder. 32 places of each level; the features of
    x are held fixed.
    """
    asked, given = encoder_features(net, y_fake), encoder_features(net, x)
    places = [random_places(f.shape[2], f.shape[3], 32, rng) for f in asked]
    queries, keys = head(asked, places), head(given, places)
    return sum(patch_nce(q, k.detach()) for q, k in zip(queries, keys)) / len(queries)


class ImagePotential(nn.Module):
    """A number for each image: (B, c, 28, 28) -> (B,). No normalisation: one x, one value."""

    def __init__(self, c: int, width: int = 24):
        super().__init__()
        sizes = (c, width, 2 * width, 4 * width)
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(sizes, sizes[1:])
        )
        self.value = nn.Linear(4 * width * 9, 1)

    def forward(self, y: Tensor) -> Tensor:
        """(B, c, 28, 28) -> (B,)."""
        for conv in self.conv:
            y = F.leaky_relu(conv(y), 0.2)  # 14, 7, 3
        return self.value(y.flatten(1))[:, 0]
