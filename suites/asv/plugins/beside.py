"""asv environments that hold the commit and nothing else: torch and the rest are those of the Python that asv runs in.

    "environment_type": "beside"

A commit is installed in seconds, nothing is downloaded that is here already, and two commits meet the same torch. The
environment is asv's virtualenv with one .pth file that names the outer environment's packages: they come after its
own, so the commit's sparsebench wins; and a .pth file does not obey others, so an outer editable install stays hidden.

This folder is no package, and must not be: asv imports all packages below its benchmark_dir in the measuring process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from asv.plugins.virtualenv import Virtualenv


class Beside(Virtualenv):  # type: ignore[misc]
    """A virtualenv of the Python that asv runs in, whichever is asked for; the requirements are for other kinds."""

    tool_name = "beside"

    def __init__(self, conf: Any, python: str, requirements: Any, tagged_env_vars: Any) -> None:
        super().__init__(conf, "{}.{}".format(*sys.version_info), {}, tagged_env_vars)
        self._executable = sys.executable

    def _install_requirements(self) -> None:
        (own,) = Path(self._path).glob("lib/python*/site-packages")
        outer = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (own / "beside.pth").write_text("\n".join(outer) + "\n")
