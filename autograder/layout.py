"""The folders of a class: who writes what where under $COURSE_DIR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CourseError

# SQLite waits this long for a lock: without it, parallel writers lose transactions
BUSY_SECONDS = 120


@dataclass(frozen=True)
class ClassFolder:
    """Paths under one class folder; nbgrader's own names for what nbgrader reads."""

    root: Path

    @property
    def db_url(self) -> str:
        """The class gradebook as nbgrader opens it; waits two minutes for a lock."""
        return db_url(self.root / "gradebook.db")

    def submitted(self, student: str, homework: str) -> Path:
        """The attempt that counts: homework.ipynb, weights, timestamp.txt."""
        return self.root / "submitted" / student / homework

    def attempts(self, student: str, homework: str) -> Path:
        """Every attempt as it came, one folder each."""
        return self.root / "attempts" / homework / student

    def autograded(self, student: str, homework: str) -> Path:
        """The graded notebook, as formgrader shows it."""
        return self.root / "autograded" / student / homework

    def feedback(self, student: str, homework: str) -> Path:
        """The page that goes back to the student."""
        return self.root / "feedback" / student / homework

    def runs(self, homework: str, student: str = "") -> Path:
        """Result bundles, one folder per content hash."""
        return self.root / "runs" / homework / student

    def versions(self, homework: str) -> Path:
        """Opened releases of a homework, one folder per version."""
        return self.root / "versions" / homework

    def secret(self, homework: str) -> Path:
        """The homework's secret, readable by its owner alone."""
        return self.root / "secrets" / homework

    def cache(self, homework: str) -> Path:
        """The judge's own files, never seen by a sandbox."""
        return self.root / "cache" / homework

    def latest(self, homework: str) -> str:
        """The version opened last; CourseError when none is open."""
        pointer = self.versions(homework) / "latest"
        if not pointer.is_file():
            raise CourseError(
                f"{homework} opened for the term",
                f"{self.root} has no opened version of it",
                f"give `autograder open {homework}` first",
            )
        return pointer.read_text().strip()

    def students(self, homework: str) -> list[str]:
        """Ids of all students with a submission of this homework, sorted."""
        return sorted(p.parent.name for p in (self.root / "submitted").glob(f"*/{homework}"))


def db_url(path: Path | str) -> str:
    """SQLAlchemy's address of a SQLite file, with the long wait for locks."""
    return f"sqlite:///{path}?timeout={BUSY_SECONDS}"
