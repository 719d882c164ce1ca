"""The public release: nothing secret in it, also where a leak is planted; the same each time."""

import base64
import hashlib
import html
import json
import re
import subprocess

import pytest
from test_publish_overview import ROOT

from publish.errors import PublishError
from publish.leaks import ASSERTION, find_leaks
from publish.overview import BEGIN, END
from publish.project import Course, Item, items, load_course
from publish.release import MANIFEST, write_release
from publish.secrets import HIDDEN, ORACLE, SOLUTION, rows, secrets

COURSE = load_course(ROOT)


@pytest.fixture(scope="module")
def all_secrets():
    """Those of the course's homeworks."""
    return secrets(COURSE, items(COURSE))


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The course's release, for trial, and what it shows on purpose."""
    out = tmp_path_factory.mktemp("release") / "out"
    return out, write_release(COURSE, items(COURSE), out, trial=True)


def test_secrets_are_found(all_secrets):
    """Oracle: the masters' text, counted with regular expressions, and the folders of oracles."""
    for homework in ("homework1", "homework2"):
        text = (ROOT / homework / f"{homework}.py").read_text("utf-8")
        mine = [s for s in all_secrets if s.home.startswith(homework)]
        kinds = [s.kind for s in mine]
        assert kinds.count(HIDDEN) == len(re.findall("### BEGIN HIDDEN", text)) > 10
        assert kinds.count(SOLUTION) == len(re.findall("### BEGIN SOLUTION", text)) > 30
        written = [p for p in (ROOT / homework / "oracles").glob("*.py") if "def " in p.read_text()]
        assert kinds.count(ORACLE) >= len(written) > 3


def test_the_release_holds_what_students_need_and_no_more(released):
    """Oracle: names. Every link of every page leads to a file of the release."""
    out, shown = released
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert not [n for n in names if n.endswith((".py", ".toml", ".yml", ".db", ".csv"))]
    assert not [n for n in names if re.search("solution|oracle|verify|mutant|autograder", n)]
    for item in items(COURSE):
        assert item.opened.as_posix() in names
    for page in out.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), (page.name, link)
    first = (out / "README.md").read_text("utf-8")
    for name in ("homework1", "homework2"):
        assert f"/{COURSE.address}/{name}/{name}.ipynb)" in first
        assert "verify/mutants" not in (out / name / "README.md").read_text("utf-8")
    assert (
        "A from 86 %" in first and first.count("07 March 2027") == 1 and "<!-- marking" not in first
    )
    letters = (out / "lectures/common/notation.md").read_text("utf-8")
    assert letters.startswith("# Notation\n\n| symbol |") and letters.count("| meaning |") == 2
    assert re.findall(r"^\| (\d+) \|", letters, re.M) == [str(k) for k in range(1, 11)]
    assert len(shown) <= 5  # definitions that a lecture shows and a homework asks for
    facts = json.loads((out / MANIFEST).read_text())
    for name, digest in facts["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert set(facts["files"]) == names - {MANIFEST}


def test_it_is_the_same_each_time(released, tmp_path):
    """Oracle: bytes. A former release is replaced, .git stays, other files are not touched."""
    out, _ = released
    (tmp_path / "again/.git").mkdir(parents=True)
    (tmp_path / "again/.git/config").write_text("mine")
    for _ in range(2):
        write_release(COURSE, items(COURSE), tmp_path / "again", trial=True)
    assert (tmp_path / "again" / MANIFEST).read_bytes() == (out / MANIFEST).read_bytes()
    assert (tmp_path / "again/.git/config").read_text() == "mine"
    (tmp_path / "again/notes.txt").write_text("mine")
    with pytest.raises(PublishError, match="empty folder"):
        write_release(COURSE, items(COURSE), tmp_path / "again", trial=True)
    assert (tmp_path / "again/notes.txt").read_text() == "mine"


def notebook(**cell):
    """A notebook of one cell."""
    cell = {"cell_type": "code", "source": "", "metadata": {}, "outputs": []} | cell
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


PLACES = {
    "page.md": lambda t: f"Some text.\n\n```python\n{t}\n```\n",
    "lectures/x.ipynb": lambda t: notebook(cell_type="markdown", source=f"So:\n{t}"),
    "homework1/cell.ipynb": lambda t: notebook(source=f"if True:\n{t}"),
    "homework1/stream.ipynb": lambda t: notebook(
        outputs=[{"output_type": "stream", "name": "stdout", "text": t.splitlines(True)}]
    ),
    "lectures/attached.ipynb": lambda t: notebook(
        attachments={"a.txt": {"text/plain": base64.b64encode(t.encode()).decode()}}
    ),
    "homework1/metadata.ipynb": lambda t: notebook(metadata={"note": t}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [HIDDEN, ORACLE, SOLUTION])
def test_a_planted_leak_is_found(all_secrets, tmp_path, kind, place):
    """Oracle: bodies planted into files of all kinds, six secrets each; the empty file is clean."""
    size = {HIDDEN: 2, ORACLE: 2, SOLUTION: 3}[kind]
    mine = [s for s in all_secrets if s.kind == kind and len(s.rows) > 2 * size]
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text(PLACES[place](""))
    assert not find_leaks(tmp_path, all_secrets, [])
    for secret in mine[:: max(1, len(mine) // 6)]:
        start = next(
            k
            for k in range(len(secret.rows))
            if len(rows("\n".join(secret.rows[k : k + size]))) == size
        )
        planted = "\n".join("    " + line for line in secret.rows[start : start + size])
        (tmp_path / place).write_text(PLACES[place](planted))
        found = find_leaks(tmp_path, all_secrets, [])
        assert found and not any(leak.shown for leak in found), (secret.home, planted)


DRESSED = {
    "as written": lambda lines: lines,
    "quoted": lambda lines: [f"> {line}" for line in lines],
    "in a traceback": lambda lines: [f"\x1b[1;32m---> {k} {x}" for k, x in enumerate(lines, 11)],
    "in HTML": lambda lines: [html.escape(line) for line in lines],
}


@pytest.mark.parametrize("dress", DRESSED)
@pytest.mark.parametrize("mark", ["HIDDEN TESTS", "SOLUTION"])
def test_a_leak_in_the_words_of_the_master_is_found(all_secrets, tmp_path, mark, dress):
    """Oracle: the master's text, cut by a regular expression: quotes, brackets and breaks of lines
    as the author wrote them, not as Python prints them; the first and last lines of each body.
    """
    size = {"HIDDEN TESTS": 2, "SOLUTION": 3}[mark]
    tried = 0
    for homework in ("homework1", "homework2"):
        text = (ROOT / homework / f"{homework}.py").read_text("utf-8")
        for body in re.findall(rf"### BEGIN {mark}\n(.*?)### END", text, re.S)[::3]:
            lines = [x for x in body.split("\n") if re.search(r"\w", x)]
            lines = [x for x in lines if not re.match(r"\s*(#|from |import |else:|try:)", x)]
            if len(lines) < size or '"""' in body:
                continue
            for part in (lines[:size], lines[-size:]):
                (tmp_path / "x.md").write_text("So:\n\n" + "\n".join(DRESSED[dress](part)))
                assert find_leaks(tmp_path, all_secrets, []), part
                tried += 1
    assert tried >= 8


def test_one_assertion_is_a_leak_and_open_lines_are_none(all_secrets, tmp_path):
    """Oracle: one assertion of each hidden test; two lines that a visible cell has as well."""
    (tmp_path / "x.md").write_text("")
    told = [r for s in all_secrets if s.kind == HIDDEN for r in s.rows if r.startswith(ASSERTION)]
    assert len(told) > 50
    for row in told[::7]:
        (tmp_path / "x.md").write_text(f"    {row}  # copied\n")
        assert find_leaks(tmp_path, all_secrets, []) and not find_leaks(
            tmp_path, all_secrets, [row]
        )
    bodies = (s.rows[-2:] for s in all_secrets if s.kind == HIDDEN)
    two = next(body for body in bodies if rows("\n".join(body)) == list(body))
    (tmp_path / "x.md").write_text("\n".join(two))
    assert find_leaks(tmp_path, all_secrets, [])
    assert not find_leaks(tmp_path, all_secrets, ["\n".join(two)])


def test_a_definition_shown_in_a_lecture_is_listed(all_secrets, tmp_path):
    """A solution in a code cell of a lecture is told, in a homework it is a leak."""
    secret = next(s for s in all_secrets if s.kind == SOLUTION and len(s.rows) >= 4)
    code = "def f():\n" + "\n".join(f"    {r}" for r in secret.rows)
    for folder in ("lectures", "homework1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.ipynb").write_text(notebook(source=code))
    found = {leak.path.split("/")[0]: leak.shown for leak in find_leaks(tmp_path, all_secrets, [])}
    assert found == {"lectures": True, "homework1": False}


@pytest.fixture
def small(tmp_path):
    """A course of one homework in a repository of its own, with an address and a tag."""
    root = tmp_path / "course"
    for folder in ("lectures/common", "docs", "exam", "weights", "homework1"):
        (root / folder).mkdir(parents=True)
    docs = [f"docs/{name}.md" for name in ("glossary", "letters", "reading", "terms")]
    for page in ("LICENSE", "LICENSE-TEXT", "exam/questions.md", *docs):
        (root / page).write_text("text\n")
    (root / "lectures/common/notation.md").write_text("text\n")
    (root / "docs/release_readme.md").write_text(f"{BEGIN}\n{END}\n<!-- solutions -->\n")
    (root / "course.yml").write_text("topics: []\n")
    (root / "homework1/README.md").write_text(
        "# H\n\n## Marks\n\nhow\n\n## For authors and graders\n\nverify/x\n\n## Last\n\nz\n"
    )
    (root / "homework1/homework1.py").write_text(
        '# %% [markdown]\n# # H\n\n# %% tags=["setup"]\n# @title Set-up\n\n'
        '# %% tags=["parameters"]\nSEED = 0\n\n# %% nbgrader={"grade_id": "a", "solution": true}\n'
        "### BEGIN SOLUTION\none = 1 + SEED\ntwo = one + one\nthree = two + one\n### END SOLUTION\n"
    )
    (root / "homework1/homework1.ipynb").write_text(notebook(source="raise NotImplementedError"))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "course")
    git(root, "tag", "v1")
    return Course(root, "someone/course")


def git(root, *words):
    """Git with a name of its own."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def test_a_release_is_what_its_tag_says(small, tmp_path):
    """Refused: a placeholder address, no tag, a tag of another tree, changed files."""
    chosen, out = [Item("homework", small_source(small))], tmp_path / "out"
    write_release(small, chosen, out, "v1")
    page = (out / "homework1/README.md").read_text()
    assert page == "# H\n\n## Marks\n\nhow\n\n## Last\n\nz\n"  # what students have no files of
    facts = json.loads((out / MANIFEST).read_text())
    assert "Solutions: they appear here" in (out / "README.md").read_text()
    assert facts["tag"] == "v1" and len(facts["commit"]) == 40
    with pytest.raises(PublishError, match="OWNER/REPOSITORY"):
        write_release(Course(small.root), chosen, out, "v1")
    for tag in ("", "v2"):
        with pytest.raises(PublishError, match="expected a tag"):
            write_release(small, chosen, out, tag)
    (small.root / "docs/terms.md").write_text("other\n")
    with pytest.raises(PublishError, match="files were changed, such as docs/terms.md"):
        write_release(small, chosen, out, "v1")
    git(small.root, "commit", "-q", "-a", "-m", "more")
    with pytest.raises(PublishError, match="HEAD is"):
        write_release(small, chosen, out, "v1")


def small_source(course):
    """The path of its homework."""
    return (course.root / "homework1/homework1.py").relative_to(course.root)


def test_solutions_go_out_by_a_flag_only(small, tmp_path):
    """A planted solution stops the release and nothing stays; with the flag it goes out."""
    chosen, out = [Item("homework", small_source(small))], tmp_path / "out"
    body = "one = 1 + SEED\ntwo = one + one\nthree = two + one"
    (small.root / "homework1/homework1.ipynb").write_text(notebook(source=body))
    with pytest.raises(PublishError, match="give away") as error:
        write_release(small, chosen, out, trial=True)
    assert "homework1/homework1.ipynb: solution of homework1, a" in str(error.value)
    assert not list(out.iterdir())
    write_release(small, chosen, out, trial=True, solutions=["homework1"])
    solved = json.loads((out / "homework1/homework1_solution.ipynb").read_text())
    assert body in "".join(solved["cells"][-1]["source"])
    assert "](homework1/homework1_solution.ipynb)" in (out / "README.md").read_text()
    with pytest.raises(PublishError, match="there are homework1"):
        write_release(small, chosen, out, trial=True, solutions=["04_vae"])
