"""What a long training needs is asked for before it begins."""

import sys
import types

import pytest
import torch

from dgm.machine import check_machine


def test_a_good_folder_is_accepted_in_silence(tmp_path, capsys):
    """And nothing stays in it."""
    check_machine(str(tmp_path))
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_a_missing_gpu_is_said_with_what_to_do(tmp_path, monkeypatch):
    """Only where one is wanted."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    check_machine(str(tmp_path))
    with pytest.raises(RuntimeError, match="Change runtime type > T4 GPU"):
        check_machine(str(tmp_path), wants_gpu=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_machine(str(tmp_path), wants_gpu=True)


def test_drive_that_is_not_mounted():
    """The folder is named, and how to mount it; it is not made, for it would be lost."""
    with pytest.raises(RuntimeError, match=r"MyDrive/x.*drive\.mount\('/content/drive'\)"):
        check_machine("/content/drive/MyDrive/x")


def test_a_folder_that_is_not_there_or_not_writable(tmp_path):
    """Before the first step, not at the first checkpoint."""
    with pytest.raises(RuntimeError, match="which is not there: make it"):
        check_machine(str(tmp_path / "gone"))
    with pytest.raises(RuntimeError, match="nothing can be written to FOLDER"):
        check_machine("/proc")


def test_colab_is_told_what_a_disconnect_loses(tmp_path, monkeypatch, capsys):
    """Once, as a line; elsewhere nothing is said."""
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    check_machine(str(tmp_path))
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "lost when Colab disconnects" in said and "drive.mount" in said
