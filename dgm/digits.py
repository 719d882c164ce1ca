"""A small frozen classifier of MNIST digits: its features for a Frechet distance, its labels.

The distance on these features is not the FID, which uses another network and other preparation.
`python -m dgm.digit_classifier` trains it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgm.weights import load_weights

DIGIT_WEIGHTS = "digit_features.safetensors"
DIGIT_SHA256 = "e742b9487aa91e46272c3d2ac2311ffa9d41d647c5eda01fd0dabe1c0c67bff4"


class DigitNet(nn.Module):
    """Three strided convolutions, 64 features, 10 logits; x (B, 1, 28, 28) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.conv = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in [(1, 16), (16, 32), (32, 48)]
        )
        self.to_features = nn.Linear(48 * 4 * 4, 64)
        self.to_logits = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 64), before the last activation."""
        for conv in self.conv:
            x = F.silu(conv(x))  # (B, 16, 14, 14), (B, 32, 7, 7), (B, 48, 4, 4)
        return self.to_features(x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes, (B, 10)."""
        return self.to_logits(F.silu(self.features(x)))


def digit_net() -> DigitNet:
    """The trained classifier, frozen; FileNotFoundError where its weights cannot be had."""
    state = load_weights(DIGIT_WEIGHTS, DIGIT_SHA256)
    if state is None:
        raise FileNotFoundError(
            f"{DIGIT_WEIGHTS} is needed: take it from the course's weights/ to beside the notebook"
        )
    net = DigitNet()
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


@torch.no_grad()
def digit_features(x: Tensor, net: DigitNet) -> Tensor:
    """Features (N, 64) of images x (N, 1, 28, 28) in [0, 1], for `frechet_distance`."""
    return torch.cat([net.features(part) for part in x.split(1000)])


@torch.no_grad()
def class_shares(x: Tensor, net: DigitNet) -> Tensor:
    """Part of the images x (N, 1, 28, 28) that the classifier takes for each digit, (10,)."""
    labels = torch.cat([net(part).argmax(1) for part in x.split(1000)])
    return torch.bincount(labels, minlength=10) / len(x)
