"""Full disk, broken files, no sandbox: one message with the mend, exit code 2, nothing lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boxed import needs_sandbox
from desk import NAME
from small_homework import solved

from autograder import cli, commands_grade, context, doctor_guard
from autograder.context import UNGUARDED
from autograder.errors import CourseError, mendable
from autograder.grading import plan
from autograder.run import grading_config
from autograder.sandbox.guard import Guard

HERE = Path(__file__).parent
NO_GUARD = Guard(False, "bubblewrap failed: no permissions", "load a profile for it")


# -- where nothing can be guarded -----------------------------------------------------------------
def test_the_refusal_holds_the_exact_words_that_override_it(monkeypatch):
    """Reason, mend, and the sentence; nothing but that sentence will do."""
    monkeypatch.setattr(context, "can_guard", lambda: NO_GUARD)
    with pytest.raises(CourseError) as error:
        context.must_guard()
    text = str(error.value)
    assert NO_GUARD.reason in text and NO_GUARD.remedy in text
    words = text.split('--without-a-sandbox "')[1].split('"')[0]
    assert context.must_guard(words) is False
    for other in ("yes", words.upper(), words + "."):
        with pytest.raises(CourseError, match="the whole sentence"):
            context.must_guard(other)


def test_the_override_is_refused_where_it_is_not_needed(monkeypatch):
    """A machine that can guard guards."""
    monkeypatch.setattr(context, "can_guard", lambda: Guard(True))
    assert context.must_guard() is True
    with pytest.raises(CourseError, match="leave --without-a-sandbox out"):
        context.must_guard(UNGUARDED)


def test_only_the_override_reaches_the_executor(desk, tmp_path):
    """And what was graded unguarded is never taken for a guarded result."""
    desk.hand_in("ada", solved())
    keys = []
    for unguarded in (False, True):
        (job,) = plan(desk.homework, desk.place, desk.root, unguarded=unguarded)
        config = grading_config(job, tmp_path, "sqlite://", "autograder.execute.SandboxedExecute")
        assert bool(config.SandboxedExecute.get("unguarded")) is unguarded
        keys.append(job.key)
    assert keys[0] != keys[1]


@pytest.mark.slow
def test_with_the_words_a_class_is_graded_unguarded(desk, monkeypatch, course, capsys):
    """The code is this test's own and harmless: a square, a cube, and the canaries."""
    monkeypatch.setattr(context, "can_guard", lambda: NO_GUARD)
    monkeypatch.setattr("autograder.execute.can_guard", lambda: NO_GUARD)
    desk.hand_in("ada", solved())
    here = context.Context(desk.root, course, desk.place)
    with pytest.raises(CourseError, match="--without-a-sandbox"):
        commands_grade.grade(NAME, [], "serial", context=here)
    assert not desk.row("ada").graded
    commands_grade.grade(NAME, [], "serial", without_sandbox=UNGUARDED, context=here)
    assert desk.row("ada").total == 5 and "5 canaries" in capsys.readouterr().out


# -- disk and files -------------------------------------------------------------------------------
FULL = """
import functools, os, shutil, sys
from pathlib import Path
from autograder import cli, commands_grade
from autograder.grading import grade_all

root = Path(sys.argv[1])
shutil.copytree(root / "kept", root / "class", dirs_exist_ok=True)
calm = functools.partial(grade_all, execute="calm.CalmExecute", canaries=False)
commands_grade.grade_all, commands_grade.must_guard = calm, lambda words: True
left = os.statvfs(root / "class")
filler = root / "class" / "filler"
filler.write_bytes(bytes(max(0, left.f_bavail * left.f_frsize - 40_000)))
for last in (False, True):
    sys.argv = ["autograder", "grade", "homework1", "--engine", "serial"]
    try:
        cli.main()
    except SystemExit as end:
        print("exit", end.code or 0, flush=True)
    filler.unlink(missing_ok=True)
"""


class TestFull:
    """On a small disk in memory, made by bubblewrap."""

    pytestmark = needs_sandbox()

    def test_a_full_disk(self, desk, tmp_path):
        """One message, no traceback; with room again the same command finishes the work."""
        for student in ("ada", "max"):
            desk.hand_in(student, solved())
        shutil.move(desk.root / "class", desk.root / "kept")
        (desk.root / "class").mkdir()
        script = tmp_path / "full.py"
        script.write_text(FULL)
        folder = str(desk.root / "class")
        box = ["bwrap", "--dev-bind", "/", "/", "--size", str(6 << 20), "--tmpfs", folder]
        words = [*box, "--chdir", str(desk.root), sys.executable, str(script), str(desk.root)]
        paths = f"{HERE}:{HERE.parents[1]}"
        words[1:1] = ["--setenv", "PYTHONPATH", paths, "--unsetenv", "COURSE_DIR"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.stdout.count("exit 2") == 1 and done.stdout.endswith("exit 0\n"), done
        assert "Traceback" not in done.stderr and "room on the disk" in done.stderr
        assert "free some space and give the same command again" in done.stderr
        assert done.stdout.count("5 points") >= 2


def test_a_limit_on_file_sizes_is_one_message(tmp_path):
    """ulimit -f."""
    code = (
        "import resource, sys\nfrom autograder.errors import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    with mendable(): open(sys.argv[1], 'wb', 0).write(bytes(9999)); "
        "open(sys.argv[1], 'ab', 0).write(b'x')\n"
        "except CourseError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "big")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=HERE.parents[1])
    assert "ulimit -f unlimited" in done.stdout, done


def test_a_gradebook_that_is_none(desk):
    """Text where the data base should be: the message says what to put back."""
    desk.hand_in("ada", solved())
    (desk.place.root / "gradebook.db").write_text("hello " * 1000)
    with pytest.raises(CourseError, match="put back a copy of gradebook.db"), mendable():
        desk.grade()


def test_files_that_are_gone_or_broken(desk):
    """The secret, and the record of a submission."""
    desk.hand_in("ada", solved())
    secret = desk.place.secret(NAME)
    kept = secret.read_text()
    secret.unlink()
    with pytest.raises(CourseError, match="the secret of homework1.*from a copy of the class"):
        plan(desk.homework, desk.place, desk.root)
    secret.write_text(kept)
    (desk.place.submitted("ada", NAME) / "intake.json").write_text('{"version": ')
    with pytest.raises(CourseError, match="a whole submission of ada.*collect homework1 PATH"):
        plan(desk.homework, desk.place, desk.root)
    assert json.loads('{"kept": true}')["kept"] and secret.read_text() == kept


# -- doctor ---------------------------------------------------------------------------------------
def write(root, **files):
    """Files of a machine: proc__sys__x -> root/proc/sys/x."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_doctor_on_user_name_spaces(tmp_path):
    """None allowed; only root; plenty."""
    write(tmp_path, proc__sys__user__max_user_namespaces="0")
    found = doctor_guard.name_spaces(tmp_path)
    assert found.state == "warn" and "max_user_namespaces=10000" in found.mend
    write(tmp_path, proc__sys__user__max_user_namespaces="9999")
    assert doctor_guard.name_spaces(tmp_path).state == "ok"
    write(tmp_path, proc__sys__kernel__unprivileged_userns_clone="0")
    assert "unprivileged_userns_clone=1" in doctor_guard.name_spaces(tmp_path).mend


def test_doctor_on_apparmor(tmp_path):
    """Not there; there, with and without a profile that lets bubblewrap work."""
    assert doctor_guard.apparmor(tmp_path, guarded=False).state == "ok"
    write(tmp_path, proc__sys__kernel__apparmor_restrict_unprivileged_userns="1")
    assert doctor_guard.apparmor(tmp_path, guarded=True).state == "ok"
    found = doctor_guard.apparmor(tmp_path, guarded=False)
    assert found.state == "bad" and "userns" in found.mend and "apparmor_parser" in found.mend


def test_doctor_on_cgroups(tmp_path):
    """No version 2, no cap, a cap of 3 GiB."""
    found = doctor_guard.cgroups(tmp_path)
    assert found.state == "warn" and "MemoryMax" in found.mend
    write(tmp_path, proc__self__cgroup="0::/user/grader")
    (tmp_path / "sys/fs/cgroup/user/grader").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("memory pids\n")
    (tmp_path / "sys/fs/cgroup/user/grader/memory.max").write_text("max\n")
    assert "no cap" in doctor_guard.cgroups(tmp_path).found
    (tmp_path / "sys/fs/cgroup/user/grader/memory.max").write_text(f"{3 << 30}\n")
    assert doctor_guard.cgroups(tmp_path) == doctor_guard.Finding(
        "cgroups", "ok", "version 2, this run has 3.0 GiB at most"
    )


def test_doctor_on_memory_and_gpu(monkeypatch):
    """Four workers on 9 GiB: two; the card's name where there is one."""
    monkeypatch.setattr(doctor_guard, "cores", lambda: 4)
    monkeypatch.setattr(doctor_guard, "spare_memory", lambda: 9 << 30)
    found = doctor_guard.memory()
    assert found.state == "warn" and "--workers 2" in found.mend
    monkeypatch.setattr(doctor_guard.shutil, "which", lambda name: None)
    assert "none" in doctor_guard.gpu().found
    monkeypatch.setattr(doctor_guard.shutil, "which", lambda name: name)
    monkeypatch.setattr(doctor_guard, "first_line", lambda words: "NVIDIA T4")
    assert doctor_guard.gpu().found.startswith("NVIDIA T4; grading needs none")


def test_doctor_says_how_to_override(monkeypatch, root, capsys):
    """The command ends with exit code 2 and the words."""
    monkeypatch.chdir(root)
    monkeypatch.setattr(doctor_guard, "can_guard", lambda: NO_GUARD)
    monkeypatch.setattr(sys, "argv", ["autograder", "doctor"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2 and UNGUARDED in capsys.readouterr().err
