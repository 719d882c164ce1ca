"""Late penalties by nbgrader's plugin, with the rule of course.yml."""

from __future__ import annotations

from nbformat.v4 import new_notebook
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.preprocessors import AssignLatePenalties
from traitlets import Float
from traitlets.config import Config

from autograder.settings import LateRule


class CourseLatePenalty(LateSubmissionPlugin):
    """Grace in hours, then a share of the score per started day, up to a share at most."""

    grace_hours = Float(24.0).tag(config=True)
    per_day = Float(0.10).tag(config=True)
    at_most = Float(0.50).tag(config=True)

    def late_submission_penalty(
        self, student_id: str, score: float, total_seconds_late: float
    ) -> float:
        """Points to take off a score, for seconds after the deadline."""
        rule = LateRule(self.grace_hours, self.per_day, self.at_most)
        return score * rule.share(total_seconds_late)


def apply_late_rule(url: str, homework: str, student: str, rule: LateRule) -> None:
    """Set or lift one submission's penalty in the gradebook; again after every change of marks."""
    c = Config()
    c.AssignLatePenalties.plugin_class = CourseLatePenalty
    c.CourseLatePenalty.grace_hours = rule.grace_hours
    c.CourseLatePenalty.per_day = rule.per_day
    c.CourseLatePenalty.at_most = rule.at_most
    named = {"notebook": homework, "assignment": homework, "student": student, "db_url": url}
    AssignLatePenalties(config=c).preprocess(new_notebook(), {"nbgrader": named})
