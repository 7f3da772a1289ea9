"""Every script of the store keeps the write-path contract, names its signature and has a model test."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from metering.store.scripts import NAMES, script
from tests.house.lua import Call, calls, members, undeclared, without_indexes, words
from tests.house.repo import ROOT, files, report

SCRIPTS: Final = [path for path in files("metering/store/lua", suffix=".lua") if path.parent.name == "lua"]

CURE: Final = (
    "A script reads, decides, then writes; its header is its signature; keys come from KEYS and numbers go to the "
    "store as numbers. docs/architecture.md says why."
)

KNOWN: Final = frozenset("KEYS ARGV redis string table math tonumber type pairs ipairs next unpack select".split())
"""Names a script may use without declaring them. `tostring` and `..` write 1e15 as 1e+15, `error`, `assert` and
`pcall` end or hide a half-written effect, and JSON is built in Python."""

READS: Final = frozenset(
    "EXISTS GET HEXISTS HGET HGETALL HLEN HMGET HSTRLEN HVALS LLEN LRANGE MGET PTTL SCARD SISMEMBER SMEMBERS "
    "SMISMEMBER STRLEN TIME TTL TYPE XLEN XRANGE XREVRANGE ZCARD ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE ZRANK "
    "ZREVRANGE ZSCORE".split()
)
FORBIDDEN: Final = frozenset(
    "EVAL EVALSHA FLUSHALL FLUSHDB HSCAN KEYS MONITOR RANDOMKEY SCAN SCRIPT SELECT SSCAN SWAPDB ZSCAN".split()
)
HEADLINES: Final = ("KEYS", "ARGV", "RETURNS")
_CALLS: Final = {"call", "pcall"}
_ARITHMETIC: Final = {"+", "-", "*", "/", "%", "^"}


def breaches(source: str) -> Iterator[str]:
    """Every breach of the contract in one script: its line and what is wrong."""
    yield from _header(source)
    script = words(source)
    used = list(calls(script))
    yield from (f"{word.line}: redis.{word.text}" for word in members(script, "redis") if word.text not in _CALLS)
    yield from (f"{word.line}: {word.text} is not declared" for word in undeclared(script, KNOWN))
    yield from (f"{call.line}: {fault}" for call in used for fault in _call(call))
    yield from (f"{call.line}: TIME again" for call in [c for c in used if c.command == "TIME"][1:])
    for first, second in itertools.pairwise(script):
        if (first.text, second.text) == ("while", "true"):
            yield f"{first.line}: a loop without an end"


def _header(source: str) -> Iterator[str]:
    first, *others = [*source.splitlines(), ""]
    if not re.fullmatch(r"#!lua( flags=no-writes)?", first):
        yield "1: does not begin with #!lua"
    header = re.match(r"(--.*\n)*", "\n".join(others))
    for word in HEADLINES:
        if not re.search(rf"^-- {word}\b", header[0] if header else "", re.MULTILINE):
            yield f"2: the header does not say {word}"


def _call(call: Call) -> Iterator[str]:
    """What is wrong with one call of a command."""
    if call.command is None:
        yield "the command is not a literal word"
    elif call.command in FORBIDDEN:
        yield f"{call.command} looks beyond the declared keys"
    elif call.how == "pcall" and call.command not in READS:
        yield f"pcall would swallow a failed {call.command}"
    if any(word.kind == "string" for word in (call.arguments or [[]])[0]):
        yield f"the key of {call.command} is not from KEYS"
    for argument in call.arguments:
        outside = without_indexes(argument)
        texts = {word.text for word in outside}
        number = texts & _ARITHMETIC or "tonumber" in texts or any(word.kind == "number" for word in outside)
        if ".." in texts and number:
            yield f"a number is joined into an argument of {call.command}"


def untested(path: Path, tests: Path) -> bool:
    """Whether no test file of the script's name speaks of it."""
    named = [tests / f"test_{path.stem}_model.py", tests / f"test_{path.stem}.py"]
    return not any(found.exists() and path.stem in found.read_text(encoding="utf-8") for found in named)


def test_every_script_keeps_the_contract() -> None:
    assert SCRIPTS, "The scripts have moved: put metering/store/lua right here."
    found = [f"{path.name}:{fault}" for path in SCRIPTS for fault in breaches(script(path.stem).text)]
    assert not found, report(found, CURE)


def test_every_shared_part_is_in_a_script() -> None:
    parts = {path.stem for path in files("metering/store/lua/shared", suffix=".lua")}
    used = {name for path in SCRIPTS for name in re.findall(r"^--@ (\w+)$", path.read_text(), re.MULTILINE)}
    assert parts == used


def test_the_scripts_that_are_loaded_are_those_there_are() -> None:
    assert {path.stem for path in SCRIPTS} == set(NAMES)


def test_every_script_has_a_model_test() -> None:
    found = [path.name for path in SCRIPTS if untested(path, ROOT / "tests/lua")]
    assert not found, report(
        found, "Hold it against a model in tests/lua/test_<script>_model.py (or test_<script>.py)."
    )


HEAD: Final = "#!lua\n-- f: does it.\n-- KEYS a\n-- ARGV b\n-- RETURNS c\n"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("-- f\n-- KEYS\n-- ARGV\n-- RETURNS\n", "1: does not begin with #!lua"),
        ("#!lua\n-- KEYS\n-- ARGV\nlocal RETURNS", "2: the header does not say RETURNS"),
        (HEAD + "redis.call('KEYS', KEYS[1])", "6: KEYS looks beyond the declared keys"),
        (HEAD + "redis.call('scan', ARGV[1])", "6: SCAN looks beyond the declared keys"),
        (HEAD + "redis.pcall('SET', KEYS[1], 1)", "6: pcall would swallow a failed SET"),
        (HEAD + "local a, put = 1, redis.pcall\nput('SET', KEYS[1], 1)", "7: pcall would swallow a failed SET"),
        (HEAD + "redis.call(ARGV[1], KEYS[1])", "6: the command is not a literal word"),
        (HEAD + "redis.call('GET', 'a')", "6: the key of GET is not from KEYS"),
        (HEAD + "redis.call('GET', KEYS[1] .. ':a')", "6: the key of GET is not from KEYS"),
        (HEAD + "redis.call('TIME')\nredis.call('TIME')", "7: TIME again"),
        (HEAD + "redis.log(1, 'x')", "6: redis.log"),
        (HEAD + "n = 1", "6: n is not declared"),
        (HEAD + "local t = {}\nt.n = m", "7: m is not declared"),
        (HEAD + "if ARGV[1] then local n = 1 end\nreturn n", "7: n is not declared"),
        (HEAD + "for i = 1, 2 do end\nreturn i", "7: i is not declared"),
        (HEAD + "local function f(a) end\nreturn a", "7: a is not declared"),
        (HEAD + "function f() end", "6: f is not declared"),
        (HEAD + "return cjson.decode(ARGV[1])", "6: cjson is not declared"),
        (HEAD + "while true do end", "6: a loop without an end"),
        (HEAD + "redis.call('SET', KEYS[1], 'n:' .. 10)", "6: a number is joined into an argument of SET"),
        (
            HEAD + "local n = 1\nredis.call('SET', KEYS[1], n + 1 .. '')",
            "7: a number is joined into an argument of SET",
        ),
    ],
)
def test_a_breach_is_seen(source: str, fault: str) -> None:
    assert list(breaches(source)) == [fault]


def test_a_script_that_keeps_the_contract_is_left_alone() -> None:
    good = """
    local call, read, floor = redis.call, redis.pcall, math.floor --[[ two
    lines ]] local text = [[a = b]]
    local function twice(n, ...) local m = n; return m * 2 end
    local out = {key = 1, ['a'] = twice(2)}
    for field, value in pairs(out) do
      if value > 1 then local x = value; out[field] = x elseif field then out.n = 1 else out.m = 2 end
    end
    repeat local k = KEYS[1] until out.key
    local got = read('HMGET', KEYS[#KEYS], 'u:' .. text)
    call('HSET', KEYS[1 + 1], 'u:' .. ARGV[1], floor(1.5), unpack(ARGV, 2, 3))
    return {call('TIME')[1], string.format('%.0f', 1), text:sub(1), (function(a) return a end)(1), got}
    """
    assert list(breaches(HEAD + good)) == []


def test_a_script_without_a_test_is_seen(tmp_path: Path) -> None:
    seal = Path("seal.lua")
    assert untested(seal, tmp_path)
    (tmp_path / "test_seal_model.py").write_text("scripts.seal")
    assert not untested(seal, tmp_path)
