"""Reading Lua without running it: words, who declared a name, and what is called on the store."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = re.compile(
    r"""(?P<comment>--\[(?P<c>=*)\[.*?\](?P=c)\] | --[^\n]*)
      | (?P<string>\[(?P<s>=*)\[.*?\](?P=s)\] | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
      | (?P<number>0[xX][0-9a-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_]\w*)
      | (?P<sign>\.\.\.|\.\.|==|~=|<=|>=|[-+*/%^\#<>=(){}\[\];:,.])
      | (?P<line>\n) | (?P<blank>\s)""",
    re.VERBOSE | re.DOTALL,
)

RESERVED: Final = frozenset(
    "and break do else elseif end false for function goto if in local nil not or repeat return then true until "
    "while".split()
)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a script: its kind (string, number, name, sign), its text and its line."""

    kind: str
    text: str
    line: int


def words(source: str) -> list[Word]:
    """The words of a script without comments; raises ValueError at what cannot be Lua."""
    found, line, at = [], 1, 0
    text = re.sub(r"\A#!.*", "", source)
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            raise ValueError(f"line {line}: {text[at]!r} is not Lua")
        if match.lastgroup in {"string", "number", "name", "sign"}:
            found.append(Word(match.lastgroup, match[0], line))
        line += match[0].count("\n")
        at = match.end()
    return found


@dataclass(slots=True)
class Call:
    """One call of a command: how (call or pcall), which command (None: not a literal), its other arguments."""

    how: str
    command: str | None
    arguments: list[list[Word]]
    line: int


def calls(script: list[Word]) -> Iterator[Call]:
    """Every call of a command of the store, through `redis.` or through a local name for it."""
    names = _names_of_calls(script)
    for i, word in enumerate(script):
        owner = [w.text for w in script[max(0, i - 2) : i]]
        how = word.text if owner == ["redis", "."] else names.get(word.text, "") if owner[-1:] != ["."] else ""
        if how in {"call", "pcall"} and _texts(script, i + 1, 1) == ["("]:
            first, *others = _arguments(script, i + 1)
            literal = len(first) == 1 and first[0].kind == "string"
            yield Call(how, first[0].text[1:-1].upper() if literal else None, others, word.line)


def members(script: list[Word], table: str) -> Iterator[Word]:
    """Every word that stands behind `table.`."""
    for i, word in enumerate(script[2:], 2):
        if [script[i - 2].text, script[i - 1].text] == [table, "."]:
            yield word


def _names_of_calls(script: list[Word]) -> dict[str, str]:
    """Local names of `redis.call` and `redis.pcall`: `local a, b = redis.call, math.floor` gives {a: call}."""
    names: dict[str, str] = {}
    for i, word in enumerate(script):
        left: set[str] = set()
        end = _declare(script, i, left) + 1 if word.text == "local" else 0
        if left and _texts(script, end, 1) == ["="]:
            declared = [w.text for w in script[i:end] if w.text in left]
            names |= dict(_calls_among(declared, _split(script[end + 1 :])))
    return names


def _calls_among(names: list[str], values: list[list[Word]]) -> Iterator[tuple[str, str]]:
    for name, value in zip(names, values, strict=False):
        texts = [word.text for word in value[:4]]
        if texts[:2] == ["redis", "."] and texts[3:] != ["("]:
            yield name, texts[2]


def _before(script: list[Word], i: int) -> str:
    return script[i - 1].text if i else ""


def _texts(script: list[Word], start: int, count: int) -> list[str]:
    return [word.text for word in script[start : start + count]]


def _arguments(script: list[Word], opening: int) -> list[list[Word]]:
    """The arguments between the bracket at `opening` and its partner."""
    depth = 0
    for i, word in enumerate(script[opening:], opening):
        depth += _step(word)
        if depth == 0:
            return _split(script[opening + 1 : i])
    return _split(script[opening + 1 :])


def _split(script: list[Word]) -> list[list[Word]]:
    """The parts between the commas that stand in no bracket."""
    parts: list[list[Word]] = [[]]
    depth = 0
    for word in script:
        depth += _step(word)
        if depth == 0 and word.text == ",":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def without_indexes(script: list[Word]) -> list[Word]:
    """The words that stand in no square bracket."""
    depth, found = 0, []
    for word in script:
        depth += (word.text == "[") - (word.text == "]")
        if depth == 0:
            found.append(word)
    return found


def _step(word: Word) -> int:
    """How a word changes the depth of brackets."""
    if word.kind != "sign":
        return 0
    return (word.text in {"(", "{", "["}) - (word.text in {")", "}", "]"})


@dataclass(slots=True)
class _Scopes:
    """The declared names, innermost block last."""

    blocks: list[set[str]] = field(default_factory=lambda: [set()])
    coming: set[str] = field(default_factory=set)

    def open(self) -> None:
        self.blocks.append(self.coming)
        self.coming = set()

    def close(self) -> None:
        if len(self.blocks) > 1:
            self.blocks.pop()

    def knows(self, name: str) -> bool:
        return any(name in block for block in self.blocks)


def undeclared(script: list[Word], known: frozenset[str]) -> list[Word]:
    """Names that are neither `known` nor declared in a block around them: globals."""
    scopes, strangers, brackets, i = _Scopes(), [], [""], 0
    while i < len(script):
        word = script[i]
        if word.kind == "sign":
            _follow(brackets, word.text)
        elif word.kind == "name" and word.text in RESERVED:
            if _names_a_global(script, i) and not scopes.knows(script[i + 1].text):
                strangers.append(script[i + 1])
            i = _keyword(script, i, scopes)
        elif word.kind == "name" and not _is_field(script, i, brackets[-1]) and word.text not in known:
            strangers += [word] * (not scopes.knows(word.text))
        i += 1
    return strangers


def _follow(brackets: list[str], sign: str) -> None:
    if sign in {"(", "{", "["}:
        brackets.append(sign)
    elif sign in {")", "}", "]"} and len(brackets) > 1:
        brackets.pop()


def _is_field(script: list[Word], i: int, bracket: str) -> bool:
    """`x` of `a.x`, of `a:x()` and of `{x = 1}`."""
    before = _before(script, i)
    key = bracket == "{" and before in {"{", ",", ";"} and _texts(script, i + 1, 1) == ["="]
    return before in {".", ":"} or key


def _keyword(script: list[Word], i: int, scopes: _Scopes) -> int:
    """Follow one reserved word at `i`: open, close or declare. Returns the last word it used up."""
    text = script[i].text
    if text == "local" and _texts(script, i + 1, 1) != ["function"]:
        return _declare(script, i, scopes.blocks[-1])
    if text == "for":
        return _declare(script, i, scopes.coming)
    if text == "function":
        return _function(script, i, scopes)
    if text in {"end", "until", "else", "elseif"}:
        scopes.close()
    if text in {"do", "then", "else", "repeat"}:
        scopes.open()
    return i


def _declare(script: list[Word], i: int, block: set[str]) -> int:
    """Take the list of names behind `i` into `block`."""
    while script[i + 1].kind == "name" and script[i + 1].text not in RESERVED:
        block.add(script[i + 1].text)
        i += 1
        if _texts(script, i + 1, 1) != [","]:
            break
        i += 1
    return i


def _names_a_global(script: list[Word], i: int) -> bool:
    """`function f()` without `local` before it."""
    return script[i].text == "function" and script[i + 1].kind == "name" and _before(script, i) != "local"


def _function(script: list[Word], i: int, scopes: _Scopes) -> int:
    """Enter the function at `i`: its name where it is local, its parameters in a block of their own."""
    if _before(script, i) == "local":
        scopes.blocks[-1].add(script[i + 1].text)
    opening = next(j for j in range(i, len(script)) if script[j].text == "(")
    scopes.coming = set()
    _declare(script, opening, scopes.coming)
    scopes.open()
    return next(j for j in range(opening, len(script)) if script[j].text == ")")
