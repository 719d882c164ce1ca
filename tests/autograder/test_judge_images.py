"""The images that submitted weights are scored on."""

from __future__ import annotations

import os
import struct
import time

import pytest
import torch

from autograder.data_folders import data_name, fix_folders, mnist_folder
from autograder.judge import data
from autograder.judge.data import held_out, make_held_out, shift
from autograder.scored_on import scored_on


# -- held-out images ----------------------------------------------------------------------------
def test_shift_moves_by_whole_pixels():
    image = torch.zeros(1, 5, 5)
    image[0, 2, 2] = 1
    for down, right in [(0, 0), (1, 0), (0, -1), (-1, 1)]:
        moved = shift(image, down, right)
        assert moved[0, 2 + down, 2 + right] == 1 and moved.sum() == 1
    edge = torch.zeros(1, 3, 3)
    edge[0, 0] = 1
    assert shift(edge, -1, 0).sum() == 0  # what leaves is lost


def grey():
    rng = torch.Generator().manual_seed(1)
    return torch.rand(2100, 1, 28, 28, generator=rng)


def test_held_out_images_follow_the_secret_and_repeat():
    images = grey()
    shifted, plain = make_held_out(images, "term")
    assert shifted.shape == plain.shape == (2000, 1, 28, 28)
    assert set(shifted.unique().tolist()) == {0.0, 1.0}
    again, _ = make_held_out(images, "term")
    other, _ = make_held_out(images, "next term")
    assert torch.equal(shifted, again) and not torch.equal(shifted, other)


def test_binarisation_has_the_right_mean_and_offsets_are_all_used():
    images = torch.zeros(2000, 1, 28, 28)
    images[:, :, 10:18, 10:18] = 0.25
    shifted, plain = make_held_out(images, "term")
    count = plain.sum().item()
    n = 2000 * 64
    assert abs(count - n / 4) < 6 * (n * 0.25 * 0.75) ** 0.5
    assert (plain[:, :, :10].sum(), plain[:, :, 18:].sum()) == (0, 0)
    rows = shifted.sum((0, 1, 3))  # a third of the images is moved up, a third down
    for row in (9, 18):
        n = 2000 * 8
        assert abs(rows[row].item() - n / 12) < 6 * (n * (1 / 12) * (11 / 12)) ** 0.5 * 8**0.5
    assert rows[8] == rows[19] == 0


@pytest.fixture
def no_mnist(monkeypatch, tmp_path):
    monkeypatch.delenv("DGM_DATA", raising=False)
    monkeypatch.setenv("DGM_CACHE", str(tmp_path / "nothing"))
    asked = []
    monkeypatch.setattr(data, "_download", lambda folder: asked.append(folder))
    return asked


def test_the_file_is_made_once_per_secret(tmp_path, monkeypatch, no_mnist):
    made = []
    real = data._images
    monkeypatch.setattr(data, "_images", lambda name: made.append(name) or real(name))
    one, two = held_out(tmp_path / "c", "a"), held_out(tmp_path / "c", "a")
    assert made == ["digits"] and one.name == two.name == "digits"
    assert torch.equal(one.shifted, two.shifted) and one.take(7).shape == (7, 1, 28, 28)
    held_out(tmp_path / "c", "b")
    assert made == ["digits", "digits"]
    with pytest.raises(ValueError, match="1 to 297 held-out images"):
        one.take(298)


def test_a_download_is_tried_once_an_hour(tmp_path, no_mnist):
    held_out(tmp_path / "c", "a")
    held_out(tmp_path / "c", "b")
    assert len(no_mnist) == 1
    old = time.time() - 4000
    os.utime(tmp_path / "c" / "no-mnist", (old, old))
    held_out(tmp_path / "c", "b")
    assert len(no_mnist) == 2


def test_a_run_settles_its_images_before_it_begins(tmp_path, no_mnist):
    """A master that scores weights asks for MNIST, once; another does not ask."""
    assert "MNIST" not in scored_on("x = faces(500)", tmp_path / "c") and no_mnist == []
    for _ in range(2):
        assert "a stand-in" in scored_on("x = held_out_images(500)", tmp_path / "c")
    assert len(no_mnist) == 1


@pytest.mark.parametrize("variable", ["DGM_DATA", "DGM_CACHE"])
def test_the_name_of_the_data_is_that_of_the_images(tmp_path, no_mnist, monkeypatch, variable):
    """Also where MNIST came by a download, into the cache: the name is part of a result's key."""
    assert data_name() == "digits" == held_out(tmp_path / "c", "a").name
    monkeypatch.setenv(variable, str(tmp_path / "real"))
    raw = tmp_path / "real" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    head = struct.pack(">4I", 2051, 2000, 28, 28)
    (raw / "t10k-images-idx3-ubyte").write_bytes(head + bytes(2000 * 784))
    assert data_name() == "mnist" == held_out(tmp_path / "c", "a").name
    assert scored_on("x = held_out_images(500)", tmp_path / "c") == "MNIST"


def test_the_first_run_of_a_class_makes_its_cache(tmp_path, no_mnist, monkeypatch):
    """With MNIST at hand nothing else had made the folder."""
    monkeypatch.setenv("DGM_DATA", str(tmp_path / "real"))
    raw = tmp_path / "real" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    head = struct.pack(">4I", 2051, 2000, 28, 28)
    (raw / "t10k-images-idx3-ubyte").write_bytes(head + bytes(2000 * 784))
    assert len(held_out(tmp_path / "class" / "cache", "a").shifted) == 2000


def test_relative_folders_mean_one_place_from_everywhere(tmp_path, no_mnist, monkeypatch):
    (tmp_path / "real" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "real" / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz").touch()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGM_DATA", "real")
    monkeypatch.setenv("DGM_CACHE", "")
    fix_folders()
    monkeypatch.chdir("elsewhere")
    assert mnist_folder() == tmp_path / "real" / "MNIST" / "raw" and os.environ["DGM_CACHE"] == ""


def test_digits_are_those_that_no_student_trains_on():
    from sklearn.datasets import load_digits

    images = data._images("digits")
    assert images.shape == (297, 1, 28, 28) and images.min() >= 0 and images.max() <= 1
    small = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
    own = torch.tensor(load_digits().images[1500:]).reshape(-1, 4, 2, 4, 2).mean((2, 4)).flatten(1)
    assert torch.corrcoef(torch.stack([small.flatten(), own.flatten()]))[0, 1] > 0.99


@pytest.mark.data
def test_mnist_is_taken_where_it_lies(tmp_path):
    if mnist_folder() is None:
        pytest.skip("no MNIST under DGM_DATA")
    images = data.read_idx(mnist_folder())
    assert images.shape == (10_000, 1, 28, 28) and 0.12 < images.mean() < 0.14
    assert held_out(tmp_path, "a").name == "mnist"
