"""The documentation: code blocks run and print what is shown, names and links are complete."""

import doctest
import importlib.util
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from inspect import ismodule
from urllib.parse import quote, unquote, urlsplit

import pytest

import tightframe
from tests.documents import DOCS, ROOT, agrees, blocks, directives, pages, run

PAGES = [page.relative_to(DOCS).as_posix() for page in pages()]

#: Blocks that no test runs, a page; each has its reason in the source. Not to grow unnoticed.
NOT_RUN = {
    "cite.md": 1,
    "guide/command.md": 1,
    "guide/explore.md": 2,
    "guide/reproduce.md": 2,
    "guide/training.md": 1,
    "index.md": 1,
}


def code(page):
    return blocks((DOCS / page).read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [page for page in PAGES if code(page)])
def test_code_blocks(page, command, unrendered, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    namespace = {"__name__": "__main__"}
    for block in code(page):
        if block.reason is None:
            printed = run(block, namespace, command, page)
            if block.output is not None:
                assert agrees(block.output, printed), f"{page}:{block.output.line}:\n{printed}"


def test_blocks_that_are_not_run_are_few():
    reasons = {page: [b.reason for b in code(page) if b.reason is not None] for page in PAGES}
    assert {page: len(found) for page, found in reasons.items() if found} == NOT_RUN
    assert all(len(reason) > 10 for found in reasons.values() for reason in found)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1.0 s\n", "a 1.0\n", False),
        ("rank 9\n", "rank 9\n", True),
        ("rank 9\n", "rank 8\n", False),
        ("0.123456\n", "0.123457\n", False),
        ("gap 1e-11\n", "gap 3e-12\n", True),
        ("gap 1e-11\n", "gap 3e-05\n", False),
        ("done in 0.3 s\n", "done in 12 s\n", True),
        ("one ... two\n", "one and more two\n", True),
        ("one ... two\n", "one and more three\n", False),
    ],
)
def test_comparison_of_outputs(shown, printed, same):
    (block,) = blocks(f"```python\n```\n\n```text\n{shown}```\n")
    assert agrees(block.output, printed) is same


def test_comparison_within_a_tolerance():
    text = "```python\n```\n\n<!-- numbers within 20 % -->\n```text\nNC1 0.50,  K 3\n```\n"
    (block,) = blocks(text)
    assert agrees(block.output, "NC1 0.45, K 3\n")
    assert not agrees(block.output, "NC1 0.35, K 3\n")
    assert not agrees(block.output, "NC2 0.50, K 3\n")


#: What people import from; `tightframe` hands these on.
MODULES = (
    "tightframe",
    *(f"tightframe.{name}" for name in tightframe.__all__ if ismodule(getattr(tightframe, name))),
)


def referenced():
    """Return what the reference documents: pairs of a module and a name."""
    return [
        (block.partition("\n")[0], name)
        for page in (DOCS / "api").rglob("*.md")
        for block in directives(page.read_text(encoding="utf-8"), "reference")
        for name in re.findall(r"^\w+$", block.partition("\n")[2], re.MULTILINE)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_the_reference_has_every_public_name(module):
    values = {id(getattr(importlib.import_module(where), name)) for where, name in referenced()}
    public = importlib.import_module(module)
    missing = [
        name
        for name in public.__all__
        if not ismodule(value := getattr(public, name)) and id(value) not in values
    ]
    assert missing == []


def test_the_reference_has_every_name_once_and_under_its_public_address():
    names = referenced()
    assert len(set(names)) == len(names)
    public = {
        id(getattr(importlib.import_module(module), name))
        for module in MODULES
        for name in importlib.import_module(module).__all__
    }
    for module, name in names:
        value = getattr(importlib.import_module(module), name)
        assert module in MODULES or id(value) not in public, f"{module}.{name}"


def documented():
    """Return the modules whose public names have examples in their docstrings."""
    values = [getattr(importlib.import_module(where), name) for where, name in referenced()]
    names = sorted({value.__module__ for value in values if hasattr(value, "__module__")})
    source = {name: ROOT / "src" / f"{name.replace('.', '/')}.py" for name in names}
    return [name for name, path in source.items() if ">>>" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", documented())
def test_examples_of_the_reference(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def pictures():
    """Return what draws every picture of the guides, by name, from the script in the docs."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.PICTURES


def test_pages_show_the_pictures_of_the_script_on_light_and_dark():
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    shown = re.findall(r"images/remedies/([\w-]+)\.(\w+)\.svg#only-(\w+)\)", text)
    assert sorted(shown) == sorted((n, g, g) for n in pictures() for g in ("light", "dark"))
    files = {file.name for file in (DOCS / "images" / "remedies").iterdir()}
    assert files == {f"{name}.{ground}.svg" for name, ground, _ in shown}


#: Pictures of the guides by name; without the script, which loads a plotting library.
PICTURES = sorted({file.stem.partition(".")[0] for file in (DOCS / "images/remedies").iterdir()})
QUICK = ("cosines", "several-labels")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PICTURES]
)
def test_pictures_are_what_the_script_draws(name, tmp_path):
    from tightframe.figures.mpl import draw, save_figure

    drawn = save_figure(draw(pictures()[name]()), tmp_path / "picture.svg")
    kept = DOCS / "images" / "remedies" / f"{name}.light.svg"
    # Axes, titles and names; curves are numbers of a solver.
    words = [re.findall(r"<text[^>]*>([^<]*)</text>", f.read_text("utf-8")) for f in (drawn, kept)]
    assert words[0] == words[1]
    assert len(words[0]) > 5


class Links(HTMLParser):
    """Collects what a page links to, what it fetches, and its anchors."""

    def __init__(self):
        super().__init__()
        self.links, self.fetched, self.anchors = [], [], set()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") != "canonical":
            self.fetched.append(found["href"])
        if "src" in found:
            self.fetched.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, warnings as errors; return its folder and what every page of it holds."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-E", "-d", str(tmp_path_factory.mktemp("doctrees"))]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(DOCS), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for page in folder.rglob("*.html"):
        if "_static" not in page.parts:
            found[page] = Links()
            found[page].feed(page.read_text(encoding="utf-8"))
    return folder, found


@pytest.mark.slow
def test_site_links_to_nowhere_else(site):
    folder, found = site
    assert len(found) > len(PAGES)
    broken, anchors = [], []
    for page, links in found.items():
        for link in [*links.links, *links.fetched]:
            url = urlsplit(link)
            if url.scheme in ("http", "https", "data", "mailto"):
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.is_file():
                broken.append(f"{page.relative_to(folder)}: {link}")
            elif url.fragment and target in found:
                anchors.append((page, link, unquote(url.fragment) in found[target].anchors))
    broken += [f"{page.relative_to(folder)}: {link}" for page, link, there in anchors if not there]
    assert broken == []


@pytest.mark.slow
def test_site_fetches_nothing_from_elsewhere(site):
    folder, found = site
    for page, links in found.items():
        fetched = [link for link in links.fetched if urlsplit(link).netloc]
        assert fetched == [], page
    styles = list(folder.rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text("utf-8"))


@pytest.mark.slow
def test_gallery_has_all_verdicts_and_pictures(site):
    _, found = site
    text = (ROOT / "reproductions" / "README.md").read_text(encoding="utf-8")
    gallery = {page: links for page, links in found.items() if page.parent.name == "gallery"}
    shown = "".join(page.read_text(encoding="utf-8") for page in gallery)
    pictures = {link for links in gallery.values() for link in links.fetched if "_images/" in link}
    assert len(pictures) == text.count("![")
    for outcome in ("reproduced", "not reproduced", "not at this scale"):
        assert shown.count(f"<strong>{outcome}</strong>") == text.count(f"**{outcome}**")
    assert len(gallery) == 1 + len(re.findall(r"^## ", text, re.MULTILINE))


NOTEBOOKS = sorted(path.stem for path in (ROOT / "examples" / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_were_run_and_can_be_downloaded(site, name):
    folder, found = site
    page = folder / "notebooks" / f"{name}.html"
    text, links = page.read_text(encoding="utf-8"), found[page]
    # Every cell that ends in a picture shows it on light and on dark pages.
    for ground in ("light", "dark"):
        assert len(re.findall(rf'<img[^>]*class="only-{ground}"', text)) >= 1, ground
    (notebook,) = [link for link in links.links if link.endswith(".ipynb")]
    cells = json.loads((page.parent / unquote(notebook)).resolve().read_text("utf-8"))["cells"]
    source = (ROOT / "examples" / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    assert {cell["cell_type"] for cell in cells} == {"code", "markdown"}
    assert len(cells) > source.count("# %%")


@pytest.mark.slow
def test_formulas_are_mathml(site):
    folder, _ = site
    theory = (folder / "theory.html").read_text(encoding="utf-8")
    assert theory.count("<math") > 200
    assert "$" not in re.sub(r"<script.*?</script>|<code.*?</code>", "", theory, flags=re.DOTALL)


#: What people ask in public, and the page that a search for it has to lead to first.
ASKED = {
    "label smoothing with weights": "questions/label-smoothing-with-weights",
    "LDAM margins": "questions/ldam-margins",
    "weights or resampling": "questions/weights-or-resampling",
    "logit adjustment dominant class": "questions/logit-adjustment-dominant-class",
    "weight decay head 1,000,000 rows": "questions/head-with-a-million-rows",
    "head with a million rows": "questions/head-with-a-million-rows",
    "which layer": "questions/which-layer",
    "which split": "questions/which-split",
    "minority collapse threshold": "guide/thresholds",
    "save solution": "api/results",
    "projector": "guide/loggers",
}


#: The first result that Sphinx's search shows.
FIRST = "document.querySelector('ul.search li a')?.getAttribute('href')"


@pytest.mark.slow
def test_searches_find_the_pages_from_the_disk(site, tmp_path):
    pytest.importorskip("websocket")
    from tests.pages.explore import browser

    if browser.CHROMIUM is None:
        pytest.skip("needs Chromium")
    folder, _ = site
    tab = browser.Browser(tmp_path)
    try:
        for asked, page in ASKED.items():
            tab.open(f"{(folder / 'search.html').as_uri()}?q={quote(asked)}")
            browser.wait(lambda: tab.run(FIRST), 30, "search results")
            assert tab.run(FIRST).partition(".html")[0] == page, asked
    finally:
        tab.close()
