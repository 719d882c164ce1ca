r"""Conditional GANs: how a discriminator learns of the label. Discriminators return logits (B,).

Letters: y (B,) are labels 0 .. n - 1, phi (B, K) are a discriminator's features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProjectionHead(nn.Module):
    """psi(phi) + <v_y, phi>; Miyato and Koyama (2018). Only matched pairs are rewarded.

    It is exact where log p(y | x) - log q(y | x) is linear in the features.
    """

    def __init__(self, d: int, classes: int):
        super().__init__()
        self.psi, self.v = nn.Linear(d, 1), nn.Embedding(classes, d)

    def forward(self, phi: Tensor, y: Tensor) -> Tensor:
        """phi (B, d), y (B,) -> logits (B,)."""
        return self.psi(phi)[:, 0] + (self.v(y) * phi).sum(1)


class AuxiliaryHead(nn.Module):
    """Logit of being real, and logits of the label beside it; Odena et al. (2017), sec. 3."""

    def __init__(self, d: int, classes: int):
        super().__init__()
        self.real, self.label = nn.Linear(d, 1), nn.Linear(d, classes)

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """phi (B, d) -> logits (B,) and (B, classes)."""
        return self.real(phi)[:, 0], self.label(phi)


def auxiliary_loss(label_logits: Tensor, y: Tensor) -> Tensor:
    """-log of the belief in the right label, (B,); Odena et al. (2017), negated.

    Discriminator and generator both minimise it, on real data and on fakes: the generator is paid
    for pictures that are easy to name, also where the data are not.
    """
    return F.cross_entropy(label_logits, y, reduction="none")


def with_label(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """x with the label beside it as an input: Mirza and Osindero (2014), figure 1.

    x (B, D) gets one-hot columns, (B, D + classes); x (B, C, H, W) constant maps.
    """
    hot = F.one_hot(y, classes).to(x.dtype)
    if x.ndim > 2:
        hot = hot[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, hot], 1)
