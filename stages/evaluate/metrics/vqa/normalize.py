"""The official VQA evaluation's cleaning and normalisation of answers, with its tables of marks, words and spellings.

The tables are part of the metric, so their oddities stay: `somebody'd` is the one contraction mapped backwards, `its`
and `lets` are absent, and number words end at ten.
"""

from __future__ import annotations

import re


def _words(table: str) -> list[str]:
    return table.split()


PUNCTUATION = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")

ARTICLES = frozenset(["a", "an", "the"])

NUMBERS = {
    "none": "0",
    **{word: str(i) for i, word in enumerate(_words("zero one two three four five six seven eight nine ten"))},
}

_CONTRACTED = _words("""
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
    he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've
    mustn't must've needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
    they've wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all you'd
    you'd've you'll you're you've
""")

CONTRACTIONS = {
    # Without its last apostrophe or without any ("couldn'tve", "couldntve" is not known, "couldnt've" is).
    **{word.replace("'", ""): word for word in _CONTRACTED if word.count("'") == 1},
    **{
        spelling: word
        for word in _CONTRACTED
        if word.count("'") == 2
        for spelling in (word.replace("'", "", 1), word[::-1].replace("'", "", 1)[::-1])
    },
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "twas": "'twas",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}

_MARK = re.compile("[" + re.escape("".join(PUNCTUATION)) + "]")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# The official code passes a flag where `re.sub` takes a count, and so replaces at most this many full stops.
_MOST_FULL_STOPS = int(re.UNICODE)
#: Words that are replaced or left out: few answers hold one.
_CHANGED = frozenset([*NUMBERS, *CONTRACTIONS, *ARTICLES])


def clean(answer: str) -> str:
    """Every answer is processed so, even where annotators agree: newlines and tabs become spaces, ends are stripped."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalize(answer: str) -> str:
    """An answer after the official processing of punctuation, number words, articles and contractions."""
    text = answer
    if _MARK.search(answer):
        every = _COMMA_IN_NUMBER.search(answer) is not None
        for mark in PUNCTUATION:
            if mark in answer:
                # A comma between digits, or the mark beside a space, and it vanishes everywhere; else it separates.
                alone = every or f"{mark} " in answer or f" {mark}" in answer
                text = text.replace(mark, "" if alone else " ")
    if "." in text:
        text = _FULL_STOP.sub("", text, count=_MOST_FULL_STOPS)
    words = text.lower().split()
    if not _CHANGED.isdisjoint(words):
        words = [NUMBERS.get(word, word) for word in words]
        words = [CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(words)
