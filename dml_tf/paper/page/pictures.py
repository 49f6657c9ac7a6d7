"""The figures as SVG inside the page, in the page's colours and fonts."""

import io
import re
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from dml_tf.paper import marks

# A figure's colour -> the page's, which has others in the dark.
_COLOURS = {
    "#000000": "currentColor",
    marks.PAGE: "var(--page)",
    marks.GRID: "var(--line)",
    marks.QUIET: "var(--soft)",
    **{colour.lower(): f"var(--series-{k})" for k, (colour, _) in enumerate(marks.STYLES)},
}
# `{namespace}` before each name, which HTML does not need, and digits that no screen shows.
_NAMESPACE, _DIGITS = re.compile(r"\{[^}]*\}"), re.compile(r"(\.\d\d)\d+")
_DROPPED = ("style", "metadata")  # style sheets would hold for the whole page


def inline(figure: Figure, name: str) -> Markup:
    """A figure as an `<svg>` element; the same figure gives the same text.

    Args:
        figure: What is shown.
        name: Tells the marks of a page's figures apart.
    """
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    _adapt(root)
    root.attrib = {"viewBox": root.get("viewBox"), "aria-hidden": "true"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _adapt(node: ElementTree.Element):
    """Leaves what a page needs of an element and of all that is in it."""
    node.tag = _NAMESPACE.sub("", node.tag)
    node.attrib = {_NAMESPACE.sub("", key): _value(key, v) for key, v in node.attrib.items()}
    if node.tag == "g":
        node.attrib.pop("id", None)  # such as `axes_1`, in every figure
    if node.get("transform", "").startswith("rotate(-0 "):
        del node.attrib["transform"]
    node.tail = None
    for child in list(node):
        _adapt(child)
        if child.tag in _DROPPED or (child.tag in ("g", "defs") and not len(child)):
            node.remove(child)
    if len(node):
        node.text = None


def _value(key: str, value: str) -> str:
    if key == "style":
        parts = [part for part in value.split("; ") if not part.startswith("font-family")]
        value = ";".join(part.replace(": ", ":") for part in parts)
        return re.sub("#[0-9a-f]{6}", lambda found: _COLOURS.get(found[0], found[0]), value)
    return _DIGITS.sub(r"\1", " ".join(value.split()))
