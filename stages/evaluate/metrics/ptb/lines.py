"""A caption as one line of text, and what the lexer sees behind it."""

from __future__ import annotations

#: Where the reference ends a line. It replaces only the first, so that any other gives every later caption the words of
#: the one before; U+0085 is not among them.
SEPARATORS = "\n\r\v\f\u2028\u2029"

#: What follows every caption, whatever the next one is: the lexer looks over the line's end. `plan B.` keeps its stop
#: unless a word that often begins a sentence follows, and an open `<a b="` goes on. `A` is such a word, so `plan B.` is
#: two tokens: with it, all but 5 of COCO's 616,767 captions have the tokens that the reference gives them in their own
#: order. Those 5 end in a lone letter and a full stop, which the reference keeps because of how the next caption begins
#: (before a word that begins no sentence, 17 others differ). The quotation marks and `< ` end whatever else is open:
#: no state of the lexer's automaton is left behind them.
NEUTRAL = "A \"'< A"

_TO_SPACE = dict.fromkeys(map(ord, SEPARATORS), " ")
# Half a surrogate pair cannot be written as UTF-8; the lexer knows neither it nor this replacement.
_NO_TEXT = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def one_line(caption: str) -> str:
    """The caption with a space for every line separator."""
    line = caption.translate(_TO_SPACE)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line = line.translate(_NO_TEXT)
    return line
