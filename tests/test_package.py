"""What is given to others: every file in the wheel, the theory half without PyTorch, the recipe."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tightframe.lazy import EXTRAS, handed_on, needed
from tightframe.version import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "tightframe"
META = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = META["project"]
#: Of the extras that people install.
OPTIONAL = ("torch", "lightning", "hf", "report", "distributed", "explore")
#: What conda-forge calls differently, or as less.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base", "dask": "dask-core"}


#: The environment of processes that must not find the package here.
ALONE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def package_files():
    """Every file of the package, relative to its folder."""
    found = (path.relative_to(SOURCES) for path in SOURCES.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def requirements(texts):
    return [own for own in map(Requirement, texts) if own.name != PROJECT["name"]]


def test_what_is_no_module_is_named_as_data():
    assets = {name for name in package_files() if not name.endswith(".py")}
    patterns = META["tool"]["setuptools"]["package-data"]["tightframe"]
    named = {path.relative_to(SOURCES).as_posix() for p in patterns for path in SOURCES.glob(p)}
    assert assets <= named
    for example in ("py.typed", "figures/svg.js", "pages/page.html", "diagnosis/evidence.csv"):
        assert example in assets


def test_versions_agree():
    assert PROJECT["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_every_extra_says_how_to_get_it():
    names = {
        own.name
        for extra in OPTIONAL
        for own in requirements(PROJECT["optional-dependencies"][extra])
    }
    imported = {"scikit-learn": "sklearn"}
    with_no_names_here = {"tensorboard", "accelerate"}  # Lightning and transformers import them
    assert {imported.get(name, name) for name in names - with_no_names_here} <= set(EXTRAS)
    assert set(EXTRAS.values()) <= set(OPTIONAL)


def test_what_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "needs_much.py").write_text("import missing_here.part\n")
    (tmp_path / "is_wrong.py").write_text("import nobody_knows_this\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "missing_here", "torch")
    load = handed_on("house", {"needs_much": ("thing",), "is_wrong": ("other",)})
    said = r"^house\.thing needs missing_here: pip install 'tightframe\[torch\]'$"
    with pytest.raises(ModuleNotFoundError, match=said) as caught:
        load("thing")
    assert caught.value.name == "missing_here"
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'nobody_knows_this'$"):
        load("other")
    said = r"^plot needs dash: pip install 'tightframe\[explore\]'$"
    with pytest.raises(ImportError, match=said), needed("plot", "dash"):
        import nobody_knows_this  # noqa: F401


# -- conda -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))


def test_the_recipe_asks_for_what_the_project_asks_for(recipe):
    def asked(texts):
        return {f"{CONDA.get(own.name, own.name)} {own.specifier}" for own in requirements(texts)}

    assert recipe["schema_version"] == 1
    context, needs = recipe["context"], recipe["requirements"]
    assert (context["name"], context["version"]) == (PROJECT["name"], __version__)
    assert PROJECT["requires-python"] == f">={context['python_min']}"
    assert set(needs["run"]) == asked(PROJECT["dependencies"]) | {"python >=${{ python_min }}"}
    extras = [text for name in OPTIONAL for text in PROJECT["optional-dependencies"][name]]
    assert set(needs["run_constraints"]) == asked(extras)
    assert set(needs["host"]) == {
        "python ${{ python_min }}.*",
        "pip",
        *(f"{own.name} {own.specifier}" for own in requirements(META["build-system"]["requires"])),
    }


def test_the_recipe_says_what_the_project_says(recipe):
    about = recipe["about"]
    assert about["license"] == PROJECT["license"]
    assert [about["license_file"]] == PROJECT["license-files"]
    assert about["homepage"] in PROJECT["urls"].values()
    scripts = [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts


# -- built -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that is built from it and not from here."""
    if "DIST" in os.environ:  # a folder that has them, see `make package`
        return found(ROOT / os.environ["DIST"])
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, env=ALONE)
    assert done.returncode == 0, done.stdout + done.stderr
    return found(out)


def found(folder):
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow
def test_the_wheel_has_every_file_and_nothing_else(built):
    _, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == {f"tightframe/{name}" for name in package_files()}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_source_has_what_the_tests_read(built):
    source, _ = built
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if not tracked:
        pytest.skip("no git")
    ours = {name for name in tracked if not name.startswith(".") and (ROOT / name).is_file()}
    assert ours - inside == set()


@pytest.mark.slow
def test_twine_has_no_complaint(built):
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def closure(names):
    """Return distributions and all that they need, here."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = importlib.metadata.distribution(name)
        needs = map(Requirement, found[name].requires or [])
        waiting += [r.name for r in needs if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found.values()


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory):
    """An environment with the wheel and what it asks for, and nothing else; without a network."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    for distribution in closure(own.name for own in requirements(PROJECT["dependencies"])):
        for top in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(distribution.locate_file(top))
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", built[1]], check=True, env=ALONE)
    return home / "bin"


def said(*command):
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=ALONE)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links, and bin/")
def test_the_theory_half_works_alone(clean):
    assert said(clean / "tightframe", "--version") == (0, f"{__version__}\n", "")
    code, out, _ = said(clean / "tightframe", "solve", "--counts", "100x5,10x5", "--lambda", "0.01")
    assert code == 0
    assert "vanished" in out
    solved = (
        "import sys, tightframe as tf; "
        "p = tf.Problem('5x4', weight_decay=.01, feature_decay=.01); "
        "print(tf.solve(p).status, tf.thresholds(p).kind, 'torch' in sys.modules)"
    )
    assert said(clean / "python", "-c", solved)[1].split()[::2] == ["optimal", "False"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links, and bin/")
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from tightframe.metrics import nc1", "tightframe[torch]"),
        ("import tightframe as tf; tf.metrics.CollapseReport", "tightframe[torch]"),
        ("from tightframe.training import CollapseMonitor", "tightframe[lightning]"),
        ("import tightframe as tf; tf.report.write_report", "tightframe[report]"),
    ],
)
def test_what_needs_more_says_what_to_install(clean, code, line):
    error = said(clean / "python", "-c", code)[2].strip().splitlines()[-1]
    said_so = rf"ModuleNotFoundError: tightframe\.\S+ needs \w+: pip install '{re.escape(line)}'"
    assert re.fullmatch(said_so, error)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="links, and bin/")
def test_a_command_that_needs_more_says_so_in_one_line(clean):
    code, out, error = said(clean / "tightframe", "measure", "features.npz")
    assert (code, out) == (2, "")
    assert error == "tightframe: torch: not installed; pip install 'tightframe[all]'\n"
