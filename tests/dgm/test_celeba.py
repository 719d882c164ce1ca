"""Faces from files: layouts, split, crop, cache, and what stands in; nothing real is committed."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dgm import celeba
from dgm.celeba import face_split, held_out_crops, load_faces, low_res, square_face
from dgm.face_files import CELEBA_SPLIT, CELEBA_ZIP, face_files
from dgm.image_files import DataError

REAL = os.environ.get("DGM_DATA")  # before the fixture below hides it


def photo(k, width=178, height=218):
    """A smooth made-up picture whose colours tell where a pixel comes from."""
    y, x = np.mgrid[:height, :width]
    rows = [255 * x / (width - 1), 255 * y / (height - 1), np.full(x.shape, 20.0 * k)]
    return Image.fromarray(np.stack(rows, -1).round().astype(np.uint8))


def make_set(root, n=20, packed=False, width=178, height=218):
    """n photos in the original layout under root/celeba, as a folder or a zip."""
    folder = root / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for k in range(1, n + 1):
        photo(k % 13, width, height).save(folder / f"{k:06d}.jpg", quality=98)
    if packed:
        with zipfile.ZipFile(root / "celeba" / CELEBA_ZIP, "w") as out:
            for path in sorted(folder.iterdir()):
                out.write(path, f"img_align_celeba/{path.name}")
                path.unlink()
        folder.rmdir()
    return folder


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Empty DGM_DATA and DGM_CACHE; nothing is ever downloaded here."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("DGM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DGM_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_low_res_is_the_mean_of_squares():
    """Oracle: numpy, square by square. Kills: every fourth pixel, an interpolation."""
    x = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    expected = x.numpy().reshape(2, 3, 2, 4, 3, 4).mean((3, 5))
    np.testing.assert_allclose(low_res(x, 4), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="multiples of 5"):
        low_res(x, 5)


@pytest.mark.parametrize(("width", "height"), [(178, 218), (89, 109)])
def test_the_square_is_central_and_of_the_full_width(width, height):
    """Colours tell the place: red over the width, green over the middle of the height."""
    x = square_face(photo(1, width, height), 64).float() / 255
    assert x.shape == (3, 64, 64)
    ends = lambda a: (float(a[0]), float(a[-1]))
    np.testing.assert_allclose(ends(x[0].mean(0)), (0.5 / 64, 1 - 0.5 / 64), atol=0.02)
    margin = (height - width) / 2 / height
    np.testing.assert_allclose(ends(x[1].mean(1)), (margin, 1 - margin), atol=0.02)


def test_both_copies_of_a_photo_give_one_face():
    """The original size and half of it, with the same crop: the same square."""
    crop = (0.03, -0.02, 0.93)
    large, small = (
        square_face(photo(2, w, h), 32, crop).float() for w, h in ((178, 218), (89, 109))
    )
    assert float((large - small).abs().max()) < 4  # of 255
    red = large[0].mean(0) / 255  # a crop of 93 % of the width, moved to the right by 3 %
    np.testing.assert_allclose(float(red[16] + red[15]) / 2, 0.53, atol=0.01)
    np.testing.assert_allclose(float(red[-1] - red[0]), 0.93 * 31 / 32, atol=0.02)


def test_a_crop_that_would_leave_the_photo_is_moved_inside():
    """No black border: the smallest green of a crop far up is that of the first row."""
    x = square_face(photo(1), 32, (0.5, -0.9, 1.0)).float()
    assert float(x[1].min()) < 8 and float(x[2].min()) > 15


def test_split_by_the_official_partition_else_the_last_tenth():
    """Held-out parts are disjoint from training and cover all."""
    names = [f"{k:06d}.jpg" for k in range(1, 31)]
    official = {n: (k >= 20) + (k >= 25) for k, n in enumerate(names)}
    assert face_split(names, official, True) == names[:20]
    assert face_split(names, official, False) == names[20:]
    for partition in ({}, dict.fromkeys(names, 0)):
        assert face_split(names, partition, False) == names[27:]
        assert face_split(names, partition, True) == names[:27]


@pytest.mark.parametrize("packed", [False, True])
def test_folder_and_zip_give_the_same_faces_and_nothing_is_written_beside_them(
    places, packed, capsys
):
    """20 photos: 18 to train on, 2 held out; the second call reads no photo."""
    make_set(places / "data", packed=packed)
    before = sorted(os.walk(places / "data"))
    train, held = load_faces(size=16), load_faces(train=False, size=16)
    assert (train.x.shape, held.x.shape) == ((18, 3, 16, 16), (2, 3, 16, 16))
    assert (train.x.dtype, train.name) == (torch.uint8, "celeba")
    assert "data set: celeba faces (18 images, train part, 16 x 16)" in capsys.readouterr().out
    assert sorted(os.walk(places / "data")) == before
    kept = places / "cache/tensors/celeba-train-16.pt"
    kept.write_bytes(kept.read_bytes()[:500])  # damaged: made anew
    assert torch.equal(load_faces(size=16).x, train.x)


def test_kept_tensors_follow_the_photos(places, monkeypatch):
    """Another number of faces, or of photos, is made anew; the same is not read twice."""
    folder = make_set(places / "data")
    first = load_faces(size=16, n=5)
    assert len(first.x) == 5 and len(load_faces(size=16, n=7).x) == 7
    (folder / "000001.jpg").unlink()
    assert len(load_faces(size=16, n=18).x) == 18
    monkeypatch.setattr(celeba, "square_face", None)
    assert len(load_faces(size=16, n=18).x) == 18


def test_a_damaged_photo_is_named(places):
    """The message names the file and what to do."""
    folder = make_set(places / "data")
    (folder / "000003.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="000003.jpg is damaged.*delete it"):
        load_faces(size=16, stand_in=False)


def test_without_photos_the_toy_faces_stand_in_loudly(places, capsys):
    """A banner, a line that says stand-in; or DataError that says where to put the files."""
    got = load_faces(size=16, n=6)
    said = capsys.readouterr().out
    assert got.name == "toy" and got.x.shape == (6, 3, 16, 16)
    assert "STAND-IN DATA" in said and "stand-in for CelebA)" in said
    with pytest.raises(DataError, match=f"put {CELEBA_ZIP}.*{CELEBA_SPLIT}"):
        load_faces(size=16, stand_in=False)
    with pytest.raises(ValueError, match="celeba and toy"):
        load_faces("faces")


def test_training_and_held_out_toy_faces_differ():
    """No face of one part stands in the other."""
    train, held = (load_faces("toy", t, 16, 40).x.flatten(1).float() for t in (True, False))
    assert float(torch.cdist(train, held).min()) > 100


@pytest.mark.parametrize("name", ["celeba", "toy"])
def test_held_out_crops_come_from_the_held_out_part(places, name):
    """With a seed the same again; of the photos only held-out ones, each once, some mirrored."""
    make_set(places / "data", n=40)
    draw = lambda seed: held_out_crops(4, 32, torch.Generator().manual_seed(seed), name)
    x = draw(0)
    assert x.shape == (4, 3, 32, 32) and torch.equal(x, draw(0)) and not torch.equal(x, draw(1))
    if name == "celeba":
        blue = {20.0 * (k % 13) for k in range(37, 41)}
        assert {round(float(b) / 20) * 20.0 for b in 255 * x[:, 2].mean((1, 2))} == blue
        right = torch.cat([draw(s)[:, 0].mean(1) for s in range(4)])
        mirrored = (right[:, -1] < right[:, 0]).float().mean()
        assert 0.1 < float(mirrored) < 0.9


@pytest.mark.data
def test_the_real_photos(places, monkeypatch):
    """Where DGM_DATA has CelebA: its split, and faces that look like photographs of skin."""
    if not REAL or not (Path(REAL) / "celeba").is_dir():
        pytest.skip("DGM_DATA does not hold CelebA")
    monkeypatch.setenv("DGM_DATA", REAL)
    files, partition = face_files()
    held = face_split(files.names, partition, False)
    assert len(held) >= len(files.names) // 10 and "000001.jpg" not in held
    x = held_out_crops(12, 64, torch.Generator().manual_seed(0), "celeba")
    assert x.shape == (12, 3, 64, 64)
    middle = x[:, :, 24:40, 24:40].mean((0, 2, 3))
    assert middle[0] > middle[1] > middle[2]  # skin is more red than green than blue
