"""Submitted weights: what is refused, what is loaded where, and the images they are scored on."""

from __future__ import annotations

import json
import os
import pickle
import struct
from functools import cache

import pytest
import torch
from boxed import needs_sandbox
from safetensors.torch import save_file

from autograder.judge.errors import JudgeFault
from autograder.judge.link import Link
from autograder.judge.released import run_setup
from autograder.judge.weightfile import WeightsProblem, read_weights
from autograder.judge.weights import WeightRoom
from autograder.sandbox.limits import Limits, kill_tree, tree
from autograder.sandbox.loading import WeightsError, load_module

NAME = "homework1_vae.safetensors"
SETUP = """
import os
from typing import NamedTuple
import torch
from torch import Tensor, nn

class Code(NamedTuple):
    mu: Tensor
    log_sigma: Tensor

class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec, self.seen = nn.Linear(4, 4), nn.Linear(2, 4), []

    def encode(self, x):
        self.seen.append(tuple(x.shape))
        return Code(*self.enc(x).chunk(2, -1))

    def decode(self, z):
        return self.dec(z)

    def history(self):
        return (os.getpid(), self.seen, self.training, sorted(os.listdir("/submission")))

    def where(self):
        return self.seen

def make_vae():
    return Vae()
"""


@cache
def released():
    return run_setup(SETUP)


def module():
    torch.manual_seed(0)
    return released()["make_vae"]()


def read(folder, name=NAME, most=10_000):
    return read_weights(folder, name, most)


# -- the file -----------------------------------------------------------------------------------
def test_good_files_are_read(tmp_path):
    save_file(module().state_dict(), tmp_path / NAME)
    assert read(tmp_path) == (tmp_path / NAME).read_bytes()


def test_a_missing_file_is_named_with_its_place(tmp_path):
    with pytest.raises(WeightsProblem, match=f"expected {NAME} beside the notebook"):
        read(tmp_path)


def header(text: bytes, size=None) -> bytes:
    return struct.pack("<Q", len(text) if size is None else size) + text


class Evil:
    def __reduce__(self):
        return (os._exit, (3,))  # whoever unpickles this ends


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        pickle.dumps(Evil()),
        b"PK\x03\x04" + b"\x00" * 100,
        header(b"{}", 10**15),
        header(b"[1, 2]"),
        header(b"{" * 500),
        header(b"[" * 5000),
        header(b"\xff\xfe\xfd"),
    ],
    ids=range(9),
)
def test_other_formats_are_refused(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(WeightsProblem, match="not in safetensors format"):
        read(tmp_path)


def test_links_pipes_folders_and_sizes_are_refused(tmp_path):
    save_file(module().state_dict(), tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(5 << 30)  # takes no room on the disk
    for name, word in [("link", "link"), ("pipe", "regular"), ("folder", "regular")]:
        with pytest.raises(WeightsProblem, match=word):
            read(tmp_path, name)
    with pytest.raises(WeightsProblem, match=r"5368.7 MB, at most 0.01 MB"):
        read(tmp_path, "huge")
    with pytest.raises(WeightsProblem, match="plain file name"):
        read(tmp_path / "folder", "../real")


# -- the module ---------------------------------------------------------------------------------
def state(**changes):
    found = module().state_dict() | changes
    return {k: v for k, v in found.items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enc.bias": None}, "missing enc.bias"),
        ({"more": torch.zeros(1)}, "not expected more"),
        ({"enc.bias": torch.zeros(5)}, r"expected torch.float32 of shape \(4,\)"),
        ({"enc.bias": torch.zeros(4).int()}, "enc.bias is torch.int32"),
        ({"enc.bias": torch.full((4,), 1e300, dtype=torch.float64)}, "not finite"),
        ({"dec.bias": torch.full((4,), float("nan"))}, "not finite"),
        ({"dec.bias": torch.full((4,), float("-inf"))}, "not finite"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, changes, said):
    save_file(state(**changes), tmp_path / NAME)
    with pytest.raises(WeightsError, match=said):
        load_module(module, str(tmp_path / NAME))


def test_fitting_weights_are_loaded_for_evaluation(tmp_path):
    wanted = {k: torch.rand_like(v) for k, v in module().state_dict().items()}
    save_file(wanted, tmp_path / NAME)
    found = load_module(module, str(tmp_path / NAME))
    assert all(torch.equal(v, wanted[k]) for k, v in found.state_dict().items())
    assert not found.training and not any(p.requires_grad for p in found.parameters())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_get_the_module_s(tmp_path, kind):
    wanted = {k: torch.rand_like(v).to(kind) for k, v in module().state_dict().items()}
    save_file(wanted, tmp_path / NAME)
    found = load_module(module, str(tmp_path / NAME)).state_dict()
    assert all(
        v.dtype == torch.float32 and torch.equal(v, wanted[k].float()) for k, v in found.items()
    )


# -- in the sandbox -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submitted")
    save_file(module().state_dict(), folder / NAME)
    save_file({k: v + 1 for k, v in module().state_dict().items()}, folder / "other.safetensors")
    (folder / "bad.safetensors").write_bytes(header(json.dumps({"a": 1}).encode()))
    (folder / "trap.py").write_text("raise SystemExit")
    scratch = tmp_path_factory.mktemp("scratch")
    opening = {"submission": str(folder), "limits": Limits().as_dict(), "scratch": str(scratch)}
    made = WeightRoom(SETUP, released(), {**opening, "unguarded": False, "max_weights_mb": 20.0})
    made.for_cell({"weights": NAME, "build": "make_vae"}, Link(None))
    yield made
    made.close()


@pytest.mark.sandbox
class TestInTheSandbox:
    pytestmark = needs_sandbox()

    def test_encode_and_decode_give_the_module_s_values(self, room):
        model, here = room.trained(), module()
        x = torch.rand(5, 4)
        code = model.encode(x)
        mu, log_sigma = here.encode(x)
        torch.testing.assert_close(code.mu, mu)
        torch.testing.assert_close(code.log_sigma, log_sigma)
        assert type(code.mu) is torch.Tensor and not code.mu.requires_grad
        torch.testing.assert_close(model.call("decode", code.mu), here.decode(mu))

    def test_each_method_has_a_sandbox_that_sees_no_other_call(self, room):
        model = room.trained()
        model.encode(torch.rand(3, 4))
        pid, seen, training, files = model.history()
        assert seen == [] and files == [] and not training
        assert len(set(room.processes())) >= 3  # encode, decode, history

    def test_a_method_of_other_weights_uses_the_same_sandbox(self, room):
        x = torch.rand(2, 4)
        one, before = room.trained().encode(x), room.processes()
        other = room.trained("other.safetensors").encode(x)
        assert room.processes() == before and not torch.equal(one.mu, other.mu)
        torch.testing.assert_close(room.trained(NAME).encode(x).mu, one.mu)

    def test_a_sandbox_that_dies_is_told_and_replaced(self, room):
        x = torch.rand(2, 4)
        wanted = room.trained().encode(x)
        pid = room._places["encode"].process.process.pid
        kill_tree(pid, tree(pid))
        with pytest.raises(WeightsProblem, match="did not answer"):
            room.trained().encode(x)
        torch.testing.assert_close(room.trained().encode(x).mu, wanted.mu)

    def test_a_file_that_only_looks_right_is_refused_inside(self, room):
        with pytest.raises(WeightsProblem, match=r"bad.safetensors"):
            room.trained("bad.safetensors").encode(torch.rand(1, 4))

    def test_a_sandbox_that_does_not_start_is_the_grader_s_fault(self, tmp_path, room):
        save_file(module().state_dict(), tmp_path / NAME)
        opening = {"submission": str(tmp_path), "limits": room.limits.as_dict()}
        opening |= {"scratch": str(tmp_path / "none"), "unguarded": False, "max_weights_mb": 20.0}
        bare = WeightRoom(SETUP, released(), opening)
        bare.for_cell({"weights": NAME, "build": "make_vae"}, Link(None))
        with pytest.raises(JudgeFault, match="the weights cannot be copied"):
            bare.trained()
        broken = WeightRoom("1 / 0", released(), opening | {"scratch": str(tmp_path)})
        broken.for_cell({"weights": NAME, "build": "make_vae"}, Link(None))
        with pytest.raises(JudgeFault, match="no sandbox for weights could be started"):
            broken.trained().encode(torch.rand(1, 4))
        assert broken.processes() == []

    def test_an_error_of_the_module_is_an_error(self, room):
        with pytest.raises(RuntimeError):
            room.trained().encode(torch.rand(5, 3))


def test_a_test_without_weights_in_its_metadata_is_told(tmp_path):
    opening = {"submission": str(tmp_path), "limits": Limits().as_dict(), "scratch": str(tmp_path)}
    room = WeightRoom("", {}, {**opening, "unguarded": False, "max_weights_mb": 20.0})
    with pytest.raises(WeightsProblem, match="names no weights"):
        room.trained()
    assert room.processes() == []
