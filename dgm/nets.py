"""Networks that several topics share."""

from collections.abc import Callable

from torch import Tensor, nn


class Mlp(nn.Module):
    """Multilayer perceptron d_in -> hidden -> ... -> d_out; x (B, d_in) -> (B, d_out)."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        hidden: int = 128,
        depth: int = 3,
        act: Callable[[], nn.Module] = nn.SiLU,
    ):
        super().__init__()
        sizes = [d_in] + [hidden] * depth
        layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), act())]
        self.net = nn.Sequential(*layers, nn.Linear(sizes[-1], d_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, d_in) -> (B, d_out)."""
        return self.net(x)
