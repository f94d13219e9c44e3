"""Code blocks of the documentation: found, run, and what they print compared with what is shown.

A page's Python blocks share their names, and its blocks share a folder. A ``text`` block right
after one shows what it prints; ``...`` stands for anything. Comments before a block mark

- ``<!-- not run: REASON -->``: a block that no test runs;
- ``<!-- numbers within 20 % -->``: output whose numbers depend on the machine.

Blocks of a language in braces are directives of Sphinx, no code.

``python -m tests.documents docs/faq.md`` writes what the page's blocks print now into it.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(
    r"(?P<mark><!--[^>]*-->\n+)?^(?P<indent> *)```(?P<language>\{\w+\}|\w*)[^\n]*\n"
    r"(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.?\d*(?:e[-+]?\d+)?")


@dataclass
class Block:
    """A fenced block: its language, text, line, and the comment before it."""

    language: str
    text: str
    line: int
    mark: str
    output: "Block | None" = None

    @property
    def reason(self):
        """Why it is not run, or None."""
        match = re.search(r"not run: (.+?) *-->", self.mark)
        return match and match[1]


def pages():
    return sorted(DOCS.rglob("*.md"))


def blocks(text):
    """Return the blocks of a page that are code, each with its output."""
    found, end = [], None
    for match in _FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("language")) + 1
        block = Block(match["language"], body, line, match["mark"] or "")
        if block.language.startswith("{"):
            continue
        if block.language == "text" and found and not text[end : match.start()].strip():
            found[-1].output = block
        else:
            found.append(block)
        end = match.end()
    return found


def directives(text, name):
    """Return a directive's blocks of a page; their first lines are its arguments."""
    fence = re.compile(rf"^```\{{{name}\}} (.*?)^```$", re.MULTILINE | re.DOTALL)
    return fence.findall(text)


def run(block, namespace, command, name):
    """Run a block that is not marked; return what it prints."""
    if block.language == "python":
        printed = io.StringIO()
        # The page's own lines in tracebacks.
        code = compile("\n" * block.line + block.text, name, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        return printed.getvalue()
    assert block.language == "sh", f"{name}:{block.line}: cannot run {block.language!r}"
    printed = ""
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            assert words[0] == "tightframe", f"{name}:{block.line}: cannot run {line}"
            code, out, err = command(*words[1:])
            assert code == 0, f"{name}:{block.line}: exit code {code}: {line}\n{err}"
            printed += out
    return printed


def agrees(shown, printed):
    """Tell whether what a block prints is what its page shows.

    Numbers agree to six digits, or as the mark says; times and rounding (below 1e-8) agree always.
    """
    expected, found = _lines(shown.text), _lines(printed)
    if "..." in expected:
        pattern = ".*?".join(map(re.escape, expected.split("...")))
        return re.fullmatch(pattern, found, re.DOTALL) is not None
    mark = re.search(r"numbers within (\d+) %", shown.mark)
    share = 1e-6 if mark is None else int(mark[1]) / 100
    if _words(expected, mark) != _words(found, mark):
        return False
    pairs = zip(_NUMBER.findall(expected), _NUMBER.findall(found), strict=True)
    return all(_close(float(a), float(b), share) for a, b in pairs)


def _words(text, mark):
    text = _NUMBER.sub("#", text)
    return text if mark is None else " ".join(text.split())


def _close(a, b, share):
    return abs(a - b) <= max(share * max(abs(a), abs(b)), 1e-8)


def _lines(text):
    text = re.sub(r"\d[\d.]* s$", "# s", text.strip("\n"), flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.splitlines())


def update(path):
    """Rewrite the outputs of a page that are no longer what its blocks print."""
    from tightframe.cli import run_command

    def command(*arguments):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(list(arguments))
        return code, out.getvalue(), err.getvalue()

    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    changes = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        namespace = {"__name__": "__main__"}
        for block in blocks(text):
            if block.reason is None:
                printed = run(block, namespace, command, path.name)
                if block.output is not None and not agrees(block.output, printed):
                    changes.append((block.output, printed))
    for shown, printed in reversed(changes):
        print(f"{path}:{shown.line}: changed" + (", lost its ..." * ("..." in shown.text)))
        size = shown.text.count("\n")
        new = "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())
        lines[shown.line : shown.line + size] = [new]
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    os.environ["COLUMNS"] = "80"
    for name in sys.argv[1:]:
        update(Path(name).resolve())
