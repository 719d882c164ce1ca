"""The command `autograder forget`: what is kept about a student, and its removal."""

from __future__ import annotations

from autograder.context import Context, make_context
from autograder.errors import CourseError
from autograder.forget import find
from autograder.forget import forget as remove
from autograder.report import console


def forget_student(student: str, yes: bool = False, context: Context | None = None) -> None:
    """Show the traces; remove them when `yes`."""
    context = context or make_context()
    if not context.place.root.is_dir():
        raise CourseError("a class", f"{context.place.root} does not exist", "set COURSE_DIR")
    found = find(context.place, student)
    left = remove(context.place, student) if yes or not found.any else found
    out = console()
    for path in found.own:
        out.print(f"  {path}", soft_wrap=True, markup=False)
    for path, n in found.rows.items():
        what = "rows" if path.suffix == ".db" else f"{n} entr{'y' if n == 1 else 'ies'}"
        out.print(f"  {path}: {what}", soft_wrap=True, markup=False)
    out.print("removed" if yes else "nothing was changed; --yes removes this for good")
    if left.named:
        out.print("files of the whole class that may name the student; write anew or delete:")
    for path in left.named:
        out.print(f"  {path}", soft_wrap=True, markup=False)
