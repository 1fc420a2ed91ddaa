r"""The fast path: captions whose tokens follow from the lexer's rules without running them.

The reference's lexer takes the longest match of some sixty rules at every place. So a token is certain where no rule
can match more of the text, nor look over the space behind it. For the words accepted here that holds:

- A run of letters is a token. A longer match would go on with a digit, a letter after an apostrophe, hyphen, slash,
  full stop, `!`, `?`, `&`, `+`, `@` ..., never with a space, and a word here has these at the places named below only.
- A full stop behind a word is a token unless the word is a lone letter or an abbreviation (they keep it, and look over
  the space for a number or the beginning of a sentence), or unless `,`, `;` or `:` follows; so those are not accepted.
- `black-and-white`, `man/woman`, `2nd`, `3-piece`, `2,000`, `5:30` are one token each: a longer match needs one more
  hyphen, slash, letter or digit.
- `'s`, `'m`, `'d`, `'ll`, `'re`, `'ve` and `n't` come off a word of two letters or more (or `I`). Words that keep an
  apostrophe have one letter before it, a letter other than these behind it, or are on a short list (`ol'`).
- Commas, marks, brackets and double quotation marks are tokens whatever is next to them, but for faces: so colons and
  semicolons are accepted at a word's end only (`:)`) and no `x` or digit behind a bracket (`(x_x)`, `(02) 555`). Marks
  in a row (`!!`) are one token that the reference keeps, and are not accepted. How full stops in a row are grouped does
  not matter, nor what is opening or closing among quotation marks: all of them are dropped.
- What is left of the rules that look over a space joins numbers (`1 1/2`, `555 1234`): a word that ends with a digit is
  not accepted before one that begins with a digit.

What may follow each kind of token was read off the automaton inside the reference's own lexer, one character behind the
token; that the kinds do not interact in longer texts is an argument from the rules, checked against the jar on all of
COCO and on random captions of these words and marks (see the tests), where no caption differed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stages.evaluate.metrics.ptb.rules import (
    ABBREVIATIONS,
    ASSIMILATIONS,
    CAPITAL_ABBREVIATIONS,
    NUMBER_ABBREVIATIONS,
    UNCAPITAL_ABBREVIATIONS,
)

#: Words remembered at most; COCO has 55,000.
_WORDS = 1_000_000
_SPLIT = {first + rest: f"{first} {rest}" for first, rest in ASSIMILATIONS.items()}
_KEEP_STOP = frozenset([*ABBREVIATIONS, *CAPITAL_ABBREVIATIONS, *UNCAPITAL_ABBREVIATIONS, *NUMBER_ABBREVIATIONS])
_KEEP_APOSTROPHE = frozenset(["d", "j", "l", "ol", "dunkin", "somethin"])
_WORD = re.compile(
    r"""
    (?P<before> "* (?: \( (?![xX0-9]) "* )? )
    (?: (?P<letters> [A-Za-z]+ (?: ,[A-Za-z]+ )* )
      | (?P<stem> I | [A-Za-z]{2,} ) (?P<suffix> ' (?: s | m | d | ll | re | ve ) )
      | (?P<negated> [A-Za-z]* [A-MO-Za-mo-z] ) n't
      | (?P<one> [A-Za-z]+ (?: -[A-Za-z]+ )+ | [A-Za-z]+ / [A-Za-z]+
               | (?: [A-Za-z]+ [0-9] | [0-9]+ [A-Za-z] ) [A-Za-z0-9]*
               | [0-9]+ (?: -[A-Za-z]+ )+ | [0-9]+ (?: [.,:] [0-9]+ )* )
    )
    (?P<after> (?: \.+ (?! [.,:;] ) | (?! \. ) ) [,.!?")]* [:;']? )
    """,
    re.VERBOSE,
)
#: Words of marks alone.
_MARKS = re.compile(r"""[.,!?"()]* [:;']? | -{1,4}""", re.VERBOSE)
_BRACKETS = {"(": " -lrb-", ")": " -rrb-"}
_ROW = re.compile(r"[!?]{2}")
_ENDS_WITH_DIGIT = "\x00"
_NUMBERS = re.compile(r"[0-9] +[0-9]")


class _Memo(dict[str, str | None]):
    """Word -> its tokens, each behind a space; None where the word is not one that this module accepts."""

    def __missing__(self, word: str) -> str | None:
        if len(self) >= _WORDS:
            self.clear()
        found = self[word] = _read(word)
        return found


_memo = _Memo()


def tokens_of(captions: Sequence[str]) -> list[str | None]:
    """The tokens of each caption joined by spaces, or None where the rules above do not decide them."""
    return [_tokens(caption) for caption in captions]


def _tokens(caption: str) -> str | None:
    try:
        found = "".join(map(_memo.__getitem__, caption.split(" ")))  # type: ignore[arg-type]  # None is the TypeError
    except TypeError:
        return None
    if _ENDS_WITH_DIGIT in found:
        if _NUMBERS.search(caption):
            return None
        found = found.replace(_ENDS_WITH_DIGIT, "")
    return found[1:]


def _read(word: str) -> str | None:
    if _ROW.search(word):
        return None
    if _MARKS.fullmatch(word):
        return "".join(_BRACKETS.get(mark, "") for mark in word)
    if word in ("&", "/"):
        return f" {word}"
    found = _WORD.fullmatch(word)
    if found is None:
        return None
    before, after = found["before"], found["after"]
    if letters := found["letters"]:
        parts = letters.lower().split(",")
        if after[:1] == "." and (len(parts[-1]) == 1 or parts[-1] in _KEEP_STOP):
            return None
        if after[:1] == "'" and parts[-1] in _KEEP_APOSTROPHE:
            return None
        core = " ".join(_SPLIT.get(part, part) for part in parts)
    elif stem := found["stem"]:
        core = f"{stem} {found['suffix']}".lower()
    elif negated := found["negated"]:
        core = f"{negated} n't".lower()
    else:
        core = found["one"].lower()
    ends = _ENDS_WITH_DIGIT if word[-1].isdigit() else ""
    return f"{' -lrb-' if '(' in before else ''} {core}{ends}{' -rrb-' * after.count(')')}"
