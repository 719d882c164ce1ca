"""Inside the box: nbgrader's gradebook as one line of JSON. python read_scores.py HOMEWORK."""

from __future__ import annotations

import json
import sys
import warnings

from nbgrader.api import Gradebook

warnings.filterwarnings("ignore")


def main(homework: str) -> None:
    """Print {student: {score, max_score, checks: {grade_id: auto_score}, manual, waiting}}."""
    with Gradebook("sqlite:///gradebook.db") as gradebook:
        found = {
            entry.student.id: _facts(entry) for entry in gradebook.assignment_submissions(homework)
        }
    print(json.dumps(found))


def _facts(entry: object) -> dict:
    grades = [grade for notebook in entry.notebooks for grade in notebook.grades]
    return {
        "score": entry.score,
        "max_score": entry.max_score,
        "checks": {grade.name: grade.auto_score for grade in grades},
        "manual": {grade.name: grade.manual_score for grade in grades},
        "waiting": [grade.name for grade in grades if grade.needs_manual_grade],
    }


if __name__ == "__main__":
    main(sys.argv[1])
