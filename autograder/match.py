"""Which submitted cell belongs to which cell of the released skeleton."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher

from nbformat import NotebookNode

from autograder.cells import assigns, defines, grade_id, ids, is_answer, is_marked_by_hand, plain

ALIKE = 0.85  # a code cell this similar to a locked one is a changed copy of it
SHORT = 40  # characters: shorter cells are alike by chance


@dataclass
class Match:
    """Indices into the submission: answers by skeleton index, locked copies, why each."""

    answers: dict[int, int] = field(default_factory=dict)  # skeleton index -> submitted index
    how: dict[int, str] = field(default_factory=dict)  # skeleton index -> grade_id, cell id, ...
    locked: dict[int, int] = field(default_factory=dict)  # submitted index -> skeleton index
    below: dict[int, list[int]] = field(default_factory=dict)  # essays written under their cell

    def used(self) -> dict[int, int]:
        """Submitted index -> skeleton index, of all cells that are not the student's own."""
        prose = {i: k for k, below in self.below.items() for i in below}
        return {i: k for k, i in self.answers.items()} | self.locked | prose

    def anchors(self) -> dict[int, int]:
        """Submitted index -> skeleton index, one each: what stands where it was released.

        A second copy of a locked cell, pasted somewhere else, says nothing about places.
        """
        first = {k: i for i, k in sorted(self.locked.items(), reverse=True)}
        return {i: k for k, i in (first | self.answers).items()}


def match(submitted: list[NotebookNode], skeleton: list[NotebookNode]) -> Match:
    """Answers by grade_id, then cell id, then what they define, then place; copies of the rest.

    One submitted cell may answer two skeleton cells when it defines what both ask for.
    """
    found = Match()
    named = _named(submitted, skeleton)
    defined = [defines(cell.source) if cell.cell_type == "code" else set() for cell in submitted]
    for k, cell in enumerate(skeleton):
        if is_answer(cell):
            _match_answer(k, cell, submitted, named, defined, found)
    chosen = set(found.answers.values())
    for i, cell in enumerate(submitted):
        if i in chosen:
            continue
        owner = named.get(i, (None, ""))[0]
        owner = _copy_of(cell, skeleton) if owner is None else owner
        if owner is not None and not _second_answer(cell, owner, submitted, skeleton, found):
            found.locked[i] = owner
    _match_places(submitted, skeleton, found)
    _match_prose(submitted, skeleton, found)
    return found


def _second_answer(
    cell: NotebookNode,
    owner: int,
    submitted: list[NotebookNode],
    skeleton: list[NotebookNode],
    found: Match,
) -> bool:
    """True for a copy of an answer cell that says something else: it stays, as an added cell."""
    if not is_answer(skeleton[owner]):
        return False
    known = {plain(skeleton[owner].source)}
    if owner in found.answers:
        known.add(plain(submitted[found.answers[owner]].source))
    return plain(cell.source) not in known


def _named(
    submitted: list[NotebookNode], skeleton: list[NotebookNode]
) -> dict[int, tuple[int, str]]:
    """Submitted index -> (skeleton index, by what), for cells that carry an id of ours."""
    by_grade = {grade_id(cell): k for k, cell in enumerate(skeleton) if grade_id(cell)}
    by_id = {cell.id: k for k, cell in enumerate(skeleton) if "id" in cell}
    named = {}
    for i, cell in enumerate(submitted):
        own = next((by_id[j] for j in ids(cell) if j in by_id), None)
        if grade_id(cell) in by_grade:
            named[i] = (by_grade[grade_id(cell)], "grade_id")
        elif own is not None:
            named[i] = (own, "cell id")
    return named


def _match_answer(
    k: int,
    cell: NotebookNode,
    submitted: list[NotebookNode],
    named: dict[int, tuple[int, str]],
    defined: list[set[str]],
    found: Match,
) -> None:
    """The best candidate: defines what is asked, was worked on, carries the id, stands last.

    defined: what each submitted cell defines, parsed once.
    """
    asked = defines(cell.source) if cell.cell_type == "code" else set()
    ranked = []
    for i, other in enumerate(submitted):
        owner, by = named.get(i, (None, ""))
        gives = bool(asked) and asked <= defined[i]
        if owner != k and not gives:
            continue
        worked = plain(other.source) != plain(cell.source)
        by = by if owner == k else "what it defines"
        ranked.append(((gives or not asked, worked, by == "grade_id", by == "cell id", i), i, by))
    if ranked:
        _, found.answers[k], found.how[k] = max(ranked)


def _copy_of(cell: NotebookNode, skeleton: list[NotebookNode]) -> int | None:
    """The skeleton cell that this one, without an id of ours, is a copy of; None if of none."""
    text = plain(cell.source)
    if not text:
        return None
    for k, other in enumerate(skeleton):
        if text == plain(other.source):
            return k
    if cell.cell_type != "code":
        return None
    names = assigns(cell.source)
    for k, other in enumerate(skeleton):
        if is_answer(other) or other.cell_type != "code":
            continue
        knobs = "parameters" in other.metadata.get("tags", [])
        if knobs and names and names <= (assigns(other.source) or set()):
            return k
        if _alike(text, plain(other.source)):
            return k
    return None


def _alike(a: str, b: str) -> bool:
    """Nearly the same text; cheap bounds first, long texts by their first 5,000 characters."""
    if min(len(a), len(b)) < SHORT or min(len(a), len(b)) < ALIKE / 2 * max(len(a), len(b)):
        return False
    if defines(a) != defines(b):
        return False
    same = SequenceMatcher(None, a[:5000], b[:5000], autojunk=False)
    return same.quick_ratio() >= ALIKE and same.ratio() >= ALIKE


def _match_places(
    submitted: list[NotebookNode], skeleton: list[NotebookNode], found: Match
) -> None:
    """Answers with no id left: the first free cell of their type between their neighbours."""
    where = {k: i for i, k in sorted(found.locked.items(), reverse=True)} | found.answers
    used = set(found.answers.values()) | set(found.locked)
    for k, cell in enumerate(skeleton):
        if not is_answer(cell) or k in found.answers:
            continue
        low = max((i for j, i in where.items() if j < k), default=-1)
        high = min((i for j, i in where.items() if j > k and i > low), default=len(submitted))
        for i in range(low + 1, high):
            same = submitted[i].cell_type == cell.cell_type
            if i not in used and same and submitted[i].source.strip():
                found.answers[k], found.how[k] = i, "its place"
                used.add(i)
                where[k] = i
                break


def _match_prose(submitted: list[NotebookNode], skeleton: list[NotebookNode], found: Match) -> None:
    """An essay below its untouched cell: the text cells up to the next cell of the skeleton."""
    for k, cell in enumerate(skeleton):
        i = found.answers.get(k)
        essay = cell.cell_type == "markdown" and is_marked_by_hand(cell)
        if i is None or not essay or plain(submitted[i].source) != plain(cell.source):
            continue
        used = found.used()
        for j in range(i + 1, len(submitted)):
            if j in used or submitted[j].cell_type == "code":
                break
            if submitted[j].source.strip():
                found.below.setdefault(k, []).append(j)
