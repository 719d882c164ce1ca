"""Weights by hash: what is beside the notebook, what is not, and what comes from the release."""

import hashlib

import pytest
import torch
from safetensors import safe_open
from torch import nn

import dgm.weights as weights
from dgm.weights import load_weights, save_weights, weights_sha256

NAME = "net.safetensors"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The working folder of a notebook inside a course folder, and an empty cache."""
    (tmp_path / "course/lectures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "course/lectures")
    monkeypatch.setenv("DGM_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def net():
    """A module with parameters, a buffer, and a tensor that is a view of another."""
    made = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    made.register_buffer("part", made[0].weight.detach()[:2].T)
    return made


def _same(state, net):
    assert set(state) == set(net.state_dict())
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize("folder", [".", "weights", "../weights", "../../weights"])
def test_round_trip_from_each_place_beside(net, folder, capsys):
    """What was saved comes back bit for bit, from each of the four places."""
    _same(load_weights(NAME, save_weights(NAME, net, folder)), net)
    assert NAME in capsys.readouterr().out


def test_the_file_is_safetensors_with_the_hash(net, places):
    """Oracles: hashlib on the bytes, the safetensors reader; the same module, the same bytes."""
    sha = save_weights(NAME, net, "weights")
    data = (places / "course/lectures/weights" / NAME).read_bytes()
    assert sha == hashlib.sha256(data).hexdigest() == weights_sha256("weights/" + NAME)
    with safe_open("weights/" + NAME, "pt") as file:
        assert set(file.keys()) == set(net.state_dict())
    assert save_weights("again.safetensors", dict(net.state_dict())) == sha


def test_another_hash_is_not_loaded(net, capsys):
    """A changed file is named with both hashes, and the caller gets None."""
    sha = save_weights(NAME, net)
    with torch.no_grad():
        net[0].bias += 1
    other = save_weights(NAME, net)
    assert load_weights(NAME, sha) is None
    out = capsys.readouterr().out
    assert sha[:12] in out and other[:12] in out and "going on without" in out


def test_download_once_and_by_hash(net, places, monkeypatch, capsys):
    """From the release into the cache, then from the cache; the next places are not asked."""
    (places / "release/weights").mkdir(parents=True)
    sha = save_weights(NAME, net, places / "release/weights")
    monkeypatch.setattr(weights, "RELEASE_URL", (places / "release").as_uri())
    _same(load_weights(NAME, sha), net)
    assert "from the release" in capsys.readouterr().out
    monkeypatch.setattr(weights, "RELEASE_URL", (places / "gone").as_uri())
    _same(load_weights(NAME, sha), net)
    assert load_weights(NAME, "0" * 64) is None  # the cached file is not taken for another


def test_a_wrong_download_is_refused(places, monkeypatch, capsys):
    """A quota page under the right name is no weights."""
    (places / "release/weights").mkdir(parents=True)
    (places / "release/weights" / NAME).write_text("<html>quota</html>")
    monkeypatch.setattr(weights, "RELEASE_URL", (places / "release").as_uri())
    assert load_weights(NAME, "0" * 64) is None
    assert "is not used: sha256 000000000000... expected" in capsys.readouterr().out


def test_no_network_is_said(places, monkeypatch, capsys):
    """A failing download is one line, no traceback."""
    monkeypatch.setattr(weights, "RELEASE_URL", (places / "nowhere").as_uri())
    assert load_weights(NAME, "0" * 64) is None
    assert "no download from" in capsys.readouterr().out
