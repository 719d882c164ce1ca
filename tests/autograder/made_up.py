"""Result bundles made by hand, merged into the class as a grading run would merge them."""

import json

import nbformat
from nbformat.v4 import new_output
from small_homework import NAME, cell_of, solved, source_notebook

from autograder.cells import grade_id, is_answer
from autograder.context import Context
from autograder.gradebook import merge, save_bundle
from autograder.settings import load_course

HASH = "ab" * 32
POINTS = {"p1-square-test": 2.0, "p1-cube-test": 3.0, "p1-plot": 2.0, "p1-essay": 3.0}
KINDS = dict(zip(POINTS, ("visible", "hidden", "manual", "manual")))


def context_of(root, place, students=""):
    """The course with this students.csv (without its first line)."""
    head = "student_id,last_name,first_name,email,lms_id\n"
    place.root.mkdir(exist_ok=True)
    (place.root / "students.csv").write_text(head + students, encoding="utf-8")
    return Context(root, load_course(root / "course.yml"), place)


def check(name, points=None, **more):
    """One check as run.py makes it."""
    source = "an answer" if KINDS[name] == "manual" else ""
    facts = {"grade_id": name, "kind": KINDS[name], "points": points, "max_points": POINTS[name]}
    return facts | {"message": "", "source": source} | more


def graded_notebook(**sources):
    """The master's cells with a student's answers, as a run leaves them; name -> source."""
    made, own = source_notebook(), solved()
    for cell in made.cells:
        if is_answer(cell):
            name = grade_id(cell)
            cell.source = sources.get(name.replace("-", "_"), cell_of(own, name).source)
    return made


def failed(notebook, name, kind, text):
    """The notebook with an error under a cell."""
    cell_of(notebook, name).outputs = [new_output("error", ename=kind, evalue=text, traceback=[])]
    return notebook


def put(context, student, checks=(), notebook=None, stamp="2027-03-01 12:00:00 UTC", **more):
    """Merge a bundle; checks that are not named got all points, or wait."""
    named = {c["grade_id"]: c for c in checks}
    whole = [named.get(n, check(n, None if KINDS[n] == "manual" else p)) for n, p in POINTS.items()]
    bundle = {
        "homework": NAME,
        "student": student,
        "version": "000000000000",
        "stamp": stamp,
        "key": "0123456789abcdef",
        "hashes": {"submission": HASH, "tests": HASH, "held-out images": "digits"},
        "environment": {"python": "3.11.0", "torch": "2.14.1"},
        "seeds": "HMAC-SHA256",
        "failed": "",
        "checks": whole,
        **{"comments": {}, "realigned": [], "kept": []},
        "execution": {"cells": {}, "restarts": 0, "killed": [], "judge_failed": []},
        "notebook": nbformat.writes(notebook or graded_notebook()),
    } | more
    folder = context.place.submitted(student, NAME)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "intake.json").write_text(json.dumps({"sha256": HASH}))
    homework = context.homework(NAME)
    save_bundle(bundle, context.place)
    merge(bundle, context.place, homework, context.course.late, context.roster)
    return bundle
