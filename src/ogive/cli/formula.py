"""Formulas as a terminal can show them: from the LaTeX of a part to letters and signs."""

from __future__ import annotations

import re

SIGNS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "varepsilon": "ε",
    "theta": "θ", "lambda": "λ", "mu": "μ", "pi": "π", "sigma": "σ", "tau": "τ", "phi": "φ",
    "Phi": "Φ", "odot": "⊙", "cdot": "·", "times": "×", "otimes": "⊗", "pm": "±", "le": "≤",
    "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠", "neq": "≠", "in": "∈", "infty": "∞", "to": "→",
    "leftarrow": "←", "rightarrow": "→", "ldots": "…", "cdots": "…", "dots": "…", "Vert": "‖",
    "lVert": "‖", "rVert": "‖", "langle": "⟨", "rangle": "⟩", "mid": "|", "|": "‖", "sum": "Σ",
    "prod": "Π", "top": "ᵀ", "quad": "  ", "qquad": "  ", ",": " ", ";": " ", ":": " ", " ": " ",
    "!": "",
}  # fmt: skip
WORDS = ("max", "min", "tanh", "exp", "log", "erf", "sign", "cos", "sin")
_SILENT = ("left", "right", "bigl", "bigr", "Bigl", "Bigr", "big", "textstyle", "displaystyle")
_UPRIGHT = ("mathrm", "operatorname", "text", "mathbf", "mathit", "textrm")
_HIGH = str.maketrans("0123456789+-nTp", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿᵀᵖ")
_LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_GROUP = r"\{([^{}]*)\}"


def plain(latex: str) -> str:
    r"""A formula in characters: `\max(h, 0)^2` gives `max(h, 0)²`."""
    text = re.sub(r"\\(" + "|".join(_SILENT) + r")(?![A-Za-z])", "", latex)
    before = ""
    while text != before:  # from the innermost braces outwards
        before = text
        text = re.sub(r"\\(?:" + "|".join(_UPRIGHT) + r")" + _GROUP, r"\1", text)
        text = re.sub(r"\\[td]?frac" + _GROUP + _GROUP, _ratio, text)
        text = re.sub(r"\\[td]?frac(\d)(\d)", r"\1/\2 ", text)
        text = re.sub(r"\\sqrt" + _GROUP, lambda m: f"√{_grouped(m[1])}", text)
        text = re.sub(r"\\hat ?" + _GROUP, "\\1\u0302", text)
        text = re.sub(r"\\hat ?([A-Za-z])", "\\1\u0302", text)
        text = re.sub(r"\\bar ?([A-Za-z])", "\\1\u0304", text)
        text = re.sub(r"\\\|", "‖", text)
        text = re.sub(r"\\([A-Za-z]+)", _sign, text)
        text = re.sub(r"\\([^A-Za-z])", lambda m: SIGNS.get(m[1], m[1]), text)
        text = re.sub(r"\be\^\{([^{}]{2,})\}", r"exp(\1)", text)
        text = re.sub(r"\^" + _GROUP, lambda m: _script(m[1], "^", _HIGH), text)
        text = re.sub(r"_" + _GROUP, lambda m: _script(m[1], "_", _LOW), text)
        text = re.sub(r"\^(\w|[ᵀ⁺⁻])", lambda m: _script(m[1], "^", _HIGH), text)
        text = re.sub(r"_(\d)", lambda m: m[1].translate(_LOW), text)
    return " ".join(text.replace("{", "").replace("}", "").replace("-", "−").split())


def _sign(match: re.Match[str]) -> str:
    name = match[1]
    if name in SIGNS:
        return SIGNS[name]
    return name if name in WORDS else match[0]


def _script(inner: str, mark: str, letters: dict[int, int]) -> str:
    if inner == "ᵀ":
        return inner
    if all(ord(char) in letters for char in inner):
        return inner.translate(letters)
    return f"{mark}{_grouped(inner)}"


def _ratio(match: re.Match[str]) -> str:
    return f"{_grouped(match[1])}/{_grouped(match[2])}"


def _grouped(inner: str) -> str:
    return inner if re.fullmatch(r"[\w.ᵀ]+", inner) else f"({inner})"
