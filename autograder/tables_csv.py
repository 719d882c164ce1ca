"""CSV tables in and out: clear messages for what is wrong, and no cell that is a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.errors import CourseError
from autograder.roster import Label, Roster

# a spreadsheet takes a cell that begins so for a formula
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = "0123456789."
# columns that say whose a row is: ours, Moodle's, Canvas's
_OWNERS = ("student_id", "Email address", "SIS Login ID", "ID number", "ID", "Full name", "Student")


def neutral(value: Any) -> Any:
    """A value that no spreadsheet computes: text that begins like a formula gets an apostrophe.

    Text that begins with apostrophes before such a sign gets one more, so that `plain` restores
    every text exactly. Numbers and negative numbers as text stay.
    """
    if not isinstance(value, str) or len(value) < 2 or _is_number(value):
        return value
    return "'" + value if value.lstrip(" '").startswith(FORMULA_SIGNS) else value


def plain(text: str) -> str:
    """The text that `neutral` was given."""
    quoted = text.startswith("'") and text.lstrip(" '").startswith(FORMULA_SIGNS)
    return text[1:] if quoted else text


def _is_number(text: str) -> bool:
    signed = text.lstrip("+-")
    return bool(signed) and set(signed) <= set(_NUMBER)


@dataclass
class Table:
    """A CSV file: its columns, and rows as {column: text} with the line number under `line`."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)

    def needs(self, *columns: str, what: str = "") -> None:
        """CourseError when a column is missing."""
        if missing := [c for c in columns if c not in self.columns]:
            raise CourseError(
                what or f"a table with the columns {', '.join(columns)}",
                f"{self.path.name} has {', '.join(self.columns) or 'none'}"
                f" (not {', '.join(missing)})",
                "mend the first line and give it again",
            )

    def wrong(self, row: dict[str, str], came: str, mend: str = "") -> CourseError:
        """The error for one line."""
        where = f"{self.path.name}, line {row['line']}"
        return CourseError(f"a right line in {where}", came, mend or "mend that line")

    def student(self, row: dict[str, str], roster: Roster) -> str:
        """The student_id of a row, by the first column that tells; CourseError if unknown."""
        owner = [c for c in _OWNERS if row.get(c)]
        for column in owner:
            found = self.owner(row[column], column, roster)
            if found:
                return found
        said = f"{row[owner[0]]!r} is not in students.csv" if owner else "it names no student"
        raise self.wrong(row, said, "mend the name, or add the student to students.csv")

    @staticmethod
    def owner(text: str, column: str, roster: Roster) -> str | None:
        """Whose `text` is in a column; None when students.csv does not know it."""
        if not roster.students:
            return text if column == "student_id" else None
        by_number = column in ("ID", "ID number")
        label = Label("", text) if by_number else Label(text)
        for student in roster.students.values():
            if not by_number and text.casefold() == student.email.casefold() != "":
                return student.id
        found = roster.find(label)
        return found.id if found else None


def read_table(path: Path) -> Table:
    """A CSV with commas or semicolons, in UTF-8 with or without a mark; cells without blanks.

    CourseError for a file that is missing, not text, empty, or has a column twice.
    """
    if not path.is_file():
        raise CourseError("a CSV file", f"{path} does not exist", "mend the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CourseError(
            "a CSV file in UTF-8", f"{path.name} is not", "save it again as CSV UTF-8"
        ) from None
    first = text.split("\n", 1)[0]
    kind = ";" if first.count(";") > first.count(",") else ","
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=kind)
    columns = [plain(c.strip()) for c in next(lines, [])]
    if not columns or len(set(columns)) < len(columns):
        raise CourseError(
            "a first line with the names of the columns, each once",
            f"{path.name} begins with {first[:80]!r}",
            "mend the first line",
        )
    table = Table(path, columns)
    for cells in lines:
        cells = [plain(c.strip()) for c in cells]
        if any(cells):
            padded = cells + [""] * (len(columns) - len(cells))
            table.rows.append({**dict(zip(columns, padded)), "line": str(lines.line_num)})
    return table


def write_table(
    path: Path,
    rows: Iterable[Sequence[Any]],
    mark: bool = True,
    cell: Callable[[Any], Any] = neutral,
) -> Path:
    """Rows as CSV in UTF-8, whole or not at all, each value through `cell`: formulas are neutral.

    mark: the byte order mark by which spreadsheets know UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    with aside.open("w", encoding="utf-8-sig" if mark else "utf-8", newline="") as file:
        csv.writer(file).writerows([[cell(value) for value in row] for row in rows])
    return aside.replace(path)
