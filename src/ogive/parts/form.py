"""The written form of a part: `name(argument, key=value)`, and chains of them.

    chain    = form *("," form)
    form     = name ["(" [argument *("," argument)] ")"]
    argument = [key "="] value
    value    = number | "true" | "false" | word | form

A word is any run of letters, digits and `_ - + . / `: `log_n`, `-log_n`, `element`. Spaces are
allowed around commas inside brackets and dropped; a space outside brackets ends a chain.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

from ogive.errors import ArgumentError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_+./-]+")
_SPACE = re.compile(r"\s*")
_INTEGER = re.compile(r"[+-]?\d+")
_DEEPEST = 16


Value: TypeAlias = "bool | int | float | str | Form"


@dataclass(frozen=True)
class Form:
    """A part as written: a name, values by position, values by key."""

    name: str
    positional: tuple[Value, ...] = ()
    keyword: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        inner = [write_value(v) for v in self.positional]
        inner += [f"{key}={write_value(v)}" for key, v in self.keyword]
        return f"{self.name}({','.join(inner)})" if inner else self.name


def write_value(value: Value) -> str:
    """A value as it is written inside a form's brackets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value) if isinstance(value, float) else str(value)


def parse_chain(text: str) -> tuple[Form, ...]:
    """Read a chain of forms, in order.

    Args:
        text: for instance `linear,rmsnorm,gelu`; the empty text is the empty chain.

    Raises:
        ArgumentError: with the text, the place where reading stopped, and what fits there.
    """
    reader = _Reader(text)
    if reader.at_end():
        return ()
    forms = [reader.form()]
    while not reader.at_end():
        reader.expect(",", "',' or the end")
        forms.append(reader.form())
    return tuple(forms)


def parse_form(text: str) -> Form:
    """Read exactly one form; raises `ArgumentError` where there are none or several."""
    forms = parse_chain(text)
    if len(forms) != 1:
        raise ArgumentError(f"{text!r} holds {len(forms)} parts where exactly one fits")
    return forms[0]


class _Reader:
    """A cursor over the text; every method reads what its name says or raises."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ArgumentError(
                f"a written form is text such as 'gelu' or 'gate(sigmoid)', not {text!r}"
            )
        self.text, self.at, self.depth = text, 0, 0
        self.skip_space()

    def skip_space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]

    def at_end(self) -> bool:
        return self.at >= len(self.text)

    def fail(self, fits: str) -> ArgumentError:
        found = repr(self.text[self.at]) if not self.at_end() else "the end"
        return ArgumentError(
            f"cannot read {self.text!r}: at character {self.at + 1} came {found}, fits {fits}"
        )

    def peek(self, mark: str) -> bool:
        return self.text.startswith(mark, self.at)

    def expect(self, mark: str, fits: str) -> None:
        if not self.peek(mark):
            raise self.fail(fits)
        self.at += len(mark)
        self.skip_space()

    def form(self) -> Form:
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise self.fail("a part's name")
        self.at = match.end()
        self.skip_space()
        return self.arguments(match.group()) if self.peek("(") else Form(match.group())

    def arguments(self, name: str) -> Form:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.fail(f"at most {_DEEPEST} brackets inside each other")
        self.expect("(", "'('")
        positional: list[Value] = []
        keyword: dict[str, Value] = {}
        while not self.peek(")"):
            self.argument(positional, keyword)
            if not self.peek(")"):
                self.expect(",", "',' or ')'")
        self.expect(")", "')'")
        self.depth -= 1
        return Form(name, tuple(positional), tuple(keyword.items()))

    def argument(self, positional: list[Value], keyword: dict[str, Value]) -> None:
        match = _NAME.match(self.text, self.at)
        after = _SPACE.match(self.text, match.end()).end() if match else self.at  # type: ignore[union-attr]
        if match is None or not self.text.startswith("=", after):
            if keyword:
                raise self.fail("key=value (a value by position cannot follow one by key)")
            positional.append(self.value())
            return
        if match.group() in keyword:
            raise ArgumentError(f"cannot read {self.text!r}: {match.group()!r} came twice")
        self.at = after
        self.expect("=", "'='")
        keyword[match.group()] = self.value()

    def value(self) -> Value:
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise self.fail("a number, a word or a part")
        word, start = match.group(), self.at
        self.at = match.end()
        self.skip_space()
        if not self.peek("("):
            return _read_word(word)
        self.at = start
        form = self.form()
        return form if form.positional or form.keyword else _read_word(form.name)


def _read_word(word: str) -> Value:
    if word in ("true", "false"):
        return word == "true"
    try:
        number = int(word) if _INTEGER.fullmatch(word) else float(word)
        return number if math.isfinite(number) else word
    except (ValueError, OverflowError):  # not a number, or one with thousands of digits
        return word
