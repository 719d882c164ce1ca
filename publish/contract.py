"""The contract between a homework and its grader, checked before anything is released."""

from __future__ import annotations

from collections.abc import Iterator

from publish.binding import HIDDEN_BEGIN, HIDDEN_END, hidden_lines
from publish.errors import PublishError
from publish.inline import SETUP
from publish.names import line_of, scan
from publish.smoke import PARAMETERS
from publish.sources import Cell, Source

ROLES = ("define", "data", "train")
KNOWN = {"tests", "depends", "weights", "build", "role"}


def role_of(cell: Cell) -> str:
    """Role of a code cell; PublishError where it has more than one."""
    roles = [role for role in ROLES if role in cell.tags]
    if len(roles) > 1:
        raise cell.error(f"the cell has the roles {', '.join(roles)}; give it one")
    return roles[0] if roles else "define"


def is_test(cell: Cell) -> bool:
    """Whether it is an automatically graded test cell."""
    return bool(cell.nbgrader.get("grade")) and not cell.nbgrader.get("solution")


def is_hidden(cell: Cell) -> bool:
    """Whether a test cell is wholly hidden; PublishError where it is partly so.

    A hidden test leaves comment lines only: what it checks, and its points.
    """
    inside = hidden_lines(cell)
    if HIDDEN_BEGIN not in cell.source and HIDDEN_END not in cell.source:
        return False
    rows = cell.source.split("\n")
    for number, row in enumerate(rows, start=1):
        marker = HIDDEN_BEGIN in row or HIDDEN_END in row
        if number not in inside and not marker and row.strip() and not row.startswith("#"):
            raise cell.error(
                "a graded test cell is wholly visible or wholly hidden: move this line between "
                f"### {HIDDEN_BEGIN} and ### {HIDDEN_END}",
                number,
            )
    notes = [row for n, row in enumerate(rows, 1) if n not in inside and "HIDDEN TESTS" not in row]
    if sum(row.startswith("#") for row in notes) < 2:
        raise cell.error("a hidden test leaves two comment lines: what it checks, and its points")
    return True


def test_names(source: Source, cell: Cell) -> frozenset[str]:
    """Names of a test cell that resolve to the student's notebook: the judge's proxies."""
    setup = source.tagged(SETUP)
    given = scan(setup.source).bound if setup is not None else frozenset()
    return scan(cell.source).free - given


def check_contract(source: Source) -> None:
    """PublishError at the first breach of the contract in a homework master."""
    ids = {cell.grade_id for cell in source.cells if cell.grade_id}
    for cell in source.code:
        role_of(cell)
        _check_keys(cell, ids)
        if is_test(cell):
            is_hidden(cell)
            _check_tests(source, cell)
        elif HIDDEN_BEGIN in cell.source:
            raise cell.error("hidden tests stand in a graded test cell")
    _check_graded_run(source)
    tested = list(_tested(source))
    for cell in source.code:
        if cell.nbgrader.get("solution") and not cell.nbgrader.get("grade"):
            _check_solution(cell, tested)


def _check_keys(cell: Cell, ids: set[str]) -> None:
    data = cell.metadata.get("course", {})
    if not isinstance(data, dict) or set(data) - KNOWN:
        raise cell.error(f"`course` metadata: expected some of {', '.join(sorted(KNOWN))}")
    for needed in data.get("depends", ()):
        if needed not in ids:
            raise cell.error(f"`depends` names `{needed}`, which is no grade_id of this homework")


def _check_tests(source: Source, cell: Cell) -> None:
    found = test_names(source, cell)
    listed = cell.metadata.get("course", {}).get("tests")
    if not isinstance(listed, list):
        raise cell.error(
            f'test cell `{cell.grade_id}` lists no `tests`; expected course={{"tests": '
            f"{sorted(found)}}}".replace("'", '"')
        )
    for name in sorted(found - set(listed)):
        raise cell.error(
            f"`{name}` is bound neither in the test cell `{cell.grade_id}` nor in the set-up cell: "
            "bind it there, or list it in `tests` if the student defines it",
            line_of(cell.source, name),
        )
    for name in sorted(set(listed) - found):
        raise cell.error(f"`tests` of `{cell.grade_id}` lists `{name}`, which the cell never uses")
    bound = frozenset().union(*(scan(c.source).bound for c in source.code if not is_test(c)))
    for name in sorted(set(listed) - bound):
        raise cell.error(f"`tests` lists `{name}`, which no cell of the homework defines")


def _check_graded_run(source: Source) -> None:
    """A graded run executes `define` cells only: what they read at once, they bind."""
    cells = [c for c in source.code if role_of(c) == "define" and not is_test(c)]
    defined = frozenset().union(*(scan(c.source).bound for c in cells))
    others = [c for c in source.code if role_of(c) != "define"]
    elsewhere = frozenset().union(*(scan(c.source).bound for c in others)) - defined
    for cell in cells:
        for name in sorted(scan(cell.source).free & elsewhere):
            raise cell.error(
                f"a `define` cell reads `{name}`, which only a `data` or `train` cell binds; a "
                "graded run leaves these out",
                line_of(cell.source, name),
            )
    for cell in filter(is_test, source.code):
        for name in sorted(set(cell.metadata["course"]["tests"]) & elsewhere):
            raise cell.error(
                f"`tests` of `{cell.grade_id}` lists `{name}`, which only a `data` or `train` cell "
                "binds; a graded run leaves these out"
            )


def _tested(source: Source) -> Iterator[tuple[str, frozenset[str]]]:
    for cell in source.code:
        if is_test(cell):
            data = cell.metadata.get("course", {})
            yield str(cell.grade_id), frozenset([*data.get("tests", ()), *data.get("depends", ())])


def _check_solution(cell: Cell, tested: list[tuple[str, frozenset[str]]]) -> None:
    names = scan(cell.source).bound | {cell.grade_id}
    if not any(test.startswith(f"{cell.grade_id}-") or names & used for test, used in tested):
        raise cell.error(
            f"solution cell `{cell.grade_id}` has no test and is not marked by a person: add a "
            'test cell, or `"grade": true` and `points`'
        )


def needs_lock(cell: Cell) -> bool:
    """Whether a code cell of a homework is given code that the grader takes from the release."""
    given = not cell.nbgrader and role_of(cell) == "define"
    return cell.kind == "code" and (given or bool({SETUP, PARAMETERS} & cell.tags))


def points_of(source: Source) -> dict[str, float]:
    """Points by kind: visible, hidden, person."""
    total = {"visible": 0.0, "hidden": 0.0, "person": 0.0}
    for cell in source.cells:
        if cell.nbgrader.get("grade"):
            kind = "person" if not is_test(cell) else "hidden" if is_hidden(cell) else "visible"
            total[kind] += cell.nbgrader["points"]
    return total


def refuse_empty(source: Source) -> None:
    """PublishError where a homework grades nothing."""
    if not any(cell.nbgrader.get("grade") for cell in source.cells):
        raise PublishError("no graded cell", source.shown)
