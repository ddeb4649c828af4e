"""Draw with matplotlib, hand back SVG that a strict page can inline and that follows its theme.

matplotlib draws with one colour per role; `Canvas.svg` then turns those colours into classes
(so that light and dark are the page's business), inline styles into attributes (so that a strict
content-security policy holds), and ids into ids no other figure has. Words never pass through
matplotlib: it places an empty text and the words are set in the tree, where they are escaped.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ogive.report.palette import PALETTE, classes, variables
from ogive.report.text import clean

INK = {role: pair[0] for role, pair in PALETTE.items()}  # the colours to draw with
_ROLES = {colour: role for role, colour in INK.items()}
_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_PADDING = 18  # of a figure that is a file of its own
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"#([\w:.-]+)")


@dataclass(frozen=True)
class Drawing:
    """A finished figure: its markup, and what to say when a mark in it is pointed at."""

    svg: str
    tips: dict[str, str]


@contextmanager
def canvas(key: str, width: float, height: float) -> Iterator[Canvas]:
    """A canvas of CSS pixels, drawn in matplotlib's defaults whatever the user's settings are.

    Args:
        key: the figure's name: prefix of its ids and salt of matplotlib's own.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["svg.fonttype"] = "none"
        matplotlib.rcParams["svg.hashsalt"] = key
        matplotlib.rcParams["text.parse_math"] = False
        matplotlib.rcParams["path.simplify"] = False
        yield Canvas(key, width, height)


class Canvas:
    """A figure measured in CSS pixels from its top left corner."""

    def __init__(self, key: str, width: float, height: float):
        self.key, self.width, self.height = key, width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)
        FigureCanvasSVG(self.figure)
        self._words: dict[str, str] = {}
        self._tips: dict[str, str] = {}

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Bare axes in a box given in pixels."""
        box = (left / self.width, 1 - (top + height) / self.height)
        axes = self.figure.add_axes((*box, width / self.width, height / self.height))
        axes.patch.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelbottom=False, labelleft=False)
        return axes

    def whole(self) -> Axes:
        """Bare axes over the whole figure whose coordinates are pixels, y downwards."""
        axes = self.axes(0, 0, self.width, self.height)
        axes.set(xlim=(0, self.width), ylim=(self.height, 0))
        axes.set_axis_off()
        return axes

    def write(
        self,
        axes: Axes,
        x: float,
        y: float,
        words: str,
        *,
        role: str = "ink",
        size: float = 12,
        anchor: str = "left",
        weight: str = "normal",
    ) -> None:
        """Words at a point of the axes; `anchor` is the side of the words that sits there."""
        name = f"words-{len(self._words)}"
        self._words[name] = clean(words)
        axes.text(
            x,
            y,
            "x",
            gid=name,
            color=INK[role],
            fontsize=size,
            ha=anchor,
            va="center_baseline",
            fontweight=weight,
        )

    def tip(self, words: str) -> str:
        """A gid for an artist that answers with these words when it is pointed at."""
        name = f"mark-{len(self._tips)}"
        self._tips[name] = clean(words)
        return name

    def svg(self, title: str, description: str, *, standalone: bool = False) -> Drawing:
        """The markup of everything drawn: the same bytes for the same figure.

        Args:
            title: the figure's name, for those who cannot see it.
            description: what it shows, in a sentence.
            standalone: a file of its own, with its own colours for light and dark.
        """
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None})
        root = ElementTree.fromstring(buffer.getvalue())
        _drop_matplotlib(root)
        for element in root.iter():
            _style_as_attributes(element)
            self._set_words(element)
        _unique_ids(root, self.key, set(self._tips))
        self._dress(root, clean(title), clean(description), standalone)
        tips = {f"{self.key}-{name}": words for name, words in self._tips.items()}
        return Drawing(ElementTree.tostring(root, encoding="unicode"), tips)

    def _set_words(self, element: ElementTree.Element) -> None:
        words, text = self._words.get(element.get("id", "")), element.find("text")
        if words is not None and text is not None:
            text.text = words

    def _dress(self, root: ElementTree.Element, title: str, description: str, standalone: bool):
        size = f"{self.width:g}", f"{self.height:g}"
        root.attrib = {
            "class": "figure",
            "viewBox": f"0 0 {size[0]} {size[1]}",
            "role": "img",
            "aria-label": title,
            "font-family": _FONT,
        }
        if self._tips:
            root.set("role", "group")
        head = [_element("desc", description)]
        if standalone:
            size = [f"{side + 2 * _PADDING:g}" for side in (self.width, self.height)]
            root.attrib |= {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": size[0],
                "height": size[1],
                "viewBox": f"{-_PADDING} {-_PADDING} {size[0]} {size[1]}",
            }
            # Both themes of a host page must be legible, so the figure brings its own paper.
            paper = _element(
                "rect",
                "",
                x=str(-_PADDING),
                y=str(-_PADDING),
                width=size[0],
                height=size[1],
                rx="8",
                fill=INK["paper"],
                attribute_class="f-paper",
            )
            head = [
                _element("title", title),
                *head,
                _element("style", variables() + classes()),
                paper,
            ]
        for position, element in enumerate(head):
            root.insert(position, element)


def _element(tag: str, text: str, attribute_class: str = "", **attributes: str):
    element = ElementTree.Element(tag, attributes)
    if attribute_class:
        element.set("class", attribute_class)
    element.text = text
    return element


def _drop_matplotlib(root: ElementTree.Element) -> None:
    """Remove namespaces, metadata, white space and the style sheet that matplotlib adds."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
        href = element.attrib.pop("{http://www.w3.org/1999/xlink}href", None)
        if href:
            element.set("href", href)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _style_as_attributes(element: ElementTree.Element) -> None:
    """Turn `style` into attributes, and the colour of a role into the role's class."""
    properties: dict[str, str] = {}
    for item in element.attrib.pop("style", "").split(";"):
        name, _, value = item.partition(":")
        if value and name.strip() != "font-family":
            properties[name.strip()] = value.strip()
    roles = []
    for kind in ("fill", "stroke"):
        role = _ROLES.get(properties.get(kind, ""))
        if role:
            roles.append(f"{kind[0]}-{role}")
    if roles:
        element.set("class", " ".join(roles))
    for name, value in properties.items():
        element.set(name, value)
    for name in ("d", "x", "y", "width", "height", "transform"):
        if name in element.attrib:
            element.set(name, _rounded(element.attrib[name]))
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]


def _rounded(text: str) -> str:
    """Coordinates to a hundredth of a pixel, lines joined."""
    text = _NUMBER.sub(lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), text)
    return " ".join(text.split())


def _unique_ids(root: ElementTree.Element, key: str, marks: set[str]) -> None:
    """Prefix the ids that something refers to with the figure's key, and drop the others."""
    wanted = set(marks)
    for element in root.iter():
        for name in ("href", "clip-path"):
            wanted.update(_REFERENCE.findall(element.get(name, "")))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in wanted:
            element.set("id", f"{key}-{name}")
        if name in marks:
            element.set("class", "mark")
        for reference in ("href", "clip-path"):
            if reference in element.attrib:
                renamed = _REFERENCE.sub(rf"#{key}-\1", element.attrib[reference])
                element.set(reference, renamed)
