"""The report's colours, once: each role in light and in dark, and the mark of each verdict."""

from __future__ import annotations

from dataclasses import dataclass

# role: (on light paper, on dark paper). Figures and page read the same table.
PALETTE = {
    "paper": ("#fcfbf8", "#14171a"),
    "card": ("#ffffff", "#1b1f23"),
    "ink": ("#1b1f24", "#e8e6e1"),
    "muted": ("#5d656e", "#a0a6ae"),
    "rule": ("#d6d2c9", "#3a4047"),
    "grid": ("#ece9e2", "#282d32"),
    "band": ("#ece7d8", "#2b2c27"),
    "better": ("#0b6e66", "#56c9bb"),
    "worse": ("#ad3f1c", "#f29069"),
    "equivalent": ("#345a9e", "#93b4f2"),
    "undecided": ("#856000", "#dcb667"),
}


@dataclass(frozen=True)
class Mark:
    """How a verdict looks: told apart by shape and word, never by colour alone."""

    marker: str  # matplotlib's name of the shape
    symbol: str  # the same shape as a character
    filled: bool
    word: str


MARKS = {
    "better": Mark("^", "▲", True, "better"),
    "worse": Mark("v", "▼", True, "worse"),
    "equivalent": Mark("s", "■", True, "equivalent"),
    "undecided": Mark("o", "○", False, "undecided"),
}


def variables() -> str:
    """The palette as CSS custom properties: light, dark by preference, and dark by choice."""
    light = "".join(f"--{role}:{pair[0]};" for role, pair in PALETTE.items())
    dark = "".join(f"--{role}:{pair[1]};" for role, pair in PALETTE.items())
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
        f":root[data-theme=light]{{color-scheme:light}}\n"
    )


def classes() -> str:
    """One CSS class per role for fills (f-better) and one for strokes (s-better)."""
    return "".join(
        f".f-{role}{{fill:var(--{role})}}.s-{role}{{stroke:var(--{role})}}\n" for role in PALETTE
    )
