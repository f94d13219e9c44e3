"""What importing the package may load: the theory half needs NumPy alone at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tightframe as tf

HEAVY = ("torch", "torchmetrics", "lightning", "scipy", "pandas", "matplotlib", "plotly", "sklearn")
HEAVY += ("joblib", "dask", "distributed")
HEAVY += ("tightframe.runs", "tightframe.sweeps", "tightframe.reproduce")


def _python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["tightframe", "tightframe.cli"])
def test_import_loads_no_heavy_package(module):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert _python(code).strip() == "[]"


def test_theory_half_works_where_torch_cannot_be_imported():
    blocked = "; ".join(
        f"sys.modules[{name!r}] = None" for name in ("torch", "lightning", "joblib")
    )
    code = (
        f"import sys; {blocked}; import tightframe as tf; "
        "p = tf.Problem('50x2,5x3', weight_decay=1e-2, feature_decay=1e-3, bias='free'); "
        "s = tf.solve(p); tf.certify(p, s.logits, s.bias); tf.thresholds(p); s.geometry; "
        "tf.seli('50x2,5x3'); tf.phase_diagram(4, [1e-3], [2], minority=9); "
        "print(s.status)"
    )
    assert _python(code).strip() == "optimal"


def test_measure_says_what_is_missing_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; "
        "from tightframe.cli import run_command; print(run_command(['measure', 'x.npz']))"
    )
    assert _python(code).strip() == "2"


def test_dir_shows_the_public_names():
    assert dir(tf) == sorted(tf.__all__)
    assert all(hasattr(tf, name) for name in tf.__all__)


def test_nothing_inside_the_package_imports_its_root():
    # Only with full paths is a module's place in the layers (pyproject.toml) what it says.
    sources = list(Path(tf.__file__).parent.rglob("*.py"))
    assert sources
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "tightframe" not in [alias.name for alias in node.names], path
            elif isinstance(node, ast.ImportFrom) and path.name != "__init__.py":
                assert node.module != "tightframe", path
