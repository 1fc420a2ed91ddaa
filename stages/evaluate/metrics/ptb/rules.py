"""The lexical rules of Penn Treebank tokenization, as the caption benchmarks' tokenizer applies them to one line.

Worked out by observing the reference (Stanford CoreNLP 3.4.1 with the options of pycocoevalcap 1.2) on half a
million words in several contexts and on every character of the basic multilingual plane.
"""

from __future__ import annotations

import regex

#: Where the reference ends a line. It replaces only the first, so that any other gives every later caption the words of
#: the one before; U+0085 is not among them.
SEPARATORS = "\n\r\v\f\u2028\u2029"

#: Put after every caption, whatever the next one is: the lexer looks over the line's end. `plan B.` keeps its stop
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


def _words(table: str) -> list[str]:
    return table.split()


#: Words that keep a final full stop, in any case (`st.`, `Etc.`).
ABBREVIATIONS = _words("""
    adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bhd bldg blvd brig bros calif capt cf cie
    cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext feb fla fri ft ga
    gen gov govs hon inc ind insp intl invt jan jos jr jul jun kan kans ky lieut lt ltd maj mar md messrs
    mich minn mlle mme mo mon mont mr mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof
    profs pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt supts sys tel tenn thu
    thurs treas tue tues univ va vs vt wed wis wisc wm wyo
""")
#: Only when not written in capitals (`pty.`).
UNCAPITAL_ABBREVIATIONS = _words("""
    mfg mtg ppte ppty pte ptes pty ptys
""")
#: Only when they start with a capital (`Miss.` the state, `miss.` the verb).
CAPITAL_ABBREVIATIONS = _words("""
    ark az del ill la mass miss ore pa tex wash
""")
#: Only before a number (`no. 5`).
NUMBER_ABBREVIATIONS = _words("""
    art ca fig figs no nos op pp prop
""")
#: After a lone initial's full stop, these with a capital begin a sentence: `plan B. The` ends one.
SENTENCE_STARTS = _words("""
    a about according after an as at but earlier he her here however if in it last many more now once one
    other our she since so some such that the their then there these they this we what when while yet you
""")
#: Written as one word, two tokens.
ASSIMILATIONS = {"can": "not", "gon": "na", "got": "ta", "wan": "na", "gim": "me", "lem": "me"}
#: The apostrophes; other quotation marks are only quotation marks.
APOSTROPHE = "['’\u0092]"

_L = r"(?:[\p{L}\p{Mn}\p{Mc}]\u00ad*)"  # soft hyphens inside a word belong to it
_AN = r"(?:[\p{L}\p{Mn}\p{Mc}\p{Nd}]\u00ad*)"
_SYMBOLS = (
    r"$\^~\\|<>=+%&¡-©«¬®-´¶-¹»-¿×÷\u037e\u0387\u0589\u05be\u05c0\u05c3\u05c6\u05f3\u05f4\u0606-\u060c\u061b\u061e"
    r"\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017\u201a\u201e-"
    r"\u2023\u2030-\u2038\u203b\u203e-\u2042\u2044\u2070\u2074-\u207e\u2080-\u208e\u20a4\u2100\u2101\u2103-\u2106"
    r"\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a\u213b\u2140-\u2144\u214a-\u214d"
    r"\u214f\u2155-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
    r"\uffe0\uffe1\uffe5\uffe6"
)


def _any(words: list[str]) -> str:
    return f"(?:{'|'.join(words)})"


_ABBREVIATION = (
    rf"(?:(?i:{_any(ABBREVIATIONS)})|{_any(UNCAPITAL_ABBREVIATIONS)}"
    rf"|{_any([w.capitalize() for w in UNCAPITAL_ABBREVIATIONS])}"
    rf"|{_any([f'{w[0].upper()}(?i:{w[1:]})' for w in CAPITAL_ABBREVIATIONS])})\."
)
_STARTS = _any([f"{word[0].upper()}(?i:{word[1:]})" for word in SENTENCE_STARTS])
_INITIAL = rf"{_L}\.(?!\s+{_STARTS}\s)"
_ACRONYM = rf"{_L}(?:\.{_L})+(?!{_L})\.?"
_NUMBER = r"(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)"
_HOST = r"(?:[^\s\"`'<>|!?(){},-_$]+\.)+"  # the reference's range from comma to underscore: no digits, no capitals
_PATH = r"(?:/[^\s\"<>|()]+[^\s\"<>|().,!?;:-])?"
_A = APOSTROPHE
_HYPHEN = r"[-_\u058a\u2010\u2011]"
_THING = rf"(?:(?:[dDoOlL]{_A}{_L})?{_AN}+)"
_SLASHED = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_SUFFIX = rf"{_A}(?:[sSmMdD]|(?i:ll|re|ve))"

#: Each rule's group 1 is the token, followed by what it must see behind it. At every place the rule that sees furthest
#: wins, and the first of several that see equally far.
RULES: list[regex.Pattern[str]] = [
    regex.compile(rule)
    for rule in (
        # markup and entities
        r"(<(?:!--[^>]*--|/?[A-Za-z][\w:.-]*(?: +[A-Za-z][\w:.-]*(?: *= *(?:\"[^\"<>\n]*\"|'[^'<>\n]*'|[\w#%:.-]+))?)*"
        r" */?)>)",
        r"(&(?i:amp|lt|gt|quot|apos|nbsp|mdash|ndash);|&[aeiouAEIOU](?:acute|grave|uml);|&\#\d+;)",
        # contractions: the stem, the suffix
        rf"({_L}*?(?![nN]){_L})[nN]{_A}[tT]",
        rf"([nN]{_A}[tT])(?!{_L})",
        rf"({_L}+){_SUFFIX}(?:[^\p{{L}}]|(?<=[’\u0092]\p{{L}}+)|$)",
        rf"({_SUFFIX})(?:[^\p{{L}}]|(?<=[’\u0092]\p{{L}}+)|$)",
        rf"({_A}[tT])(?i:is|was)",
        rf"(?i:{'|'.join(f'({first}){rest}' for first, rest in ASSIMILATIONS.items())})",
        rf"([yY]{_A}){_L}+",
        # words, with and without apostrophes and full stops
        rf"({_L}{_AN}*(?:[.!?]{_L}{_AN}*)*)",
        rf"({_A}n{_A}?|[lLdDjJ]{_A}|(?i:dunkin|somethin|ol){_A}|{_A}[eE]m|[A-HJ-XZn]{_A}{_L}{{2,}}|{_A}[2-9]0s|{_A}\d\d(?!\S)"
        rf"|{_L}+[aeiouyAEIOUY]{_A}[aeiouA-Z]{_L}*|{_A}(?:till?|cause)|(?i:c{_A}mon|s{_A}mores|nor{_A}easter)"
        rf"|o{_A}(?i:clock)|d{_A}y(?:ou|e|a))",
        rf"((?i:ph\.d\.)|{_ACRONYM}|{_ABBREVIATION}|{_INITIAL})",
        rf"({_any([f'(?i:{word})' for word in NUMBER_ABBREVIATIONS])}\.)\s?\d",
        rf"((?:{_THING}(?:{_HYPHEN}{_THING})*|{_L}{_AN}*(?:[.!?]{_L}{_AN}*)*)\.)[,;:]",
        # numbers, dates, fractions, telephone numbers, compounds
        rf"([-+]?{_NUMBER})",
        r"((?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4})(?!\d)",
        r"((?:\+\+?\d{1,3}[ \u00a0])?(?:\(\d{2,3}\)[ \u00a0]?|(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0])"
        r"\d{3,4}[- \u00a0]?\d{3,5})",
        rf"({_THING}(?:{_HYPHEN}{_THING})*)",
        rf"([A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_ACRONYM}|[A-Za-z0-9]+))+)",
        rf"({_SLASHED}(?:/{_SLASHED}){{1,2}})",
        r"([A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+)",
        r"((?i:c\+\+|[cf]\#)|[A-Z]+\$)",
        # addresses and handles
        r"((?:https?|ftp)://[^\s\"<>|().,!?]+(?:[.,!?]+[^\s\"<>|().,!?]+)+)",
        rf"(www\.(?:[^\s\"`'<>|.!?(){{}},]+\.)+[A-Za-z]{{2,4}}{_PATH})",
        rf"({_HOST}(?:com|net|org|edu){_PATH})(?![A-Za-z0-9])",
        r"([A-Za-z0-9][^\s\"<>|()]*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|()\[\].,;:]+)",
        r"(@[A-Za-z_][A-Za-z_0-9]*|\#[\p{L}]+)",
        # faces
        r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])(?![\p{L}\p{Nd}])",
        r"([-^x=~<>'](?:_|\.)[-^x=~<>'])",
        # quotation marks, dashes, ellipses; the rest
        r"(')[A-Za-z]\S",
        r"(''|``|[\"'`\u0091-\u0094\u2018\u2019\u201b\u201c\u201d\u2039\u203a«»])",
        r"(-+|[\u0096\u0097\u2013-\u2015]+)",
        r"(\.[ \u00a0]?\.[ \u00a0]?\.|\u2026)",
        r"([!?]+|\*+|@+|\#+|_+|<<|>>|\\[*/])",
        rf"([.,;:/()\[\]{{}}\u0080\u20a0\u20ac¢£¤¼½¾⅓⅔{_SYMBOLS}])",
    )
]
