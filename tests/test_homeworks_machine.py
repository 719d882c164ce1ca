"""The cell before the trainings of each homework: a missing GPU, a Drive that is not there."""

import homework1_master as master
import pytest
import torch

from dgm.machine import check_machine


def machine_cell(folder):
    """The one cell that asks for what a long training needs."""
    cells = master.load_master(folder / f"{folder.name}.py")
    (cell,) = [c for c in cells if "check_machine(" in c.source and "import" not in c.source]
    assert "train" in cell.tags  # the grader, which trains nothing, leaves it out
    return cell.source


@pytest.mark.parametrize("folder", master.HOMEWORKS, ids=lambda f: f.name)
def test_a_drive_that_is_not_mounted_is_said_before_the_training(folder):
    """And a folder that is there is accepted, with the small settings."""
    space = {"check_machine": check_machine, "FACES": "toy"}
    exec(machine_cell(folder), space | {"FOLDER": "."})
    with pytest.raises(RuntimeError, match=r"drive\.mount"):
        exec(machine_cell(folder), space | {"FOLDER": "/content/drive/MyDrive/course"})


def test_faces_of_celeba_want_a_gpu(monkeypatch):
    """Toy faces do not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    space = {"check_machine": check_machine, "FOLDER": "."}
    source = machine_cell(master.HOMEWORKS[1])
    exec(source, space | {"FACES": "toy"})
    with pytest.raises(RuntimeError, match="Change runtime type"):
        exec(source, space | {"FACES": "celeba"})
