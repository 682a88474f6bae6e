"""The example in CONTRIBUTING.md works as it is written there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEP = re.compile(r"^\*\*\d\. [^`]*`(\S+\.py)`:\n\n```python\n(.*?)```$", re.DOTALL | re.MULTILINE)
NEEDED = [
    *(
        "app/homebody",
        "tests/helpers",
        "tests/tools",
        "tests/spec",
        "tests/core/user_data",
        "setup.cfg",
    ),
    *("tests/__init__.py", "tests/conftest.py", "tests/core/__init__.py"),
]


def run(folder: Path, test: str) -> str:
    """Run the tests of a file that are about types, and return the last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-k", "types", test]
    environment = {**os.environ, "PYTHONPATH": str(folder / "app")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return (done.stdout or done.stderr).splitlines()[-1]


def test_the_endpoint_can_be_added_step_by_step(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    steps = STEP.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(steps) == 3
    for path, code in steps:  # a reader who follows the example has the code in their checkout
        source = (tmp_path / path).read_text(encoding="utf-8")
        (tmp_path / path).write_text(source.replace(code.strip(), ""), encoding="utf-8")
    test = steps[0][0]

    results = []
    for path, code in steps:
        with (tmp_path / path).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{code}")
        results.append(run(tmp_path, test) if path != steps[1][0] else "")

    assert results[0].startswith("2 failed")
    assert results[2].startswith("2 passed")
