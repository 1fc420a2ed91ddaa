"""Regular expressions for identifiers other than names: dates, record numbers, phones, addresses, institutions.

Each rule is (label, pattern). Rules are applied in the order given here, the more specific first.
"""

from __future__ import annotations

import regex

_MONTH = (
    r"(?:(?-i:May|MAY|March|MARCH|Mar|MAR)|jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:19|20)\d{2}"
_STREET = (
    r"(?:street|st|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|dr|court|ct|place|pl|way|square|sq|terrace"
    r"|highway|hwy|parkway|pkwy|circle|close|crescent"
    r"|gardens|grove|row|mews|trail|route)"
)
_RECORD = (
    r"(?:mrn|mr\s*(?:no\.?|number|#)|med(?:ical)?\.?\s+rec(?:ord)?\.?(?:\s*(?:number|no\.?|num|\#))?"
    r"|record(?:\s*(?:number|no\.?|id|\#))?|patient\s*(?:id|no\.?|number|\#)"
    r"|hospital\s*(?:number|no\.?|id|\#)|unit\s*(?:number|no\.?|\#)|acc(?:ession)?\.?(?:\s*(?:number|no\.?"
    r"|\#))?|account(?:\s*(?:number|no\.?|\#))?"
    r"|encounter(?:\s*(?:number|no\.?|id))?|visit\s*(?:number|no\.?|id)|ssn|social\s+security(?:\s*(?:number"
    r"|no\.?))?|nhs(?:\s*(?:number|no\.?))?|case\s*(?:number|no\.?|\#|id)"
    r"|study\s*(?:number|no\.?|id)|order\s*(?:number|no\.?|id)|requisition(?:\s*(?:number|no\.?))?"
    r"|chart(?:\s*(?:number|no\.?|\#))|policy(?:\s*(?:number|no\.?))|insurance\s*(?:number|no\.?|id)"
    r"|serial(?:\s*(?:number|no\.?))?|s/n|licen[cs]e(?:\s*(?:number|no\.?))|dob|date\s+of\s+birth)"
)
#: Not followed by a unit, which would make a number a measurement.
_UNIT = (
    r"(?!\s*-?\s*(?:mm|cm|ml|mg|hu|mgy|mas|kvp?|ms|s|sec|cc|units?|x|%|hz|g|kg|msv|h|hours?|weeks?|days?"
    r"|months?|years?|degrees?|ct|images?)\b)"
)

_Rules = tuple[tuple[str, regex.Pattern[str]], ...]


def _compiled(*rules: tuple[str, str]) -> _Rules:
    return tuple((label, regex.compile(pattern)) for label, pattern in rules)


#: Applied before the identifiers that the file itself states, which would otherwise leave half an address behind.
IDENTIFIERS = _compiled(
    ("email", r"(?i)[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    ("url", r"(?i)\b(?:https?|ftp)://\S+|\bwww\.\S+"),
    (
        "record",
        rf"(?i)\b{_RECORD}\s*(?:(?:is|was|of)\s+"
        rf"|[:#.=]\s*)*(?=[\w-]*\d)(?:[A-Z]{{1,5}}[- ]?)?\d[A-Z0-9]*(?:[-/ ]?[A-Z]?\d[A-Z0-9]*)*(?:-[A-Z0-9]+)*",
    ),
    ("record", r"\b\d{3}-\d{2}-\d{4}\b"),
    (
        "phone",
        r"(?i)\b(?:tel(?:ephone)?|phone|fax|pager|beeper|cell|mobile|ext(?:ension)?"
        r"|x(?=\d{4}))\b[.:#\s]*(?:(?:is|no|number|at)\b[.:#\s]*)?[x#]?\+?\d[\d\s().-]{2,}\d",
    ),
    ("phone", r"(?<![\w.])\+\d{1,3}(?:[\s.-]?\(?\d{1,5}\)?){2,5}"),
    ("phone", r"(?<!\d)(?:\+?\d{1,3}[\s.-])?(?:\(\d{3}\)\s?|\d{3}[\s.-])\d{3}[\s.-]\d{4}\b"),
    (
        "phone",
        rf"(?i)(?<!\b(?:window|width|level|range|of|between|from)\s)(?<![\d.-])[2-9]\d{{2}}-\d{{4}}\b(?![-\d]){_UNIT}",
    ),
    ("phone", r"(?i)(?<=\b(?:call|dial|ring|phone|at|paged?)\s)[x#]?\d{4,6}\b(?!\s*(?:mm|cm|ml|h|hours?|hrs)\b)"),
    ("phone", r"(?i)(?<![\w])x\d{4,5}\b"),
    (
        "date",
        r"\b(?:19|20)\d{2}[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])(?:[T ]\d{1,2}:\d{2}(?::\d{2})?)?\b",
    ),
    ("date", r"(?<![\d.])(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?![\d.]*\d)"),
    ("date", r"\b\d{1,2}([-/.])\d{1,2}\1(?:19|20)?\d{2}\b(?!\s*(?:mm|cm)\b)"),
    (
        "date",
        rf"(?i)\b{_DAY}(?:st|nd|rd|th)?[\s./-]+(?:of\s+)?{_MONTH}(?:[,\s./-]+(?:{_YEAR}\b|['’]?\d{{2}}\b(?![:.]\d)))?",
    ),
    (
        "date",
        rf"(?i)\b{_MONTH}[\s/-]*{_DAY}(?:st|nd|rd|th)?\b(?!\s*(?:mm|cm|ml|mg|small|new"
        rf"|nodules?)\b)(?:,?\s+(?:{_YEAR}|['’]\d{{2}}\b))?",
    ),
    ("date", rf"(?i)\b{_MONTH},?(?:\s+of)?[\s/-]+(?:{_YEAR}|['’]\d{{2}})\b"),
    ("date", rf"\b(?:0?[1-9]|1[0-2])[/.-]{_YEAR}\b"),
    (
        "date",
        r"(?i)(?<=\b(?:on|dated|from|since|of|until|to|date\]\s+and|study|film|exam|prior|ct|mri|cxr|radiograph"
        r"|comparison|compared\s+with|with|versus|vs|date|before|after)[\s:(]{1,2})(?:0?[1-9]"
        r"|1[0-2])/(?:0?[1-9]|[12]\d|3[01])\b(?!\s*/)(?!\s*(?:of|strength|power|views?|mm|cm|positive|negative"
        r"|predicted)\b)",
    ),
    ("date", r"(?<=[(\[])(?:0?[1-9]|1[0-2])/(?:0?[1-9]|[12]\d|3[01])(?=[)\]])"),
    (
        "date",
        rf"(?i)(?<=\b(?:in|since|from|of|until|year|during|dated|before|after|by|late|early|mid|to|and|study"
        rf"|film|exam|ct|mri|prior|on|spring|summer|fall|autumn|winter|circa|around)[\s:(-]{{1,2}}){_YEAR}\b{_UNIT}",
    ),
    ("date", rf"(?<=\(){_YEAR}(?=[),;])"),
    (
        "time",
        r"(?i)\b(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?(?:\s*[ap]\.?m\b\.?)?|\b(?:1[0-2]"
        r"|0?[1-9])(?:\.\d{2})?\s*[ap]\.?m\b\.?|(?<=\bat\s)(?:[01]\d|2[0-3])[0-5]\d\s*(?:h|hrs?|hours?)\b",
    ),
    ("age", r"(?i)\b(?:9\d|1[0-2]\d)(?=[\s-]*(?:years?|yrs?\b|y/?o\b|y\.o\.|[MF]\b)(?!\s*(?:ago|earlier|survival)))"),
    ("age", r"(?i)(?<=\b(?:age|aged|age\s+of|age:)\s)(?:9\d|1[0-2]\d)\b"),
    (
        "address",
        rf"\b\d{{1,5}}[A-Z]?\s+(?:[NSEW]{{1,2}}\.?\s+)?(?:\p{{Lu}}[\p{{L}}'’-]*"
        rf"\s+){{1,4}}(?:(?i:{_STREET})\b\.?)(?:\s+[NSEW]{{1,2}}\b)?"
        r"(?:,?\s+(?:(?i:apt|apartment|suite|ste|unit|flat|floor"
        r"|room)\.?\s*\#?\w+))?(?:,\s*\p{Lu}[\p{L}'’-]*(?:\s+\p{Lu}\p{Ll}[\p{L}'’-]*)*)?"
        r"(?:,?\s+\p{Lu}{2}\s+\d{5}(?:-\d{4})?|,?\s+\p{Lu}{1,2}\d[\p{Lu}\d]?\s\d\p{Lu}{2}\b)?",
    ),
    ("address", r"(?i)\bp\.?\s?o\.?\s+box\s+\d+(?-i:,\s*\p{Lu}[\p{L}'’-]*(?:\s+\p{Lu}\p{L}*)*)?"),
    ("address", r"\b\p{Lu}\p{L}*(?:straße|strasse|str\.|weg|gasse|platz|allee|gatan|vägen|straat|laan)\s+\d+\w?\b"),
    (
        "address",
        r"\b(?:(?:\d{1,4},?\s+)?(?:rue|avenue|boulevard|calle|avenida|via|viale|rua|ulica|ul\.)\s+(?:(?:de|du"
        r"|des|la|las|los|del|della|do|da)\s+)*\p{Lu}\p{L}+(?:\s+\p{Lu}\p{L}+)?(?:,?\s+\d{1,4}\b)?)",
    ),
    ("address", r"\b\p{Lu}{2}\s+\d{5}(?:-\d{4})?\b"),
    ("address", r"\b\p{Lu}{1,2}\d[\p{Lu}\d]?\s\d(?!MM|CM|ML|HU|MG|KG|ST|ND|RD|TH)[A-Z]{2}\b"),
    ("record", r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b\d(?:\.\d+){4,}\b"),
)
_INSTITUTION = (
    r"(?:hospitals?|clinics?|med(?:ical)?\s+cent(?:er|re)|health\s+(?:system|cent(?:er|re)|care|services)"
    r"|healthcare|infirmary|hospice|nursing\s+home|university"
    r"|sanatorium|polyclinic|surgery\s+cent(?:er|re)|cancer\s+cent(?:er|re)|rehabilitation\s+cent(?:er|re)"
    r"|imaging\s+cent(?:er|re))"
)
_PROPER = r"(?:\p{Lu}[\p{L}'’]*(?:-\p{Lu}?\p{L}+)*|St\.|Mt\.)"
#: Applied after the identifiers that the file itself states.
INSTITUTIONS_AND_CODES = _compiled(
    (
        "hospital",
        rf"(?<![\p{{L}}\d])(?!(?:The|Outside|Our|This|At|From|Another|Transferred|Patient|Admitted|Her|His"
        rf"|In)\b)(?:{_PROPER}\s+(?:of\s+|and\s+|&\s+)?){{1,5}}(?i:{_INSTITUTION})\b(?:\s+(?:of|in)\s+{_PROPER})?",
    ),
    (
        "hospital",
        rf"\b(?:Hospital|Klinikum|Krankenhaus|Clínica|Ospedale|Hôpital|CHU|Hospital\s+Universitario"
        rf"|Universitätsklinikum|Ziekenhuis|Szpital)\s+(?:(?:de|del|di|da|la|el|am|im|der"
        rf"|St\.)\s+)*{_PROPER}(?:\s+{_PROPER})?",
    ),
    ("number", r"\b[A-Z]{1,4}-?\d{5,}\b"),
    ("number", r"(?<![\d.,-])\d{2,4}-\d{2,4}-\d{2,7}(?![\d-])"),
    ("number", r"(?<![\d.])\d{6,}(?![\d.]*\d)"),
)
