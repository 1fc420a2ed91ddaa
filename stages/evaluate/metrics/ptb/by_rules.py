"""The reference's tokens without Java: every rule of `rules.py` at every place, the one that sees furthest wins."""

from __future__ import annotations

import re

from stages.evaluate.metrics.ptb.rules import NEUTRAL, RULES

#: The lexer reads UTF-16: no rule of it knows what is beyond the basic plane, nor the selectors behind an emoji.
_UNKNOWN = re.compile("[\U00010000-\U0010ffff\ufe00-\ufe0f]")
_PARENTHESES = str.maketrans({"(": "-lrb-", ")": "-rrb-"})
_REWRITTEN = {
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "€": "$",
    "¤": "$",
    "\u20a0": "$",
    "\u0080": "$",
    "£": "#",
    "¢": "cents",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
}
_SUFFIXES = frozenset(["'s", "'m", "'d", "'ll", "'re", "'ve", "n't"])
#: Dropped after tokenization (pycocoevalcap's list of punctuation, and what the reference rewrites to one of it).
_DROPPED = frozenset(
    [
        *["''", "``", "--", "...", "&quot;", "&apos;", "&nbsp;", "&mdash;", "&ndash;"],
        *"'`\".?!,:-;…«»\u2018\u2019\u201b\u201c\u201d\u2039\u203a\u2013\u2014\u2015",
        *"\u0091\u0092\u0093\u0094\u0096\u0097",
    ]
)


def tokens_of(line: str) -> str:
    """The tokens of a line joined by single spaces; the line holds no line separator (`rules.one_line`)."""
    line = _UNKNOWN.sub("\ufffd", line)
    text = f"{line}\n{NEUTRAL}\n"
    tokens, position = [], 0
    while position < len(line):
        token, seen = "", position
        if not text[position].isspace():
            for rule in RULES:
                found = rule.match(text, position)
                if found and found.end() > seen:
                    seen = found.end()
                    token = found[found.lastindex or 0]
        position += len(token) or 1  # a character no rule knows separates words
        if token.replace(" ", "").lower() not in _DROPPED and (token.strip("-") or len(token) > 4):
            tokens.append(_written(token))
    return " ".join(tokens)


def _written(token: str) -> str:
    """How the reference writes a token: brackets by name, currency by `$` and `#`, no space inside."""
    token = token.replace("\u00ad", "").replace(" ", "\u00a0").lower()
    straight = token.replace("’", "'").replace("\u0092", "'")
    if straight in _SUFFIXES:
        return straight
    return _REWRITTEN.get(token, token).translate(_PARENTHESES)
