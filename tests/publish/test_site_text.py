"""Pages of the site as text: words for figures, headings, formulae, links, the syllabus."""

import base64
import re
import shutil
import tomllib

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_publish_overview import ROOT

from publish.alt import LONGEST, alt_text, plain
from publish.errors import PublishError
from publish.project import Item, items, load_course
from publish.site import (
    LARGEST,
    keep_needed,
    must_be_small,
    open_pictures,
    page_sizes,
    run_sphinx,
)
from publish.site_front import cards, picture
from publish.site_notebooks import (
    Levels,
    as_page,
    in_summaries,
    in_tables,
    whole_formulae,
    with_headings,
    without_badge,
)
from publish.site_pages import (
    contents,
    glossary,
    homework_table,
    questions,
    syllabus,
    with_links,
)

COURSE = load_course(ROOT)
BADGE = "[![Open in Colab](https://x.org/badge.svg)](https://x.org/github/a/b/blob/main/c.ipynb)"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('ax.set_title("Modes drop out one by one")', "4.1 VAE: Modes drop out one by one"),
        (
            'ax.set(title="Fourteen modes of law", xlabel="step", ylabel=r"$\\log p$, nats")',
            "4.1 VAE: Fourteen modes of law (axes: step, log p, nats)",
        ),
        (
            'a.set_title("A"); b.set_title("B"); c.set_title("A")',
            "4.1 VAE: A; B; Read it from the left",
        ),
        ('fig.suptitle(f"{n} steps give KL {x:.2f} nats")', "4.1 VAE: … steps give KL … nats"),
        ("draw(ax)", "4.1 VAE: Read it from the left"),
        ("if (", "4.1 VAE: Read it from the left"),
    ],
)
def test_a_figure_is_told_by_its_titles(code, said):
    """Oracle: by hand; without a title what the prose says last before the cell."""
    prose = "Long ago.\n\nA picture follows. Read it from the left:"
    assert alt_text(code, "4.1 VAE", prose) == said


def test_words_of_a_figure_are_short_and_plain():
    long = alt_text(f'ax.set_title("{"many words " * 60}")', "S")
    assert len(long) <= LONGEST and long.endswith("…")
    assert plain(r"**Bold** [a link](x.md) $\mathrm{KL}(q\|p)$ <b>x</b>") == "Bold a link KL (qp) x"


def test_levels_leave_none_out_and_keep_one_title():
    """Oracle: by hand. Homework has a title for each problem, with sections two levels below."""
    levels = Levels()
    written = ["#", "###", "#", "###", "####", "###", "#", "##", "###"]
    assert [len(levels.of(x)) for x in written] == [1, 2, 2, 3, 4, 3, 2, 3, 4]


def test_points_become_targets_and_code_stays():
    text = "# L\n## 4.7 VQ-VAE\n```\n# 4.1 no heading\n```\n### 3.7 of another topic"
    made = with_headings(text, "4", Levels())
    assert made == (
        "# L\n(point-4-7)=\n## 4.7 VQ-VAE\n```\n# 4.1 no heading\n```\n### 3.7 of another topic"
    )


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("so $a =\n+ b$ and\n+ c", "so $a = + b$ and\n+ c"),
        ("> $$a\n> = b$$\n> c", "> $$a = b$$\n> c"),
        ("costs \\$5,\nand $x$", "costs \\$5,\nand $x$"),
        ("`$a +` \n`b$`", "`$a +` \n`b$`"),
        ("```\n$a\n+ b$\n```", "```\n$a\n+ b$\n```"),
        ("$a$ is\n\n$b$", "$a$ is\n\n$b$"),
    ],
)
def test_a_formula_over_two_lines_is_one(text, made):
    assert whole_formulae(text) == made


def test_the_line_of_a_fold_is_html():
    """Oracle: by hand; a formula there gets the class that MathJax looks for."""
    made = in_summaries("<details><summary>1. Why $a*b*c$ of `x_1` is *not* **so**</summary>\n$y$")
    assert made == (
        '<details><summary>1. Why <span class="math notranslate nohighlight">\\(a*b*c\\)</span> of '
        "<code>x_1</code> is <em>not</em> <b>so</b></summary>\n$y$"
    )


def test_bars_in_a_table_end_no_cell():
    """Oracle: by hand; elsewhere a bar stays a bar."""
    text = r"| $\log|J|$ | $q\|p$ |" + "\n" + r"> | $|x|$ |" + "\n" + r"so $|x|$"
    made = (
        r"| $\log\vert J\vert $ | $q\Vert p$ |"
        + "\n"
        + r"> | $\vert x\vert $ |"
        + "\n"
        + r"so $|x|$"
    )
    assert in_tables(text) == made


def page_of(*cells):
    """The page made of a notebook with these cells."""
    return as_page(new_notebook(cells=list(cells), metadata={"course": {"x": 1}}), "4")


def test_a_notebook_becomes_a_page():
    """Set-up folded, pictures and films told, no picture from elsewhere; the notebook is kept."""
    film = new_output(
        "display_data", {"text/html": '<video controls><source src="data:x"></video>'}
    )
    drawn = new_code_cell('ax.set_title("A < B, or the other way")', outputs=[film])
    setup = new_code_cell("import torch", metadata={"cellView": "form", "tags": ["setup"]})
    title = new_markdown_cell(f"# L\n{BADGE} Runs.")
    made = page_of(title, setup, new_markdown_cell("## 4.2 Why"), drawn)
    assert "badge.svg" not in made.cells[0].source
    assert 'href="https://x.org/github/a/b/blob/main/c.ipynb"' in made.cells[0].source
    assert made.cells[1].metadata.tags == ["setup", "hide-input"]
    assert made.cells[3].metadata.mystnb == {"image": {"alt": "4.2 Why: A < B, or the other way"}}
    html = made.cells[3].outputs[0].data["text/html"]
    assert html.startswith(
        '<video aria-label="Film. 4.2 Why: A &lt; B, or the other way" preload="metadata" controls>'
    )
    assert drawn.outputs[0].data["text/html"].startswith("<video controls>")
    assert "hide-input" not in made.cells[3].metadata.tags and "course" not in made.metadata
    assert without_badge("no badge") == "no badge"


def test_every_figure_of_the_course_has_words_of_its_own():
    """At least 20 letters each; in one notebook different cells are told in different words."""
    for item in items(COURSE):
        if item.kind == "homework" or not (ROOT / item.opened).is_file():
            continue
        page = as_page(nbformat.read(ROOT / item.opened, 4), str(int(item.name[:2])))
        told = [
            cell.metadata.mystnb.image.alt
            for cell in page.cells
            if cell.cell_type == "code"
            and any("image/png" in o.get("data", {}) for o in cell.outputs)
        ]
        assert told and min(map(len, told)) >= 20, item.name
        assert len(set(told)) == len(told), item.name


def test_links_lead_to_pages_or_become_words():
    known = {"docs/a.md", "LICENSE.md", "homework1/homework1.ipynb"}
    text = (
        "[a](a.md#x) [L](../LICENSE) [nb](../homework1/homework1.ipynb) [gone](../exam) "
        "[w](https://w.org) [here](#x) `[a](b.md)`\n```\n[a](b.md)\n```"
    )
    assert with_links(text, "docs/b.md", known) == (
        "[a](a.md#x) [L](../LICENSE.md) [nb](../homework1/homework1.ipynb) gone [w](https://w.org) "
        "[here](#x) `[a](b.md)`\n```\n[a](b.md)\n```"
    )


def test_the_syllabus_says_what_course_yml_says():
    """Only built lectures are linked, the others come by themselves once they are built."""
    some = [Item("lecture", (ROOT / "lectures/04_vae.py").relative_to(ROOT))]
    page = syllabus(COURSE, some)
    assert "- [4.7 VQ-VAE and other extensions](#point-4-7)" in page
    assert "- 5.1 the variational estimate of the Jensen-Shannon divergence" in page
    assert page.count("\n- [4.") == 7 and "[lecture](lectures/04_vae.ipynb)" in page
    assert "seminar in preparation" in page
    assert "homework1 35%, homework2 35%, exam 30%" in page and "A from 86 %" in page
    assert "24 hours are free, then 10%" in page and "at most 50%" in page
    assert "due 07 March 2027, 23:59" in page and "Without 65% of the classes" in page
    assert questions("(4.3) x (5.1)", some) == "([4.3](#point-4-3)) x (5.1)"
    assert "lectures/04_vae\n" in contents(COURSE, some) and "05_gan" not in contents(COURSE, some)


def test_every_topic_has_a_card_with_the_picture_that_was_chosen(tmp_path):
    """Oracle: the words of docs/site/cards.toml, each in one cell with a picture; the files."""
    chosen = tomllib.loads((ROOT / "docs/site/cards.toml").read_text("utf-8"))
    lectures = [i for i in items(COURSE) if i.kind == "lecture"]
    pages = {}
    for item in lectures:
        cells = nbformat.read(ROOT / item.opened, 4).cells
        drawn = [c for c in cells if any("image/png" in o.get("data", {}) for o in outputs(c))]
        assert sum(chosen[item.name] in c.source for c in drawn) == 1, item.name
        pages["lecture", item.name] = as_page(nbformat.read(ROOT / item.opened, 4), "0")
    html = cards(COURSE, pages | {("seminar", "04_vae"): None}, tmp_path)
    assert set(chosen) == {i.name for i in lectures} and html.count("<img ") == len(lectures)
    for alt, name in re.findall(r'src="_static/cards/(.*?)" alt="(.*?)"', html):
        assert (tmp_path / "static/cards" / alt).read_bytes()[:4] == b"\x89PNG" and len(name) > 20
    assert html.count(">seminar</a>") == 1 and 'href="seminars/04_vae.html"' in html
    assert "<b>4 Variational autoencoders</b>" in html and "\n\n" not in html


def outputs(cell):
    """Those of a code cell."""
    return cell.get("outputs", [])


def test_a_card_without_its_cell_shows_the_last_picture():
    """Oracle: by hand; where a cell has the words, its picture."""
    drawn = [
        new_code_cell(f"draw({k})", outputs=[new_output("display_data", {"image/png": f"AAA{k}"})])
        for k in range(3)
    ]
    page = page_of(new_markdown_cell("# L"), *drawn)
    assert picture(page, "draw(1)")[1] == base64.b64decode("AAA1")
    assert picture(page, "gone")[1] == picture(page, "")[1] == base64.b64decode("AAA2")
    assert picture(page_of(new_markdown_cell("# L")), "x") == ("", b"")


def test_figures_lead_to_themselves(tmp_path):
    """Figures of notebooks, once each; no picture of a card, of the theme, or inside a link."""
    (tmp_path / "a").mkdir()
    figure = '<img alt="x" src="../_images/1f.png" />'
    others = '<a href="y"><img alt="x" src="../_images/2.png" /></a><img src="../_static/3.png">'
    (tmp_path / "a/x.html").write_text(f"<p>{figure}</p>{others}")
    open_pictures(tmp_path)
    linked = f'<p><a class="whole" href="../_images/1f.png">{figure}</a></p>{others}'
    assert (tmp_path / "a/x.html").read_text() == linked


def test_homeworks_stand_in_a_table_and_points_of_the_glossary_are_links():
    """Oracle: course.yml, by hand."""
    some = [Item("lecture", (ROOT / "lectures/04_vae.py").relative_to(ROOT))]
    work = Item("homework", (ROOT / "homework1/homework1.py").relative_to(ROOT))
    rows = homework_table(COURSE, [*some, work]).split("\n")
    assert len(rows) == 3 and rows[2].endswith("| 07 March 2027, 23:59 UTC+03:00 |")
    assert f"/{COURSE.address}/homework1/homework1.ipynb)" in rows[2]
    assert "[rubric and cost](homework1/README.md)" in rows[2] and "a VAE" in rows[2]
    text = "| 1.7 bits | б | in 4.3 | 1.7, 4.3 |\nof 4.3 |"
    made = "| 1.7 bits | б | in 4.3 | 1.7, [4.3](#point-4-3) |\nof 4.3 |"
    assert glossary(text, some) == made


def a_site(folder, text):
    """A site of one page, staged in `folder`."""
    shutil.copytree(ROOT / "docs/site/static", folder / "static")
    shutil.copy(ROOT / "docs/site/conf.py", folder)
    (folder / "index.md").write_text(text)
    return folder


def test_sphinx_refuses_a_broken_link_and_carries_mathjax(tmp_path):
    """One message with the page; a page that is right is written, with all that it needs."""
    wrong = a_site(tmp_path / "wrong", "# A\n\n[b](gone.md)\n")
    with pytest.raises(PublishError, match=r"Sphinx refuses the site:\s+index.md.*gone.md"):
        run_sphinx(wrong, tmp_path / "made1", tmp_path / "trees1")
    right = a_site(tmp_path / "right", "# A\n\n$x$\n")
    run_sphinx(right, tmp_path / "made2", tmp_path / "trees2")
    keep_needed(tmp_path / "made2/_static/mathjax")
    kept = tmp_path / "made2/_static/mathjax"
    assert (kept / "tex-chtml.js").is_file() and not (kept / "tex-svg.js").exists()
    assert (kept / "input/tex/extensions/colorv2.js").is_file()
    assert list((kept / "output/chtml/fonts/woff-v2").glob("*.woff"))
    page = (tmp_path / "made2/index.html").read_text()
    assert not re.findall(r'(?:src|href)="(https?:[^"]+)"', page)


def test_the_size_of_a_page_counts_its_pictures(tmp_path):
    """Oracle: bytes written here. Each picture once; what is inside the page is in its bytes."""
    (tmp_path / "a").mkdir()
    (tmp_path / "p.png").write_bytes(b"1" * 1000)
    text = 2 * '<img alt="x" src="../p.png">' + '<img src="data:image/png;base64,x">'
    (tmp_path / "a/x.html").write_text(text)
    assert page_sizes(tmp_path) == {"a/x.html": 1000 + len(text)}
    must_be_small(tmp_path)
    (tmp_path / "p.png").write_bytes(b"1" * LARGEST)
    with pytest.raises(PublishError, match=r"a page may have 4,000,000 bytes.*a/x.html"):
        must_be_small(tmp_path)
