"""Image sets: sources in their order, damaged files by name, the stand-in; no network."""

import bz2
import gzip
import os
import runpy
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from dgm.data import binarise, load_images
from dgm.image_files import DataError, cache_folder

REAL = os.environ.get("DGM_DATA")  # before the fixture below hides it
HTML = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"


def _idx(values: np.ndarray) -> bytes:
    """The idx format: magic with type and number of dimensions, the sizes, the bytes."""
    head = struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes(), mtime=0)


def _make_mnist(root: Path, folder="MNIST", seed=0) -> dict[str, np.ndarray]:
    """Write a tiny set in MNIST's own layout; returns its arrays by file name."""
    rng, arrays = np.random.default_rng(seed), {}
    (root / folder / "raw").mkdir(parents=True, exist_ok=True)
    for part, n in (("train", 7), ("t10k", 4)):
        arrays[f"{part}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (n, 28, 28))
        arrays[f"{part}-labels-idx1-ubyte.gz"] = rng.integers(0, 10, n)
    for name, values in arrays.items():
        (root / folder / "raw" / name).write_bytes(_idx(values))
    return arrays


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty DGM_DATA and DGM_CACHE, and downloads that fail at once."""

    def no_network(*args, **kwargs):
        raise RuntimeError("no route to host")

    for name in ("download_and_extract_archive", "download_url"):
        for module in (datasets.mnist, datasets.usps):
            monkeypatch.setattr(module, name, no_network, raising=False)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("DGM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DGM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_packed_files_of_a_read_only_folder(places, name, folder, capsys):
    """Oracle: the arrays that were packed; nothing is written beside them; both parts."""
    arrays = _make_mnist(places / "data", folder)
    before = sorted(os.walk(places / "data"))
    train, test = load_images(name), load_images(name, train=False)
    np.testing.assert_allclose(train.x[:, 0] * 255, arrays["train-images-idx3-ubyte.gz"], atol=1e-4)
    np.testing.assert_array_equal(test.y, arrays["t10k-labels-idx1-ubyte.gz"])
    assert (train.x.dtype, train.y.dtype, train.name) == (torch.float32, torch.int64, name)
    assert sorted(os.walk(places / "data")) == before
    assert f"data set: {name} (7 images, train part)" in capsys.readouterr().out


def test_usps_is_enlarged(places):
    """Oracle: a constant image stays constant under any resizing; grey -1 .. 1 becomes 0 .. 1."""
    rows = [(3, -1.0), (10, 0.0), (7, 1.0)]
    text = "\n".join(f"{y} " + " ".join(f"{k + 1}:{v}" for k in range(256)) for y, v in rows)
    (places / "data/USPS").mkdir()
    for file in ("usps.bz2", "usps.t.bz2"):
        (places / "data/USPS" / file).write_bytes(bz2.compress(text.encode()))
    got = load_images("usps", stand_in=False)
    assert got.x.shape == (3, 1, 28, 28) and got.y.tolist() == [2, 9, 6]  # LIBSVM counts from 1
    expected = torch.tensor([0, 0.5, 1])[:, None, None, None].expand(3, 1, 28, 28)
    torch.testing.assert_close(got.x, expected, atol=1 / 255, rtol=0)


def test_tensors_are_kept_and_follow_their_files(places):
    """Without DGM_DATA the second call needs no file; with other files the tensors are new."""
    old = _make_mnist(places / "data")
    first = load_images("mnist", stand_in=False)
    for path in (places / "cache").rglob("*ubyte"):
        path.unlink()
    os.environ["DGM_DATA"] = ""
    assert torch.equal(load_images("mnist", stand_in=False).x, first.x)
    os.environ["DGM_DATA"] = str(places / "data")
    new = _make_mnist(places / "data", seed=1)
    images = "train-images-idx3-ubyte.gz"
    (places / "data/MNIST/raw" / images).write_bytes(_idx(new[images][:, ::-1]) + b"\0" * 8)
    got = load_images("mnist", stand_in=False).x[:, 0] * 255
    np.testing.assert_allclose(got, new[images][:, ::-1], atol=1e-4)
    assert not np.array_equal(old[images], new[images])


def test_damaged_tensors_are_made_anew(places):
    """A half-written cache file costs time only."""
    _make_mnist(places / "data")
    first = load_images("mnist", stand_in=False)
    (kept,) = (places / "cache/tensors").iterdir()
    kept.write_bytes(kept.read_bytes()[:300])
    assert torch.equal(load_images("mnist", stand_in=False).x, first.x)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: HTML, "is a web page (a quota or login page saved as data)"),
        (lambda b: b[: len(b) // 2], "is damaged or cut short"),
        (lambda b: b"", "is damaged or cut short (0 bytes"),
        (lambda b: b[:20] + bytes([b[20] ^ 255]) + b[21:], "is damaged or cut short"),
    ],
)
def test_damaged_files_are_named(places, damage, says, capsys):
    """The file, what is wrong with it, what was tried and what to do; the name of the variable."""
    _make_mnist(places / "data")
    path = places / "data/MNIST/raw/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_images("mnist", stand_in=False)
    told = str(caught.value)
    assert f"{path} {says}" in told
    assert "DGM_DATA=" in told and "no route to host" in told and "What to do" in told


def test_damage_is_told_when_another_source_has_the_set(places, capsys):
    """Good files in the cache serve, and the bad one in DGM_DATA is named all the same."""
    _make_mnist(places / "data")
    arrays = _make_mnist(places / "cache")
    path = places / "data/MNIST/raw/train-labels-idx1-ubyte.gz"
    path.write_bytes(HTML)
    got = load_images("mnist", stand_in=False)
    np.testing.assert_array_equal(got.y, arrays["train-labels-idx1-ubyte.gz"])
    assert f"{path} is a web page" in capsys.readouterr().out


def test_missing_sets_are_explained(places, monkeypatch):
    """Every source that was tried, and the file names that are wanted."""
    monkeypatch.delenv("DGM_DATA")
    with pytest.raises(DataError) as caught:
        load_images("usps", stand_in=False)
    told = str(caught.value)
    for part in ("DGM_DATA: not set", str(places / "cache"), "download: no route to host"):
        assert part in told
    assert "put usps.bz2, usps.t.bz2 into a folder D/USPS and set DGM_DATA=D" in told


def test_training_command_without_data(monkeypatch, capsys):
    """The command that trains the classifier says the same, exit code 2, and no traceback."""
    monkeypatch.setattr("sys.argv", ["digit_classifier"])
    monkeypatch.delitem(sys.modules, "dgm.digit_classifier", raising=False)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("dgm.digit_classifier", run_name="__main__")
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("mnist could not be had. Tried:")


def test_stand_in_is_loud(places, capsys):
    """A banner with the reasons, a line that names the digits, and their name in the result."""
    got = load_images("fashion_mnist")
    out = capsys.readouterr().out
    assert got.name == "digits"
    assert "STAND-IN DATA: scikit-learn's digits in place of fashion_mnist" in out
    assert out.strip().endswith(
        "data set: digits (1500 images, train part, stand-in for fashion_mnist)"
    )
    assert "no route to host" in out


def test_digits_are_scikit_learns(capsys):
    """Oracle: scikit-learn's images, enlarged by Pillow's bilinear filter."""
    train, test = load_images("digits"), load_images("digits", train=False)
    truth = load_digits()
    np.testing.assert_array_equal(torch.cat([train.y, test.y]), truth.target)
    for k in (0, 1499, 1500, 1796):
        image = Image.fromarray((truth.images[k] / 16).astype("f4"))
        oracle = np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR))
        got = torch.cat([train.x, test.x])[k, 0]
        np.testing.assert_allclose(got, oracle, atol=1e-5)
    assert test.x.min() >= 0 and test.x.max() <= 1 and test.x.shape[1:] == (1, 28, 28)
    assert "STAND-IN" not in capsys.readouterr().out


def test_unknown_names_are_refused():
    """The names that exist are listed."""
    with pytest.raises(ValueError, match="mnist, fashion_mnist, usps and digits, not 'cifar'"):
        load_images("cifar")


def test_cache_folder_order(monkeypatch):
    """DGM_CACHE, else XDG_CACHE_HOME/dgm, else .cache/dgm in the home folder."""
    monkeypatch.setenv("DGM_CACHE", "a/b")
    monkeypatch.setenv("XDG_CACHE_HOME", "c")
    assert cache_folder() == Path("a/b")
    monkeypatch.setenv("DGM_CACHE", "")
    assert cache_folder() == Path("c/dgm")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path.home() / ".cache/dgm"


def test_binarise_has_the_grey_levels_as_means():
    """6 SE per pixel over 4,000 draws; zeros and ones only; 0 and 1 are certain; new each time."""
    rng, x = torch.Generator().manual_seed(0), torch.linspace(0, 1, 21)
    draws = torch.stack([binarise(x, rng) for _ in range(4000)])
    bound = 6 * (x * (1 - x) / 4000).sqrt()
    assert ((draws.mean(0) - x).abs() <= bound).all()
    assert set(draws.unique().tolist()) == {0.0, 1.0} and draws.dtype == x.dtype
    assert not torch.equal(draws[0], draws[1])
    pair = binarise(torch.full((4000, 2), 0.5), rng).mean(1)  # pixels are independent
    assert abs((pair == 0.5).double().mean() - 0.5) < 6 * 0.5 / 4000**0.5


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")]
)
def test_real_sets(name, folder, monkeypatch):
    """Oracle: the bytes of the real files after their headers, read by numpy."""
    raw = Path(REAL or "") / folder / "raw"
    if not REAL or not raw.is_dir():
        pytest.skip(f"no {folder}/raw under DGM_DATA")
    monkeypatch.setenv("DGM_DATA", REAL)
    got = load_images(name, train=False, stand_in=False)
    read = lambda file, head: np.frombuffer(gzip.decompress((raw / file).read_bytes())[head:], "u1")
    np.testing.assert_array_equal(got.y, read("t10k-labels-idx1-ubyte.gz", 8))
    pixels = (got.x * 255).round().flatten().numpy().astype("u1")
    np.testing.assert_array_equal(pixels, read("t10k-images-idx3-ubyte.gz", 16))


@pytest.mark.data
def test_real_usps(monkeypatch):
    """Sizes of both parts, ten classes, and a grey scale that is used from end to end."""
    if not REAL or not (Path(REAL) / "USPS").is_dir():
        pytest.skip("no USPS under DGM_DATA")
    monkeypatch.setenv("DGM_DATA", REAL)
    got = load_images("usps", train=False, stand_in=False)
    assert len(got.x) == 2007 and got.y.unique().tolist() == list(range(10))
    assert got.x.min() == 0 and got.x.max() > 0.99
