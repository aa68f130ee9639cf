"""Records that cannot be processed, from a seed: kept ones, and ones made from good events by harming them."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from schemas.control import HEADER
from tests.schemas.corpus import BAD, nested

Headers = list[tuple[str, bytes]]
_NONE: Final[Headers] = []
_CONTROLS: Final = (
    b"",
    b"{}",
    b"null",
    b"\xff",
    b'{"control":"tock"}',
    b'{"control":"forward","partition":999,"offset":1,"index":0}',
    b'{"control":"forward","partition":0,"offset":-1,"index":0}',
    b'{"control":"ruleset","id":"x","seq":"1"}',
    b"[" * 5_000,
)
_WRONG: Final[tuple[dict[str, Any], ...]] = (
    {"ts": "yesterday"},
    {"ts": None},
    {"ts": 2**80},
    {"ts": True},
    {"kind": "opera"},
    {"service": ""},
    {"service": ["a"]},
    {"tenant": {"a": 1}},
    {"weight": 0},
    {"weight": 1.5},
    {"dur_us": "12"},
    {"dur_us": 1e300},
    {"tool": "x" * 10_000},
    {"attributes": {"a": {"b": 1}}},
    {"attributes": [1]},
    {"attributes": {"": 1}},
    {"outcome": 7},
)


def poison(dice: random.Random, now: float) -> tuple[bytes | None, Headers]:
    """Value and headers of a record of about `now`. Some are right by chance, and count as such."""
    good = {"ts": int(now * 1e6), "kind": "operation", "service": f"service-{dice.randrange(40)}", "tool": "read"}
    text = json.dumps(good).encode()
    match dice.randrange(14):
        case 0 | 1 | 2:
            return dice.choice(list(BAD.values()))[0], _NONE
        case 3 | 4 | 5:
            return json.dumps(good | dice.choice(_WRONG)).encode(), _NONE
        case 6:
            return dice.randbytes(dice.randrange(1, 200)), _NONE
        case 7:
            return text[: dice.randrange(1, len(text))], _NONE
        case 8:
            return dice.choice(
                (None, b"", b"null", b"0", b'"text"', b"\x00", b"\xef\xbb\xbf" + text, b"[[" + text + b"]]")
            ), _NONE
        case 9:
            return text[:-1] + b',"x":' + nested(dice.randrange(200, 2_000)).encode() + b"}", _NONE
        case 10:
            token = dice.choice((b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b".5", b"+1", b"0x1", b"1" * 500, b"nul"))
            return text[:-1] + b',"dur_us":' + token + b"}", _NONE
        case 11:
            inside = dice.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b"\x01", b"\n", b"\\x", b"\xc0\xaf"))
            return text[:-1] + b',"method":"' + inside + b'"}', _NONE
        case 12:
            at = dice.randrange(3)
            parts = [text, text, text]
            parts[at] = json.dumps(good | dice.choice(_WRONG)).encode()
            return b"[" + b",".join(parts) + b"]", _NONE
        case _:
            controls = [(HEADER, dice.choice(_CONTROLS))]
            return dice.choice((text, b"")), controls * dice.randrange(1, 3)
