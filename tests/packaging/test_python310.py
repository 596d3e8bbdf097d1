"""What runs on nodes works with Python 3.10, which rented images still bring."""

from __future__ import annotations

import subprocess

from tests.packaging.environments import ROOT

RUNTIME = ROOT / "orchestrator" / "runtime"
NEEDS_TORCH = (
    *("dcp", "dcp_index", "snapshots", "weights"),
    *("capture", "live", "pinned", "rankmemory", "rescue", "steady"),
)
COMPILE = """
import pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.py")):
    compile(path.read_text(), str(path), "exec")
"""
IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def run(python: str, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [python, "-I", "-B", "-W", "error", "-c", code, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def test_all_of_the_runtime_compiles(python310: str) -> None:
    done = run(python310, COMPILE, str(RUNTIME))
    assert done.returncode == 0, done.stderr


def test_all_of_the_runtime_that_needs_no_torch_can_be_imported(python310: str) -> None:
    names = [path.stem for path in sorted(RUNTIME.glob("*.py")) if path.stem not in NEEDS_TORCH]
    modules = ["orchestrator.errors", *(f"orchestrator.runtime.{name}" for name in names)]
    done = run(python310, IMPORT, str(ROOT), *modules)
    assert done.returncode == 0, done.stderr
