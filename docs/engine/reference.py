"""The directive ``reference``: names of a module, each documented from its docstring.

    ```{reference} tightframe
    Problem
    solve
    ```

A link's anchor is the full name: ``api/problems.md#tightframe.solve``.
"""

import pydoc
from inspect import isclass, isroutine
from typing import Any, ClassVar

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

#: Names by the identity of what they name, so that texts may say where it is defined instead.
PUBLIC: dict[int, str] = {}


class Reference(SphinxDirective):
    """Document names of a module in the order given."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"inherited": str}

    def run(self) -> list[nodes.Node]:
        """Write what autodoc needs for every name, and have it read."""
        module = self.arguments[0]
        labels = self.env.domains.standard_domain.anonlabels
        lines = [f".. py:currentmodule:: {module}", ""]
        for name in self.content:
            thing = getattr(pydoc.locate(module), name)
            PUBLIC[id(thing)] = f"{module}.{name}"
            labels[PUBLIC[id(thing)]] = self.env.docname, PUBLIC[id(thing)]
            lines.append(f".. {kind(thing)}:: {name}")
            if isclass(thing):
                lines.append("   :members:")
            if name in self.options.get("inherited", "").split():
                lines.append("   :inherited-members:")
            lines.append("")
        text = "\n".join(["```{eval-rst}", *lines, "```"])
        return self.parse_text_to_nodes(text)


def kind(thing: Any) -> str:
    """Return the directive of autodoc that documents something."""
    if isclass(thing):
        return "autoexception" if issubclass(thing, Exception) else "autoclass"
    return "autofunction" if isroutine(thing) else "autodata"


def skip(
    _: Sphinx, what: str, __: str, member: Any, skipped: bool, ___: Any
) -> bool | None:
    """Leave out what Python says of the fields of a named tuple: the class itself says more."""
    doc = getattr(member, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


def resolve(
    app: Sphinx, env: Any, node: pending_xref, content: nodes.Element
) -> nodes.Node | None:
    """Link a name that says where something is defined to the name that is documented.

    Other names in quotes are code, not links, but have to be there if they are this package's.
    """
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    if not target.startswith("tightframe."):
        return content
    thing = pydoc.locate(target)
    if thing is None:  # a field of a record has no docstring: its record has
        owner, _, field = target.rpartition(".")
        thing = pydoc.locate(owner)
        if field not in getattr(thing, "__annotations__", ()):
            return None  # Sphinx warns
    public = PUBLIC.get(id(thing))
    if public in (None, target):
        return content
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", public, node, content
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive, and what makes links of quoted names."""
    app.add_directive("reference", Reference)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
