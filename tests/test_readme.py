"""README says what the code says: tables, help texts and the table of retained shares.

`python tests/test_readme.py` writes them anew.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import typer.main

from sparsebench.cli import app
from sparsebench.errors import MissingNeed
from sparsebench.lab import retained
from sparsebench.listing import TABLES, markdown

README = Path(__file__).parent.parent / "README.md"
COMMANDS = (
    "quick", "run", "fit", "predict", "verify", "advise", "trace", "compare", "report", "export", "list", "doctor",
    "worker",
)  # fmt: skip


def help_texts() -> str:
    """Every command with its options and their help, as --help has them (whose layout changes with typer's version)."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return "\n\n".join(_help(name, commands[name]) for name in COMMANDS)


def _help(name: str, command) -> str:
    def shown(param) -> str:
        return param.name.upper() if param.param_type_name == "argument" else param.opts[0]

    arguments = [shown(p) + "..." * (p.nargs == -1) for p in command.params if p.param_type_name == "argument"]
    rows = [(f"`{shown(param)}`", param.help) for param in command.params if param.help]
    return f"`{' '.join([f'sparsebench {name}', *arguments])}`: {command.help}\n\n{markdown((('', ''), rows))}"


SECTIONS = {**{f"list {what}": (lambda what=what: markdown(TABLES[what]())) for what in TABLES}, "help": help_texts}


def section(name: str, text: str | None = None) -> str:
    """What stands between the marks of a section in README; of `text` where it is given."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- end -->", text or README.read_text(), re.DOTALL)
    assert found, f"README has no section {name}"
    return found[1].strip()


@pytest.mark.parametrize("name", SECTIONS)
def test_readme_says_what_the_code_says(name):
    assert section(name) == SECTIONS[name](), "run `python tests/test_readme.py` to write README anew"


def test_readme_has_the_two_commands_each_on_one_line():
    for name in ("quick", "test"):
        (command,) = section(name).splitlines()
        assert command.strip().startswith("python3 -m venv")
        assert "torch==" in command


def test_every_picture_of_readme_is_there():
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / picture).is_file(), picture


def test_retained_shares_are_what_the_weights_say():
    try:
        expected = retained.report()
    except MissingNeed as missing:
        pytest.skip(str(missing))
    assert section("retained") == expected.strip()


def write() -> None:
    """Fill README's sections from the code."""
    text = README.read_text()
    for name, make in {**SECTIONS, "retained": retained.report}.items():
        section(name, text)
        filled = f"<!-- {name} -->\n\n{make().strip()}\n\n<!-- end -->"
        text = re.sub(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _, filled=filled: filled, text, flags=re.DOTALL)
    README.write_text(text)


if __name__ == "__main__":
    sys.exit(write())
