"""The bubblewrap command line, without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.sandbox import guard
from autograder.sandbox.bubblewrap import (
    SUBMISSION,
    Box,
    bwrap_command,
    interpreter_folders,
    outer_environment,
    submission_files,
)
from autograder.sandbox.inside import agent_files, launch_command
from autograder.sandbox.limits import Limits


def pairs(command, flag):
    """(first, second) words after every `flag`."""
    return [tuple(command[i + 1 : i + 3]) for i, word in enumerate(command) if word == flag]


@pytest.fixture
def command():
    box = Box(files=((Path("/etc/hostname"), "/x"),), writable=(Path("/run/abc"),), tmpfs_bytes=77)
    return bwrap_command(box, ["python", "-c", "pass"])


def test_everything_is_unshared_and_dropped(command):
    wanted = ["user", "pid", "ipc", "uts", "net", "cgroup-try"]
    assert {f"--unshare-{w}" for w in wanted} <= set(command)
    assert {"--die-with-parent", "--new-session", "--disable-userns", "--clearenv"} <= set(command)
    assert command[command.index("--cap-drop") + 1] == "ALL"
    assert command[command.index("--") + 1 :] == ["python", "-c", "pass"]


def test_no_host_folder_is_writable_but_the_named_one(command):
    assert pairs(command, "--bind") == [("/run/abc", "/run/abc")]
    assert not {"--dev-bind", "--bind-try", "--dev-bind-try"} & set(command)
    assert [a for a, _ in pairs(command, "--remount-ro")] == ["/proc", "/dev", "/"]
    last = max(i for i, w in enumerate(command) if w.startswith(("--ro-bind", "--bind", "--tmpfs")))
    assert command.index("--remount-ro") > last  # the root stays writable while mounts are made


def test_memory_folders_are_capped(command):
    places = [i for i, word in enumerate(command) if word == "--tmpfs"]
    assert [command[i + 1] for i in places] == ["/work", "/tmp", "/dev/shm"]
    assert all(command[i - 2 : i] == ["--size", "77"] for i in places)


def test_environment_is_ours_alone(command, monkeypatch):
    values = dict(pairs(command, "--setenv"))
    assert values["OMP_NUM_THREADS"] == values["PIP_NO_INDEX"] == "1"
    assert values["NBGRADER_EXECUTION"] == "autograde"
    assert values["HOME"].startswith("/work/")
    assert "DGM_DATA" not in values
    monkeypatch.setenv("DGM_DATA", "/somewhere")
    assert set(outer_environment()) == {"PATH"}  # /proc/1/environ shows this one


def test_nothing_of_the_host_but_system_and_interpreter(command):
    bound = [a for a, _ in pairs(command, "--ro-bind") + pairs(command, "--ro-bind-try")]
    system = ("/usr", "/lib", "/bin", "/sbin", "/etc/ld.so", "/etc/fonts", "/etc/alternatives")
    rest = [b for b in bound if not b.startswith((*system, "/etc/localtime"))]
    assert rest == [*map(str, interpreter_folders()), "/etc/hostname"]
    assert "/etc" not in bound and str(Path.home()) not in bound


def test_submission_without_notebook_and_links(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("homework1.ipynb", "weights.safetensors", "data/x.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "stolen").symlink_to("/etc/passwd")
    (tmp_path / "folder").symlink_to("/etc")
    found = [inside for _, inside in submission_files(tmp_path)]
    assert found == [f"{SUBMISSION}/data/x.txt", f"{SUBMISSION}/weights.safetensors"]


def test_agent_files_hold_nothing_of_the_grader():
    names = {inside for _, inside in agent_files()}
    assert "/agent/autograder/sandbox/agent.py" in names
    assert not [n for n in names if "judge" in n or "execute" in n or "bubblewrap" in n]
    assert all(host.is_file() for host, _ in agent_files())


def test_launch_isolates_the_interpreter():
    command = launch_command("plain", Limits(memory=5), 7)
    assert command[1] == "-I"  # no PYTHON* variables, no user site, no current folder
    assert command[3] == "plain" and command[5] == "7" and '"memory": 5' in command[4]


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("bwrap: Unknown option --disable-userns", "0.8"),
        ("bwrap: setting up uid map: Permission denied", "AppArmor".lower()),
        ("bwrap: No permissions to create new namespace", "max_user_namespaces"),
    ],
)
def test_remedies(message, word):
    assert word in guard.remedy_for(message).lower()


def test_no_bubblewrap_is_said_and_mended(monkeypatch):
    guard.can_guard.cache_clear()
    monkeypatch.setattr(guard.shutil, "which", lambda name: None)
    found = guard.can_guard()
    guard.can_guard.cache_clear()
    assert not found.ok and "not installed" in found.reason and "apt install" in found.remedy


def test_a_failing_bubblewrap_is_no_guard(monkeypatch, tmp_path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(guard.shutil, "which", lambda name: str(fake))
    guard.can_guard.cache_clear()
    found = guard.can_guard()
    guard.can_guard.cache_clear()
    assert not found.ok and "uid map" in found.reason and "apparmor" in found.remedy
