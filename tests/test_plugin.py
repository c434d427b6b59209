"""README's example of a kernel of one's own, to the letter, from an empty folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

MAIN = "from sparsebench.cli import main; main()"
README = Path(__file__).parent.parent / "README.md"


def example() -> dict[str, str]:
    """The two files of README's example by their language."""
    section = re.search(r"<!-- plugin -->\n(.*?)<!-- end -->", README.read_text(), re.DOTALL)
    assert section
    return dict(re.findall(r"```(python|yaml)\n(.*?)```", section[1], re.DOTALL))


def test_the_example_is_short_and_runs_from_an_empty_folder(tmp_path: Path) -> None:
    files = example()
    assert len(files["python"].splitlines()) <= 32
    (tmp_path / "mine.py").write_text(files["python"])
    (tmp_path / "mine.yaml").write_text(files["yaml"].replace("plugins", "protocol: {budget_s: 0.05}\nplugins"))
    outcomes = run(tmp_path, "mine.yaml")
    assert outcomes["csr.mine"] == "ok"


def test_a_plugin_on_the_command_line_joins_a_suite(tmp_path: Path) -> None:
    files = example()
    (tmp_path / "mine.py").write_text(files["python"])
    suite = files["yaml"].replace("plugins: [mine.py]", "protocol: {budget_s: 0.05}")
    (tmp_path / "mine.yaml").write_text(suite)
    assert run(tmp_path, "mine.yaml", "--plugin", "mine.py", "--kernels", "csr.mine")["csr.mine"] == "ok"


def run(folder: Path, *arguments: str) -> dict[str, str]:
    """Outcomes by kernel of one run on the CPU in `folder`."""
    command = [sys.executable, "-c", MAIN, "run", *arguments, "--device", "cpu"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (store,) = (folder / "results").glob("*/mine.jsonl")
    records = map(json.loads, store.read_text().splitlines())
    return {record["kernel"]: record["outcome"] for record in records}
