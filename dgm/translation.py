r"""Losses of domain translation: paired, cyclic, contrastive, distance-preserving, by transport.

Letters: x (B, *D) from the source domain, y (B, *D) from the target, G: x -> y, F: y -> x. All
losses are per example, (B,), to minimise, unless said otherwise. Images are in [-1, 1].
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each example, (B,); its minimiser is the conditional median."""
    return (a - b).abs().flatten(1).mean(1)


def l2(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of each example, (B,); its minimiser is the conditional mean."""
    return (a - b).square().flatten(1).mean(1)


def least_squares_loss(value: Tensor, target: float) -> Tensor:
    """(D - target)^2, over all patches of an example, (B,); Mao et al. (2017), eq. 2.

    value (B,) or (B, h, w). Discriminator: target 1 on real, 0 on fake; generator: 1 on fake.
    """
    return (value - target).square().reshape(len(value), -1).mean(1)


def pair_loss(discriminator: Callable, x: Tensor, y_fake: Tensor, y: Tensor, lam: float) -> Tensor:
    """-log D(x, G(x)) + lam |y - G(x)|_1, (B,): the generator's; Isola et al. (2017), eq. 4.

    discriminator(x, y) gives logits (B,) or (B, h, w): it sees the question with the answer.
    """
    logits = discriminator(x, y_fake)
    return F.softplus(-logits).reshape(len(x), -1).mean(1) + lam * l1(y_fake, y)


def diversity_ratio(y_1: Tensor, y_2: Tensor, z_1: Tensor, z_2: Tensor) -> Tensor:
    """|G(x, z1) - G(x, z2)|_1 / |z1 - z2|_1, (B,): to *maximise*; Mao et al. (2019).

    0 says that the generator ignores its noise.
    """
    return l1(y_1, y_2) / l1(z_1, z_2)


def cycle_loss(forth: Callable, back: Callable, x: Tensor) -> Tensor:
    """|F(G(x)) - x|_1, (B,); one of the two terms of Zhu et al. (2017), eq. 2.

    Zero for every bijection and its inverse: it says nothing about which one.
    """
    return l1(back(forth(x)), x)


def identity_loss(forth: Callable, y: Tensor) -> Tensor:
    """|G(y) - y|_1 on the *target* domain, (B,); Zhu et al. (2017), sec. 5.2."""
    return l1(forth(y), y)


def patch_nce(query: Tensor, keys: Tensor, tau: float = 0.07) -> Tensor:
    """Each patch finds its own among the P of one image, (B,); Park et al. (2020), eq. 3.

    query (B, P, K) features of G(x), keys (B, P, K) features of x at the same places. Features
    are normalised to the unit sphere; the negatives are the other places of the same image.
    """
    q, k = F.normalize(query, dim=2), F.normalize(keys, dim=2)
    logits = q @ k.transpose(1, 2) / tau  # (B, P, P)
    return -logits.log_softmax(2).diagonal(dim1=1, dim2=2).mean(1)


def distance_loss(x: Tensor, y: Tensor) -> Tensor:
    """Standardised distances of pairs are kept, (); Benaim and Wolf (2017).

    x (B, *D), y = G(x) (B, *D), paired by place: |d(x_i, x_j) - d(y_i, y_j)| over all pairs i < j,
    each side with its mean taken off and divided by its standard deviation, over these pairs.
    """
    sides = []
    for a in (x, y):
        d = torch.pdist(a.flatten(1), p=1) / a[0].numel()
        sides.append((d - d.mean()) / (d.std(correction=0) + 1e-8))
    return (sides[0] - sides[1]).abs().mean()


def geometry_loss(forth: Callable, turn: Callable, x: Tensor) -> Tensor:
    """|G(turn(x)) - turn(G(x))|_1, (B,): translation commutes with a rotation; Fu et al. (2019).

    turn: a map of images that both domains survive, such as a quarter turn or a flip.
    """
    return l1(forth(turn(x)), turn(forth(x)))


def ot_map_loss(potential: Callable, x: Tensor, y_fake: Tensor) -> Tensor:
    """|x - T(x)|^2 / 2 - f(T(x)), (B,): the map's side of the max-min.

    sup over f, inf over T of E[c(x, T(x)) - f(T(x))] + E f(y); Korotin et al. (2023), "Neural
    optimal transport", without noise in T.
    """
    return (x - y_fake).square().flatten(1).sum(1) / 2 - potential(y_fake)


def ot_potential_loss(potential: Callable, y_fake: Tensor, y: Tensor) -> Tensor:
    """f(T(x)) - f(y), (B,): the potential's side of the same, to minimise."""
    return potential(y_fake.detach()) - potential(y)


class ImagePool:
    """The last `size` fakes: a discriminator's fakes are half old, half new; Zhu et al., sec. 4.

    With its own generator of random numbers; `size` = 0 gives the new ones back.
    """

    def __init__(self, size: int, rng: torch.Generator):
        self.size, self.rng, self.kept = size, rng, []

    def swap(self, fakes: Tensor) -> Tensor:
        """fakes (B, *D) without their graph -> (B, *D), about half of them from earlier calls."""
        out = []
        for fake in fakes.detach():
            if len(self.kept) < self.size:
                self.kept.append(fake)
            elif self.size and torch.rand((), generator=self.rng) < 0.5:
                k = int(torch.randint(self.size, (), generator=self.rng))
                self.kept[k], fake = fake, self.kept[k]
            out.append(fake)
        return torch.stack(out)
