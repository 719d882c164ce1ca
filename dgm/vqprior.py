"""An autoregressive prior over the codes of a VQ-VAE: p(c | y) = prod_i p(c_i | c_<i, y)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CodePrior(nn.Module):
    """A recurrent network over the 7x7 codes in raster order, told the class y.

    At site i it sees the code on the left, the one above, the site and, through its state, all
    earlier ones. codes (B, S) -> logits (B, S, n_codes), where logits[:, i] uses codes[:, :i].
    """

    def __init__(self, n_codes: int, side: int = 7, hidden: int = 128, n_classes: int = 10):
        super().__init__()
        self.n_codes, self.side = n_codes, side
        self.left = nn.Embedding(n_codes + 1, hidden // 2)  # the last index means "none yet"
        self.above = nn.Embedding(n_codes + 1, hidden // 2)
        self.site = nn.Parameter(0.1 * torch.randn(side * side, hidden // 2))
        self.label = nn.Embedding(n_classes, hidden)
        self.rnn = nn.GRU(hidden // 2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, n_codes)

    def _inputs(self, codes: Tensor) -> Tensor:
        start = codes.new_full((len(codes), self.side), self.n_codes)
        shifted = torch.cat([start, codes], 1)  # site i finds codes[i - side] at index i
        left = shifted[:, self.side - 1 : -1]
        return self.left(left) + self.above(shifted[:, : -self.side]) + self.site

    def forward(self, codes: Tensor, y: Tensor) -> Tensor:
        """Logits of every code given the earlier ones. codes (B, S), y (B,) -> (B, S, n_codes)."""
        h, _ = self.rnn(self._inputs(codes), self.label(y)[None])
        return self.out(h)

    def log_prob(self, codes: Tensor, y: Tensor) -> Tensor:
        """log p(codes | y), nats. codes (B, S), y (B,) -> (B,)."""
        return -F.cross_entropy(self(codes, y).transpose(1, 2), codes, reduction="none").sum(1)

    @torch.no_grad()
    def sample(self, y: Tensor, rng: torch.Generator) -> Tensor:
        """Draw codes site by site. y (B,) -> (B, S)."""
        S = self.side**2
        codes = y.new_zeros(len(y), S)
        for i in range(S):  # the whole prefix anew: simple, and cheap for 49 sites
            p = self(codes, y)[:, i].softmax(-1)
            codes[:, i] = torch.multinomial(p, 1, generator=rng)[:, 0]
        return codes
