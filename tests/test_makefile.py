"""The Makefile: every target is explained, and its usage mistakes end in one clear line."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def make(*arguments: str) -> subprocess.CompletedProcess:
    """Run make in the project as from a shell, also where make itself started the tests."""
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )


def test_help_lists_every_public_target():
    phony = re.search(r"^\.PHONY: (.+?)$(?!\\)", MAKEFILE.replace("\\\n", " "), re.MULTILINE)[1]
    lines = make("help").stdout.splitlines()
    assert {line.split()[1] for line in lines} == set(phony.split()) - {"system"}
    assert all(len(line.split()) > 3 for line in lines)


def test_collect_without_a_folder_says_what_to_type():
    done = make("collect")
    assert done.returncode == 2
    assert "make collect FROM=" in done.stdout


def test_release_says_what_it_needs():
    """A folder, and a tag or the word that it is a trial; nothing is written before."""
    for given, said in (
        ([], "make release: say which folder to write"),
        (["OUT=x"], "make release: say which tag of git"),
    ):
        done = make("release", *given)
        assert done.returncode == 2 and said in done.stdout
    asked = make("-n", "release", "OUT=a b", "TAG=t", "SOLUTIONS=04_vae homework1").stdout
    assert '"a b" --tag "t" --solutions 04_vae --solutions homework1' in asked
    assert '"x" --trial' in make("-n", "release", "OUT=x", "TRIAL=1").stdout


def test_a_python_that_is_too_old_is_refused_in_one_line(tmp_path):
    """A stand-in interpreter that says it is 3.9."""
    old = tmp_path / "python-old"
    old.write_text(
        "#!/bin/sh\nexec python3 -c "
        "'import sys; sys.version_info = (3, 9, 0); exec(sys.argv[1])' \"$2\"\n"
    )
    old.chmod(0o755)
    done = make("env", f"PYTHON={old}", f"VENV={tmp_path}/venv")
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "venv").exists()


def test_a_relative_data_folder_is_the_one_beside_the_makefile():
    """Tests and notebooks run in folders of their own: what make passes on is absolute."""
    text = MAKEFILE + "\nshow-data:\n\t@echo $$DGM_DATA\n"
    env = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    setting = "DGM_DATA=../shared/data"
    for before, after in (["env", setting], []), ([], [setting]):
        done = subprocess.run(
            [*before, "make", "-s", "-f", "-", "show-data", *after],
            **{"cwd": ROOT, "env": env, "input": text, "text": True},
            capture_output=True,
            timeout=60,
        )
        assert done.stdout.strip() == str(ROOT.parent / "shared" / "data"), done.stderr
