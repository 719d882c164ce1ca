"""An instructor's commands as functions, with an executor that runs no student code (calm.py)."""

from datetime import timedelta

import nbformat
from small_homework import cell_of, release_notebook, source_notebook

from autograder.grading import grade_all, plan
from autograder.intake import collect
from autograder.nbg import gradebook
from autograder.roster import Roster, Student
from autograder.table import read_rows

NAME = "homework1"
CALM = "calm.CalmExecute"
CLASS = Roster([Student("ada", "Lovelace", "Ada"), Student("max", "=1+1", "@Max")])


class Desk:
    """An instructor's commands as functions."""

    def __init__(self, folder, homework, place, rule, root):
        self.folder, self.homework, self.place = folder, homework, place
        self.rule, self.root = rule, root

    def hand_in(self, student, notebook, days_late=-1.0):
        folder = self.folder / student
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, folder / f"{NAME}.ipynb")
        moment = self.homework.deadline + timedelta(days=days_late)
        (folder / "timestamp.txt").write_text(moment.isoformat())
        taken = {t.student: t for t in collect(self.folder, self.homework, self.place, CLASS)}
        assert taken[student].status == "new", taken[student]

    def grade(self, **options):
        jobs = plan(self.homework, self.place, self.root, options.pop("students", None))
        options = {"engine": "serial", "execute": CALM, "canaries": False} | options
        done = list(grade_all(jobs, self.homework, self.place, self.rule, CLASS, **options))
        assert [d.bundle["failed"] for d in done] == [""] * len(done)
        return done

    def row(self, student="ada"):
        rows = read_rows(self.homework, self.place, self.rule, CLASS)
        return next(r for r in rows if r.student == student)

    def mark(self, name, score, student="ada"):
        """A person's mark, as formgrader stores it."""
        with gradebook(self.place.db_url) as gb:
            grade = gb.find_grade(name, NAME, NAME, student)
            grade.manual_score, grade.needs_manual_grade = score, False
            gb.db.commit()

    def waits(self, student="ada"):
        with gradebook(self.place.db_url) as gb:
            grades = gb.find_submission_notebook(NAME, NAME, student).grades
            return {g.name for g in grades if g.needs_manual_grade}


def without(notebook, *names):
    """The answers of these cells as released."""
    stubs = release_notebook(source_notebook())
    for name in names:
        cell_of(notebook, name).source = cell_of(stubs, name).source
    return notebook
