"""A class of made-up submissions, each with the score that it deserves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nbformat import NotebookNode

from autograder import demo_shapes as shapes
from autograder.cells import defines, grade_id, is_test
from autograder.release import Release, read_notebook
from autograder.settings import LateRule
from autograder.table import Row

LATE = 2.5  # days
Person = tuple[str, str, str]  # id, last name, first name
Score = tuple[float, float] | None  # from, to; None: it is refused at collection

# invented
PEOPLE = (
    ("amelie.durand", "Durand", "Amélie"),
    ("siobhan.oconnor", "O'Connor", "Siobhán"),
    ("dmitri.volkov", "Волков", "Дмитрий"),
    ("joao.silva", "da Silva, Jr.", "João"),
    ("lan.nguyen", "Nguyễn", "Thị Lan"),
    ("wei.li", "李", "伟"),
    ("chidi.okafor", "Okafor", "Chidi"),
    ("yuki.sato", "佐藤", "優希"),
    ("soren.ostergard", "Østergård", "Søren"),
    ("ines.garcia", "García Márquez", "Inés"),
    ("lukasz.wojcik", "Wójcik", "Łukasz"),
    ("elif.aydin", "Aydın", "Elif"),
    ("anna.ivanova", "Иванова", "Анна"),
    ("kofi.mensah", "Mensah", "Kofi"),
    ("leila.haddad", "Haddad", "Leïla"),
    ("mateo.rossi", "Rossi", "Mateo"),
)


@dataclass(frozen=True)
class Homework:
    """What the demo needs to know of a homework: points by test, and whose tests they are."""

    release: NotebookNode
    reference: NotebookNode
    points: dict[str, float]  # of each test
    tests: dict[str, list[str]]  # answer -> its tests
    depends: dict[str, list[str]]  # answer -> tests that need it as well
    weights: dict[str, str]  # tests that score weights -> the file

    def without(self, *names: str) -> float:
        """Points of all tests but these."""
        return sum(self.points.values()) - sum(self.points[name] for name in names)


@dataclass(frozen=True)
class Entry:
    """One submission: who, in a few words what it is, its files, its score."""

    student: Person
    what: str
    notebook: NotebookNode
    score: Score
    name: str = ""  # of the notebook file; default: as released
    weights: bool = True
    days_late: float = -2.0
    damage: bool = False


def read_homework(release: Release) -> Homework:
    """Points, tests and dependencies of a built homework, from its master."""
    source, student = read_notebook(release.source), read_notebook(release.student)
    tests = [cell for cell in source.cells if is_test(cell)]
    facts = {grade_id(cell): cell.metadata.get("course", {}) for cell in tests}
    own, depends = _owners(source, facts)
    return Homework(
        release=student,
        reference=shapes.reference(source, student),
        points={grade_id(c): float(c.metadata.nbgrader["points"]) for c in tests},
        tests=own,
        depends=depends,
        weights={name: fact["weights"] for name, fact in facts.items() if fact.get("weights")},
    )


def _owners(source: NotebookNode, facts: dict[str, dict]) -> tuple[dict, dict]:
    """Answer -> its own tests, and answer -> tests that need it as well."""
    owners = {}  # function -> answer that defines it
    for cell in source.cells:
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code":
            owners |= {name: grade_id(cell) for name in defines(cell.source)}
    own: dict[str, list[str]] = {}
    depends: dict[str, list[str]] = {}
    for test, fact in facts.items():
        for answer in {owners[name] for name in fact.get("tests", []) if name in owners}:
            own.setdefault(answer, []).append(test)
        for answer in fact.get("depends", []):
            depends.setdefault(answer, []).append(test)
    return own, depends


def make_class(
    work: Homework, mutants: list[dict[str, str]], lost: list[str], rule: LateRule
) -> list[Entry]:
    """The demo's submissions. mutants: entries of the homework's verify/mutants.toml.

    lost: tests of weights for which there is no file here.
    """
    people = iter(PEOPLE)
    entries = list(_whole(work, work.without(*lost), rule, people))
    bare = work.without(*work.weights)  # weights cost a minute to score: the others bring none
    entries += _same(work, bare, people)
    for what, make, answer in _broken(work):
        left = bare - sum(work.points[name] for name in work.tests[answer])
        notebook = make(work.reference, answer)
        entries.append(Entry(next(people), what, notebook, (left, left), weights=False))
    entries += _wrong(work, mutants, bare, people)
    return [
        *entries,
        Entry(next(people), "broken off in the upload", work.reference, None, damage=True),
    ]


def _whole(
    work: Homework, full: float, rule: LateRule, people: Iterator[Person]
) -> Iterator[Entry]:
    """With weights: the reference, on time, late and out of Colab; and the untouched notebook."""
    yield Entry(next(people), "the reference", work.reference, (full, full))
    yield Entry(next(people), "as released, untouched", work.release, (0.0, 0.0), weights=False)
    late = full * (1 - rule.share(LATE * 86400))
    what = f"{LATE:g} days late"
    yield Entry(next(people), what, work.reference, (late, late), days_late=LATE)
    yield Entry(next(people), "saved by Colab", shapes.from_colab(work.reference), (full, full))


def _same(work: Homework, bare: float, people: Iterator[Person]) -> Iterator[Entry]:
    """As good as the reference, in odd shapes."""
    odd = "My homework (final) (2).ipynb"
    for what, notebook, name in (
        ("no weights", work.reference, ""),
        ("renamed", work.reference, odd),
        ("cells pasted twice", shapes.with_copies(work.reference), ""),
        ("metadata lost", shapes.without_metadata(work.reference), ""),
    ):
        yield Entry(next(people), what, notebook, (bare, bare), name, weights=False)


def _broken(work: Homework) -> Iterator[tuple[str, Callable[..., NotebookNode], str]]:
    """Crash, endless loop and syntax error, each in a task that no other test needs.

    Tasks with one test come first: every test of an endless loop takes its whole time.
    """
    alone = [name for name in work.tests if name not in work.depends]
    alone.sort(key=lambda name: -len(work.tests[name]))
    shaped = (
        ("kills its kernel", shapes.kills_kernel),
        ("loops for ever", shapes.loops),
        ("syntax error", shapes.with_syntax_error),
    )
    for (what, make), name in zip(shaped, reversed(alone)):
        yield f"{what} in {name}", make, name


def _wrong(
    work: Homework, mutants: list[dict[str, str]], bare: float, people: Iterator[Person]
) -> Iterator[Entry]:
    """Four submissions with one task wrong each, spread over the homework."""
    by_task = {m["task"]: m for m in reversed(mutants) if m["task"] in work.tests}
    tasks = [name for name in work.tests if name in by_task] or list(work.tests)
    for name in tasks[:: max(1, len(tasks) // 4)][:4]:
        own = sum(work.points[test] for test in work.tests[name])
        more = sum(work.points[test] for test in work.depends.get(name, []))
        low, high = bare - own - more, bare - own
        if name in by_task:
            mutant = by_task[name]
            notebook = shapes.with_slip(work.reference, name, mutant["old"], mutant["new"])
            high = bare - work.points[mutant["caught_by"]]
            what = f"{name}: {mutant['name']}"
        else:
            notebook, what = shapes.returns_nothing(work.reference, name), f"{name}: None"
        yield Entry(next(people), what, notebook, (low, high), weights=False)


def as_expected(row: Row, entry: Entry) -> bool:
    """True when the total lies where it should, or when a damaged file was refused."""
    if entry.score is None:
        return not row.graded
    low, high = entry.score
    return row.graded and low - 5e-3 <= row.total <= high + 5e-3
