"""Train the digit classifier of `digits`: python -m dgm.digit_classifier [--seed 0].

Trains on MNIST, shifted by up to two pixels, writes weights/digit_features.safetensors and prints
what weights/README.md records.
"""

import argparse
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from dgm.data import load_images
from dgm.digits import DIGIT_WEIGHTS, DigitNet
from dgm.image_files import DataError
from dgm.training import Fit, fit, minibatches, progress
from dgm.weights import save_weights


def shifted(x: Tensor, rng: torch.Generator, by: int = 2) -> Tensor:
    """Each image of x (B, 1, H, W) moved by -by .. by pixels both ways, zeros coming in."""
    b, _, h, w = x.shape
    x = F.pad(x, (by, by, by, by))
    dy, dx = torch.randint(2 * by + 1, (2, b, 1, 1), generator=rng)
    rows, columns = dy + torch.arange(h)[:, None], dx + torch.arange(w)  # (B, H, 1), (B, 1, W)
    return x[torch.arange(b)[:, None, None], 0, rows, columns][:, None]


def train_digit_net(steps: int, seed: int) -> DigitNet:
    """A classifier trained with one cycle of Adam, batches of 128, on MNIST's train part."""
    torch.manual_seed(seed)
    net, rng = DigitNet(), torch.Generator().manual_seed(seed)
    images = load_images("mnist", stand_in=False)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(shifted(batch[0], rng)), batch[1])

    cfg = Fit(steps, lr=3e-3, schedule="one_cycle", weight_decay=0.0)
    for _ in progress(fit(loss, net, minibatches(images[:2], 128, rng), cfg), steps, "digits"):
        pass
    return net.eval().requires_grad_(False)


def main() -> None:
    """Train, save, report."""
    parser = argparse.ArgumentParser(description="train the frozen digit classifier")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.process_time()
    net = train_digit_net(args.steps, args.seed)
    seconds = time.process_time() - start
    test = load_images("mnist", train=False, stand_in=False)
    accuracy = (net(test.x).argmax(1) == test.y).double().mean().item()
    sha256 = save_weights(DIGIT_WEIGHTS, net)
    print(f"seed {args.seed}, {args.steps} steps, {seconds:.0f} s, test accuracy {accuracy:.4f}")
    print(f"sha256 {sha256}")


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
