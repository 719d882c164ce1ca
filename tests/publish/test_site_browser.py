"""The whole site, built from what is committed, in a real browser on a desktop and on a phone."""

import html
import os
import re
import resource
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest
from served import chromium, served
from test_publish_overview import ROOT

from publish.errors import PublishError
from publish.project import items, load_course
from publish.site import LARGEST, build_site, page_sizes

COURSE = load_course(ROOT)
BUILT = [i for i in items(COURSE) if (ROOT / i.opened).is_file()]
NOTEBOOKS = [i.opened.with_suffix(".html").as_posix() for i in BUILT]
LECTURES = [name for name in NOTEBOOKS if name.startswith("lectures/")]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, and the CPU seconds that it took."""
    out = tmp_path_factory.mktemp("site")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime + os.times().user
    build_site(COURSE, items(COURSE), out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime + os.times().user
    return out / "html", after - before


@pytest.fixture(scope="module")
def base(site):
    """The address of the site."""
    with served(site[0]) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """One browser for all."""
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser, base):
    """A fresh page; nothing may fail, complain, or come from elsewhere."""
    opened = browser.new_page(viewport=DESKTOP)
    opened.set_default_timeout(240_000)  # of a machine with other work
    wrong = []
    opened.on("requestfailed", lambda r: wrong.append(f"failed: {r.url[:200]}"))
    opened.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"))
    opened.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    opened.on("pageerror", lambda e: wrong.append(str(e)))
    here = (base, "data:", "blob:")
    opened.on("request", lambda r: r.url.startswith(here) or wrong.append(f"foreign: {r.url}"))
    yield opened
    opened.close()
    assert not wrong, wrong[:5]


def settled(page, address):
    """Open a page and wait until its formulae are set."""
    page.goto(address)
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1")
    return page


class Links(HTMLParser):
    """Ids, links and pictures of a page."""

    def __init__(self, text):
        """Read it all."""
        super().__init__()
        self.ids, self.links, self.silent = {"", "top"}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep what matters."""
        found = dict(attrs)
        self.ids.add(found.get("id", ""))
        name = {"a": "href", "link": "href"}.get(tag, "src")
        if found.get(name):
            self.links.append(found[name])
        if tag == "img" and not found.get("alt", "").strip():
            self.silent.append(found.get("src"))


def test_it_is_small_and_quickly_built(site):
    """Oracle: the clock and the disk."""
    made, seconds = site
    assert seconds <= 180, f"{seconds:.0f} s"
    sizes = page_sizes(made)
    assert set(NOTEBOOKS) < set(sizes) and max(sizes.values()) <= LARGEST
    assert all(sizes[name] > 1_500_000 for name in LECTURES)  # the pictures were counted


def test_every_link_leads_somewhere_and_every_picture_has_words(site):
    """Oracle: files and ids on the disk; links to other places are https and named in words."""
    made = site[0]
    pages = {
        p: Links(p.read_text("utf-8")) for p in made.rglob("*.html") if "_static" not in p.parts
    }
    assert len(pages) > 25
    for path, found in pages.items():
        name = path.relative_to(made).as_posix()
        assert not found.silent, (name, found.silent)
        for link in found.links:
            if re.match(r"(https?|data|mailto):", link):
                assert link.startswith(("https://", "data:")), (name, link)
                continue
            file, anchor = urldefrag(unquote(link))
            there = (path.parent / file.split("?")[0]).resolve() if file else path.resolve()
            assert there.is_file(), (name, link)
            if there.suffix == ".html":
                assert anchor in pages[there].ids, (name, link)


def test_solutions_stay_at_home(site):
    """No page of a solution, oracle or master; the student's stub is what is shown."""
    made = site[0]
    names = [p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file()]
    assert not [
        n for n in names if re.search(r"solutions?/|oracle|verify|mutant|\.py$|\.ipynb$", n)
    ]
    for name in NOTEBOOKS:
        text = (made / name).read_text("utf-8")
        assert "BEGIN SOLUTION" not in text and "BEGIN HIDDEN" not in text
        assert ("NotImplementedError" in text) == (not name.startswith("lectures/")), name


WORDS = re.compile(r"[a-z]{2,}[ ,.]+[a-z]{2,}[ ,.]+[a-z]{2,}")
GIVEN = re.compile(r"\\(?:text\w*|mathrm|mathtt|operatorname\*?|mbox|color|begin|end)\s*\{[^{}]*\}")


def sentence(tex):
    """Words of a sentence in a formula that are not marked as text: a `$` was paired wrongly."""
    return WORDS.search(re.sub(r"\\[A-Za-z]+", " ; ", GIVEN.sub(" ; ", tex)))


def test_no_formula_swallows_a_sentence(site):
    """Oracle: the TeX in the pages, before MathJax has it."""
    assert sentence("x$, but draws of something near it") and not sentence(
        r"\text{not one of}\; abc"
    )
    count = 0
    for name in NOTEBOOKS:
        found = re.findall(r'class="math[^>]*>(.*?)</(?:span|div)>', page_text(site, name), re.S)
        count += len(found)
        assert not [tex for tex in map(html.unescape, found) if sentence(tex)], name
    assert count > 300 * len(LECTURES)


def page_text(site, name):
    """The HTML of a page."""
    return (site[0] / name).read_text("utf-8")


FORMULAE = """() => {
  const bad = [];
  for (const box of document.querySelectorAll(".math")) {
    const set = box.querySelectorAll("mjx-container").length;
    if (!set || box.querySelector("mjx-merror, [data-mjx-error]")) bad.push(box.textContent);
  }
  const text = document.querySelector("article").cloneNode(true);
  text.querySelectorAll("pre, code, .math, script, .cell_output, .output").forEach(x => x.remove());
  const left = text.textContent.match(/.{0,40}(\\$|\\\\[a-z(\\[]).{0,40}/);
  return [document.querySelectorAll(".math").length, bad, left && left[0]];
}"""
PLAY = """async f => {
  f.muted = true;
  await f.play();
  for (let k = 0; k < 100 && f.currentTime <= 0.1; k++) await new Promise(r => setTimeout(r, 100));
  return [f.currentTime, f.duration, f.error && f.error.message];
}"""


@pytest.mark.parametrize("name", [*NOTEBOOKS, "lectures/common/notation.html"])
def test_a_page_of_a_notebook(page, base, name):
    """Every formula is set, every picture drawn; films play; folds are whole; it fits a phone."""
    settled(page, base + name)
    count, bad, left = page.evaluate(FORMULAE)
    assert count > (100 if name in LECTURES else 5) and not bad and not left, (count, bad[:3], left)
    drawn = page.evaluate(
        "Promise.all([...document.images].map(x => x.decode().then(() => x.naturalWidth, () => 0)))"
    )
    assert min(drawn, default=1) > 0
    if name in LECTURES:
        assert len(drawn) >= 10
        films_play(page)
        sliders_have_a_picture(page)
        folds_are_whole(page)
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def films_play(page):
    """Oracle: the player's own clock; a film strip in the same output, words on the film."""
    films = page.locator("video")
    assert 1 <= films.count() <= 4
    for k in range(films.count()):
        film = films.nth(k)
        assert len(film.get_attribute("aria-label")) > 20
        assert film.get_attribute("controls") is not None
        at, length, error = film.evaluate(PLAY)
        assert at > 0.1 and length > 1 and error is None, (at, length, error)
        assert film.evaluate("f => f.closest('.cell').querySelectorAll('img').length") >= 1


def sliders_have_a_picture(page):
    """A slider needs a kernel; what is seen without one is its default."""
    sliders = page.locator("div.cell", has_text="if SLIDERS:")
    assert sliders.count() >= 1
    for k in range(sliders.count()):
        assert sliders.nth(k).locator("img").count() >= 1


def folds_are_whole(page):
    """A fold closes where the notebook closes it: no heading and no cell falls into it."""
    proofs = page.locator("article details", has=page.locator("summary", has_text="Proof"))
    assert proofs.count() >= 2
    inside = "d => d.querySelectorAll('h1, h2, h3, .cell').length"
    folded = f"[...document.querySelectorAll('article details:not(.hide)')].map({inside})"
    assert not any(page.evaluate(folded))


@pytest.mark.parametrize("name", [LECTURES[0], NOTEBOOKS[-1], "index.html", "docs/glossary.html"])
def test_a_keyboard_is_enough(page, base, name):
    """Tab goes to the link past the menus first, and on to visible things; Enter opens folds."""
    settled(page, base + name)
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent.toLowerCase()")
    seen = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 200)"))
    assert len(seen) > 15  # no trap
    folds = page.locator("article details")
    assert folds.count() >= (1 if name in NOTEBOOKS else 0)
    for k in range(min(folds.count(), 20)):
        fold = folds.nth(k)
        if fold.evaluate("f => f.open"):
            continue
        fold.locator("> summary").focus()
        page.keyboard.press("Enter")
        assert fold.evaluate(
            "f => f.open && f.scrollHeight > f.querySelector('summary').scrollHeight + 10"
        )


def test_search_finds_what_is_taught(page, base):
    """Typed on the keyboard, from the page where it begins to the lecture that it finds."""
    settled(page, base + "search.html?q=reparameterisation+trick")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results li a", "x => x.map(a => a.href)")
    assert any("04_vae" in link for link in found)
    settled(page, base + "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("Wasserstein")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=Wasserstein*")


def test_a_solution_on_a_page_is_refused(tmp_path, monkeypatch):
    """A planted one stops the build before Sphinx runs."""
    import publish.site as module

    monkeypatch.setattr(module, "stage", lambda course, there, source: _planted(source))
    with pytest.raises(PublishError, match="would give away"):
        build_site(COURSE, items(COURSE), tmp_path)


def _planted(source):
    """One page that holds the whole master of homework 1."""
    source.mkdir(parents=True)
    (source / "x.md").write_text((ROOT / "homework1/homework1.py").read_text("utf-8"))
    return ["x.md"]
