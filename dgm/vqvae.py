"""The vector-quantised VAE: nearest codes, straight-through gradients, EMA codebook, networks.

van den Oord et al. (2017). An image becomes a small grid of integers; a codebook of M vectors of
length C gives the integers meaning.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.data import binarise
from dgm.vae import bernoulli_log_prob


class Quantised(NamedTuple):
    """What quantisation returns; the losses are per example, summed over sites and channels."""

    z_q: Tensor  # chosen code vectors, gradient straight through to z_e, (B, S, C)
    codes: Tensor  # their indices, (B, S), int64
    codebook: Tensor  # ||sg[z_e] - e||^2: moves the codes to the encoder, (B,)
    commitment: Tensor  # ||z_e - sg[e]||^2: holds the encoder near its code, (B,)


def nearest_code(z_e: Tensor, book: Tensor) -> Tensor:
    """Index of the nearest code, squared Euclidean; eq. 1. z_e (..., C), book (M, C) -> (...,)."""
    # ||z||^2 is the same for every code, so it is left out of the comparison
    return (book.square().sum(-1) - 2 * z_e @ book.T).argmin(-1)


def quantise(z_e: Tensor, book: Tensor) -> Quantised:
    """Replace each vector by its nearest code; van den Oord et al. (2017), eq. 3.

    z_e (B, S, C) for S sites, book (M, C). Forward: z_q = code. Backward: dz_q/dz_e = identity.
    """
    codes = nearest_code(z_e, book)
    e = book[codes]  # (B, S, C)
    z_q = z_e + (e - z_e).detach()  # value e, gradient that of z_e
    return Quantised(
        z_q,
        codes,
        (z_e.detach() - e).square().sum((1, 2)),
        (z_e - e.detach()).square().sum((1, 2)),
    )


def perplexity(codes: Tensor, n_codes: int) -> Tensor:
    """exp of the entropy of the codes' frequencies: how many are in use, between 1 and n_codes."""
    p = torch.bincount(codes.flatten(), minlength=n_codes) / codes.numel()
    return torch.special.entr(p).sum().exp()


class EmaCodebook(nn.Module):
    """A codebook that follows running means instead of a gradient; van den Oord et al., app. A.1.

    book (M, C), counts (M,) and sums (M, C) are buffers: saved with the model, unseen by Adam.
    """

    def __init__(self, n_codes: int, C: int, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("book", torch.randn(n_codes, C))
        self.register_buffer("counts", torch.ones(n_codes))
        self.register_buffer("sums", self.book.clone())

    @torch.no_grad()
    def update(self, z_e: Tensor, codes: Tensor) -> None:
        """Move each code towards the mean of the vectors that chose it. z_e (..., C)."""
        z, hit = z_e.flatten(0, -2), F.one_hot(codes.flatten(), len(self.book)).to(z_e)  # (N, M)
        self.counts.lerp_(hit.sum(0), 1 - self.decay)
        self.sums.lerp_(hit.T @ z, 1 - self.decay)
        self.book.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def restart(self, z_e: Tensor, rng: torch.Generator, floor: float = 0.5) -> int:
        """Put codes used less than `floor` times a batch onto random encoder outputs.

        Returns how many were dead. Without it a code that loses once may never be chosen again.
        """
        dead = self.counts < floor
        z = z_e.flatten(0, -2)
        rows = torch.randint(len(z), (int(dead.sum()),), generator=rng)
        self.book[dead] = self.sums[dead] = z[rows]
        self.counts[dead] = 1.0
        return len(rows)


class VQVAE(nn.Module):
    """28x28 image -> 7x7 grid of C-vectors -> codes -> pixel logits, by small convolutions."""

    def __init__(self, n_codes: int = 64, C: int = 16, width: int = 32):
        super().__init__()
        self.codebook = EmaCodebook(n_codes, C)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),  # (B, width, 14, 14)
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),  # (B, 2 width, 7, 7)
            nn.SiLU(),
            nn.Conv2d(2 * width, C, 3, 1, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(C, 2 * width, 3, 1, 1),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),  # (B, width, 14, 14)
            nn.SiLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),  # (B, 1, 28, 28)
        )

    def encode(self, x: Tensor) -> Tensor:
        """x (B, 1, 28, 28) -> z_e (B, 49, C), sites row by row."""
        return self.encoder(x).flatten(2).transpose(1, 2)

    def decode(self, z_q: Tensor) -> Tensor:
        """z_q (B, 49, C) -> pixel logits (B, 784)."""
        grid = z_q.transpose(1, 2).unflatten(2, (7, 7))
        return self.decoder(grid).flatten(1)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, 49) -> pixel logits (B, 784)."""
        return self.decode(self.codebook.book[codes])


def vq_loss(m: VQVAE, rng: torch.Generator, restart_until: int) -> Callable:
    """Loss of a batch of grey images: binarise, -log p(x | z_q) + 0.25 commitment, mean nats.

    As a side effect the codebook follows its means and, every 20 calls before `restart_until`,
    dead codes are restarted.
    """
    calls = iter(range(10**9))

    def loss(x: Tensor) -> Tensor:
        x, call = binarise(x, rng), next(calls)
        z_e = m.encode(x)
        out = quantise(z_e, m.codebook.book)
        m.codebook.update(z_e, out.codes)
        if call % 20 == 0 and call < restart_until:
            m.codebook.restart(z_e.detach(), rng)
        recon = bernoulli_log_prob(x.flatten(1), m.decode(out.z_q))
        return (0.25 * out.commitment - recon).mean()

    return loss


@torch.no_grad()
def encode_codes(m: VQVAE, x: Tensor) -> Tensor:
    """Codes of binary images, in parts of 1,000. x (N, 784) -> (N, 49), int64."""
    parts = [m.encode(v.reshape(-1, 1, 28, 28)) for v in x.split(1000)]
    return torch.cat([nearest_code(z_e, m.codebook.book) for z_e in parts])
