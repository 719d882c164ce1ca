"""How alike the answers of a class are: rare fragments that two students share."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations

import numpy as np
from nbformat import NotebookNode
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from autograder.cells import grade_id, is_answer, plain
from autograder.normal_code import Line, fragments, normal_lines

SHARED_BY = 0.5  # of the class: a fragment that more students have is not rare
LEAST = 12  # rare fragments in common: fewer are chance
OUT = 3.0  # robust standard deviations above the median of all pairs
FEW = 45  # pairs (10 students): with fewer the class says nothing about what is usual


@dataclass
class Work:
    """One student's answers: source and normal lines by task, rare and common fragments."""

    student: str
    sources: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[Line]] = field(default_factory=dict)

    def features(self, released: set[str]) -> list[str]:
        """Fragments with their task in front, without those that were released."""
        return [
            f"{task}\0{part}"
            for task, lines in self.lines.items()
            for part in fragments(lines)
            if part not in released
        ]


@dataclass(frozen=True)
class Pair:
    """Two students: cosine of their weighted fragments, how many rare ones they share, where."""

    first: str
    second: str
    score: float
    shared: int
    tasks: dict[str, int]  # task -> rare fragments in common, the most first


@dataclass(frozen=True)
class Likeness:
    """Pairs, the most alike first; groups whose answers are the same but for names and layout."""

    pairs: list[Pair]
    groups: list[list[str]]
    students: int
    most: int  # a fragment that more students than this share is not rare
    usual: float = 0.0  # median likeness of all pairs


def read_work(student: str, notebook: NotebookNode, release: NotebookNode) -> Work:
    """The code answers of a notebook that are not as released."""
    stubs = {grade_id(c): plain(c.source) for c in release.cells if is_answer(c)}
    work = Work(student)
    for cell in notebook.cells:
        name = grade_id(cell)
        if is_answer(cell) and cell.cell_type == "code" and plain(cell.source) != stubs.get(name):
            work.sources[name] = cell.source
            work.lines[name] = normal_lines(cell.source)
    return work


def released_fragments(release: NotebookNode) -> set[str]:
    """Fragments of all code that students were given."""
    cells = [c for c in release.cells if c.cell_type == "code"]
    return {part for cell in cells for part in fragments(normal_lines(cell.source))}


def compare(works: list[Work], released: set[str], at_least: float = 0.5) -> Likeness:
    """All pairs whose cosine is `at_least`, who share LEAST rare fragments and stand out.

    A fragment weighs log(n / how many of n students have it): what all have weighs nothing, what
    two have most. Pairs stand out when OUT robust standard deviations above the class's median.
    """
    most = max(2, int(SHARED_BY * len(works)))
    features = {w.student: set(w.features(released)) for w in works}
    groups = _same(works)
    if len(works) < 2 or not any(features.values()):
        return Likeness([], groups, len(works), most)
    scores = _cosines(list(features.values()))
    count = Counter(f for own in features.values() for f in own)
    rare = {s: {f for f in own if count[f] <= most} for s, own in features.items()}
    usual, step = _usual(scores)
    pairs = []
    for (i, a), (j, b) in combinations(enumerate(features), 2):
        score = float(scores[i, j])
        shared = rare[a] & rare[b] if score >= max(at_least, usual + OUT * step) else ()
        if len(shared) >= LEAST:
            tasks = Counter(f.split("\0")[0] for f in shared)
            pairs.append(Pair(a, b, score, len(shared), dict(tasks.most_common())))
    pairs.sort(key=lambda pair: -pair.score)
    return Likeness(pairs, groups, len(works), most, usual)


def _cosines(features: list[set[str]]) -> np.ndarray:
    """Cosines of all pairs, (students, students); 0 where nothing is left but what all share."""
    counts = CountVectorizer(analyzer=lambda own: own, binary=True).fit_transform(features)
    weights = np.log(len(features) / np.asarray(counts.sum(axis=0)).ravel())
    rows = normalize(counts.multiply(weights).tocsr())  # of length 1
    return (rows @ rows.T).toarray()


def _usual(scores: np.ndarray) -> tuple[float, float]:
    """Median of all pairs' cosines, and 1.4826 times their median absolute deviation.

    The factor makes it the standard deviation of a normal law. With few pairs it is no measure:
    0 below FEW pairs.
    """
    pairs = scores[np.triu_indices(len(scores), 1)]
    if len(pairs) < FEW:
        return 0.0, 0.0
    middle = float(np.median(pairs))
    return middle, 1.4826 * float(np.median(np.abs(pairs - middle)))


def _same(works: list[Work]) -> list[list[str]]:
    """Students whose whole answers have one normal form, however many they are."""
    forms = defaultdict(list)
    for work in works:
        form = tuple((task, *(n.normal for n in lines)) for task, lines in work.lines.items())
        if sum(map(len, form)) >= LEAST:
            forms[form].append(work.student)
    return sorted(group for group in forms.values() if len(group) > 1)


def common_lines(works: list[Work], released: NotebookNode, most: int) -> dict[str, set[str]]:
    """By task the normal lines that were given out or that more than `most` students wrote."""
    given = {n.normal for c in released.cells if c.cell_type == "code" for n in _lines(c)}
    count: dict[str, Counter[str]] = defaultdict(Counter)
    for work in works:
        for task, lines in work.lines.items():
            count[task].update({line.normal for line in lines})
    return {t: given | {n for n, k in c.items() if k > most} for t, c in count.items()}


def _lines(cell: NotebookNode) -> list[Line]:
    return normal_lines(cell.source)


def marked(a: list[Line], b: list[Line], common: set[str]) -> tuple[set[int], set[int]]:
    """Numbers of the source lines that two answers share in order and that say something."""
    texts = [line.normal for line in a], [line.normal for line in b]
    blocks = SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks()
    ours, theirs = set(), set()
    for block in blocks:
        for k in range(block.size):
            x, y = a[block.a + k], b[block.b + k]
            if x.normal not in common:
                ours |= set(range(x.first, x.last + 1))
                theirs |= set(range(y.first, y.last + 1))
    return ours, theirs
