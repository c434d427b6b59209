"""A copy of the repository in which asv may run: committed, with a machine file and a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT = ("sparsebench", "kernels", "suites", "asv.conf.json", "pyproject.toml", "README.md", "LICENSE")
MACHINE = "here"


@dataclass(frozen=True, slots=True)
class Copy:
    """What the working tree holds of the package, as a git repository with one commit."""

    path: Path

    @classmethod
    def make(cls, folder: Path) -> Copy:
        """A copy in `folder`/repository, ready for asv."""
        copy = cls(folder / "repository")
        copy.path.mkdir()
        for name in KEPT:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy.path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            else:
                shutil.copy(source, copy.path / name)
        copy.git("init", "--quiet", "--initial-branch", "main")
        copy.commit("as it is")
        assert copy.asv("machine", "--yes", "--machine", MACHINE).returncode == 0
        return copy

    def commit(self, message: str) -> str:
        """Commit all of the tree; the hash."""
        self.git("add", "--all")
        self.git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """What git says."""
        return subprocess.run(
            ["git", *arguments], cwd=self.path, check=True, capture_output=True, text=True
        ).stdout.strip()

    def asv(self, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """One asv command with these environment variables."""
        return self._run("-m", "asv", *arguments, **variables)

    def sparsebench(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the sparsebench that these tests are of."""
        return self._run("-P", "-c", "from sparsebench.cli import main; main()", *arguments)

    def _run(self, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        """Python in the copy, with a home of the copy's own for asv's machine file; stdout has stderr in it."""
        named = {name: str(value) for name, value in variables.items()}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env={**os.environ, "HOME": str(self.path.parent), "SPARSEBENCH_TRACK_DEVICE": "cpu", **named},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
