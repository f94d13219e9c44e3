"""The README's Python example prints what the README says it prints."""

import contextlib
import io
import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_python_example():
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        assert printed.getvalue() == expected


def test_every_command_shown_exists():
    from tightframe.cli import app

    known = {command.callback.__name__ for command in app.registered_commands}
    page = README.parent / "docs" / "guide" / "command.md"
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    shown = set(re.findall(r"^tightframe (\w+)", "\n".join(blocks), re.MULTILINE))
    assert shown == known
