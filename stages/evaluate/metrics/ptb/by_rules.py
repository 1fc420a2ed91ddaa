"""Penn Treebank tokenization of captions as the benchmarks do it: lower case, no punctuation. Needs no Java."""

from __future__ import annotations

from collections.abc import Sequence

from stages.evaluate.metrics.ptb.rules import (
    ABBREVIATIONS,
    ASSIMILATIONS,
    CAPITAL_ABBREVIATIONS,
    NUMBER_ABBREVIATIONS,
    RULES,
    UNCAPITAL_ABBREVIATIONS,
)

_SPLIT = {first + rest: f"{first} {rest}" for first, rest in ASSIMILATIONS.items()}
_MAY_KEEP_STOP = frozenset([*ABBREVIATIONS, *CAPITAL_ABBREVIATIONS, *UNCAPITAL_ABBREVIATIONS, *NUMBER_ABBREVIATIONS])
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


def tokenize(captions: Sequence[str]) -> list[str]:
    """Each caption's tokens joined by single spaces; ``""`` for a caption of nothing but punctuation.

    Equal to the reference when given the same captions in the same order (it looks at the next caption's first word
    to tell whether `plan B.` ends a sentence), except that a line separator inside a caption is a space: the reference
    takes it for the end of the caption and gives every later caption the words of the one before.
    """
    following = [*captions[1:], ""] if captions else []
    return [_tokens(caption, after) for caption, after in zip(captions, following, strict=True)]


def _tokens(caption: str, following: str) -> str:
    tokens = []
    words = caption.split()
    for position, word in enumerate(words, 1):
        # Nearly every word of nearly every caption needs no rule.
        plain = word.lower()
        if word[-1] == "," or (word[-1] == "." and position == len(words)):
            plain = plain[:-1]
            if word[-1] == "." and (len(plain) < 2 or plain in _MAY_KEEP_STOP):
                return _tokens_by_rules(caption, following)
        if not (plain.isascii() and plain.isalpha()):
            return _tokens_by_rules(caption, following)
        tokens.append(_SPLIT.get(plain, plain))
    return " ".join(tokens)


def _tokens_by_rules(caption: str, following: str) -> str:
    line = " ".join(caption.splitlines()).replace("\ufe0f", " ")  # the emoji selector belongs to no word
    text = f"{line}\n{' '.join(following.split(maxsplit=2)[:2])}\n"
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
        if token.replace(" ", "").lower() not in _DROPPED and token.strip("-"):
            tokens.append(_written(token))
    return " ".join(tokens)


def _written(token: str) -> str:
    """How the reference writes a token: brackets by name, currency by `$` and `#`, no space inside."""
    token = token.replace("\u00ad", "").replace(" ", "\u00a0").lower()
    straight = token.replace("’", "'").replace("\u0092", "'")
    if straight in _SUFFIXES:
        return straight
    return _REWRITTEN.get(token, token).translate(_PARENTHESES)
