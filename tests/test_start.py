"""What starting pared costs: packages that most commands do without are imported where they are used."""

import subprocess
import sys

from commands import environment

LATER = {"sklearn", "pandas", "optuna", "numba", "ray", "onnx", "onnxruntime", "mlxtend", "reservoirpy", "statsmodels"}


def test_heavy_packages_wait_until_they_are_used():
    code = "import sys, pared.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert started.returncode == 0, started.stderr
    assert not LATER & set(started.stdout.split())
