"""The shipped classifier: its file, its accuracy on real digits, its features."""

import os
from pathlib import Path

import pytest
import torch

from dgm.data import load_images
from dgm.digit_classifier import shifted
from dgm.digits import DIGIT_SHA256, DIGIT_WEIGHTS, class_shares, digit_features, digit_net
from dgm.metrics import frechet_distance, halves_floor
from dgm.weights import weights_sha256

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def net(monkeypatch):
    """The classifier, as a notebook in lectures/ finds it."""
    monkeypatch.chdir(ROOT / "lectures")
    return digit_net()


def test_shipped_file():
    """Below 400 kB, with the hash that the code states and the record repeats."""
    path = ROOT / "weights" / DIGIT_WEIGHTS
    assert path.stat().st_size < 400_000
    assert weights_sha256(path) == DIGIT_SHA256
    assert DIGIT_SHA256 in (ROOT / "weights/README.md").read_text()


def test_missing_weights_are_explained(tmp_path, monkeypatch):
    """The file and where to put it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGM_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="digit_features.safetensors is needed"):
        digit_net()


def test_features_are_what_the_logits_see(net):
    """Chunks do not matter, nothing is trained, and the logits follow from the features."""
    x = load_images("digits").x[:1003]
    features = digit_features(x, net)
    assert features.shape == (1003, 64) and not features.requires_grad
    assert features.min() < -1  # an activation would cut them off at -0.28
    torch.testing.assert_close(features[1000:], net.features(x[1000:]))
    oracle = (features * features.sigmoid()) @ net.to_logits.weight.T + net.to_logits.bias
    torch.testing.assert_close(net(x), oracle, rtol=1e-4, atol=1e-4)
    counts = torch.bincount(oracle.argmax(1), minlength=10)
    torch.testing.assert_close(class_shares(x, net), counts / 1003)


def test_shifts_move_images():
    """Oracle: torch.roll, which is the same while nothing leaves a blank border; all 25 occur."""
    x = torch.zeros(2000, 1, 9, 9)
    x[:, :, 3:6, 3:6] = torch.rand(2000, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    moved = shifted(x, torch.Generator().manual_seed(0))
    rolls = torch.stack([x.roll((a, b), (2, 3)) for a in range(-2, 3) for b in range(-2, 3)])
    which = (rolls == moved).flatten(2).all(2)  # (25, 2000)
    assert which.any(0).all() and which.any(1).all()


@pytest.mark.data
def test_on_real_mnist(net):
    """Accuracy as recorded; real against real below the floor's bound, noisy images far above."""
    if not os.environ.get("DGM_DATA"):
        pytest.skip("DGM_DATA is not set")
    test = load_images("mnist", train=False)
    if test.name != "mnist":
        pytest.skip("no MNIST under DGM_DATA")
    right = torch.cat([net(part).argmax(1) for part in test.x.split(1000)]) == test.y
    assert right.double().mean() == pytest.approx(0.9886, abs=5e-4)
    rng = torch.Generator().manual_seed(0)
    features = digit_features(test.x, net)
    floor = halves_floor(frechet_distance, features, 2000, rng, repeats=8)
    noisy = (test.x + 0.2 * torch.randn(test.x.shape, generator=rng)).clamp(0, 1)
    blurred = digit_features(noisy[:2000], net)
    assert frechet_distance(features[2000:4000], blurred) > 3 * floor.bound
