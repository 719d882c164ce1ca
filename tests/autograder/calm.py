"""An executor that runs nothing: it plays the outputs that a test wants to see scored."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from nbformat.v4 import new_output
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import List, Unicode

from autograder.cells import defines, is_test


class CalmExecute(NbGraderPreprocessor):
    """Fails the test of every function whose definition still raises NotImplementedError."""

    submission = Unicode().tag(config=True)
    secret = Unicode().tag(config=True)
    cache = Unicode().tag(config=True)
    path = List().tag(config=True)
    report = Unicode().tag(config=True)

    def preprocess(self, nb, resources):
        missing = set()
        for cell in nb.cells:
            if cell.cell_type == "code" and "NotImplementedError" in cell.source:
                missing |= defines(cell.source)
        for cell in nb.cells:
            wanted = set(cell.metadata.get("course", {}).get("tests", []))
            if is_test(cell) and wanted & missing:
                text = f"{min(wanted)} is not written yet"
                cell.outputs = [new_output("error", ename="NotImplementedError", evalue=text)]
        Path(self.report).write_text(json.dumps({"peak_memory": 1, "restarts": 0, "cells": {}}))
        return nb, resources


class TalkativeExecute(CalmExecute):
    """Every cell that is run prints who it is, as a submission may that captured test inputs."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)
        for cell in nb.cells:
            if cell.cell_type == "code":
                name = cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)
                text = f"run of {name}\n"
                cell.outputs = [new_output("stream", name="stdout", text=text)]
        return nb, resources


class HalfExecute(CalmExecute):
    """Cannot run one test, as where a disk is full."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)
        failed = ["p1-cube-test: no room on the disk"]
        Path(self.report).write_text(json.dumps({"cells": {}, "judge_failed": failed}))
        return nb, resources


class StumblingExecute(CalmExecute):
    """Falls over on one student, as a bug of the grader would."""

    def preprocess(self, nb, resources):
        if resources["nbgrader"]["student"] == "ada":
            raise RuntimeError("stumbled over ada")
        return super().preprocess(nb, resources)


class SlowExecute(CalmExecute):
    """Takes a while, so that a test can end the program in the middle."""

    def preprocess(self, nb, resources):
        time.sleep(2)
        return super().preprocess(nb, resources)


def grade_or_die(job):
    """Stands for grading: one student's job ends its whole process, the others return."""
    if job.student == "killer":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.student == "fragile":  # and comes through with the third try
        tries = len(os.listdir(job.cache))
        Path(job.cache, str(tries)).touch()
        if tries < 2:
            os.kill(os.getpid(), signal.SIGKILL)
    if job.student == "raiser":
        raise ValueError("no good")
    return {"student": job.student, "failed": "", "threads": os.environ.get("OMP_NUM_THREADS")}
