"""Regular expressions for the context of a name in a report: titles, roles, recipients, signatures, degrees, verbs."""

from __future__ import annotations

import regex

#: Roles and articles between a cue and a name, or in place of the name: "discussed with *the covering nurse* Patel".
_ROLE_WORDS = (
    r"(?:(?:the|her|his|their|our|patient'?s|patient|charge|on-?call|covering|attending|treating|primary"
    r"|resident|registered|nurse|physician|doctor"
    r"|surgeon|house|officer|intern|fellow|radiologist|technologist|sonographer|practitioner|assistant"
    r"|consultant|registrar|team|provider|caregiver"
    r"|referring|requesting|ordering|emergency|ed|icu|er|md|pa|np|rn|professor|name"
    r"|is|(?:drs?|mrs?|ms|prof)\b\.?)(?<=\.|\b)[\s:,]+)*"
)
_INFORMED = (
    r"(?:discussed|communicated|spoke|spoken|reviewed|shared|conferred|correlated|together)\s+(?:directly\s+"
    r"|by\s+phone\s+|in\s+person\s+)?(?:with|to)"
    r"|(?:reported|communicated|called|conveyed|paged|relayed|phoned|telephoned|given|sent|emailed|faxed"
    r"|addressed|delivered|described|transmitted|handed"
    r"|over)\s+to|notified|informed|paged|telephoned|alerted|contacted|emailed"
)
_SIGNATURE = (
    r"(?:electronically\s+)?(?:signed|dictated|reviewed|read|interpreted|transcribed|approved|verified"
    r"|performed|reported|prepared|authenticated|finali[sz]ed"
    r"|attested|supervised|edited|released|validated|countersigned|typed)(?:\s+(?:and|&)\s+\p{Ll}+)?\s*(?:by|:)+"
    r"|(?:preliminary|wet|final|over)[\s-]*(?:read|report)\s*(?:by|:)+"
)
_LABEL = (
    r"(?:patient|physician|radiologist|attending|resident|technologist|clinician|surgeon|nurse|provider|doctor"
    r"|fellow|author|operator|"
    r"consultant|reader|pt|sonographer)(?:\(s\))?(?:'?s)?(?:\s+name)?\s*:|names?\s*(?:is|:)|(?:cc|attn"
    r"|attention|re|to|from|copies)\s*:"
)
_RELATION = (
    r"\b(?:patient|pt|per|according\s+to|named|called|son|daughter|wife|husband|mother|father|brother|sister"
    r"|aunt|uncle|friend|partner|caregiver|nurse|resident"
    r"|by|reads?|label(?:led)?|attending|technologist|radiologist|surgeon|fellow|intern|sonographer|colleagues?"
    r"|assistant)\b[,:]?"
)
#: The first word after a strong cue is a name even if a word list contains it; the following ones only if none does.
STRONG_CUE = regex.compile(rf"(?i)\b(?:{_INFORMED}|{_SIGNATURE}|{_LABEL})[\s:]*{_ROLE_WORDS}")
TITLE = regex.compile(
    r"(?i)\b(?:(?:drs?|prof|professors?|mrs|mr|ms|messrs|mme|herr|frau|rev)\b\.?|(?<![\p{L}-])(?:doctors|doctor"
    r"|miss|sister|madam)\b)\s+(?:(?:dr|prof)\b\.?\s+)?"
)
#: After a weak cue every word of the name must be missing from the word lists.
WEAK_CUE = regex.compile(rf"(?i){_RELATION}\s+")
CREDENTIAL = regex.compile(
    r",?\s+(?:M\.?\s?D\.?|D\.?O\.?|R\.?N\.?|Ph\.?\s?D\.?|FRCR|FRCPC|FACR|MBBS|MBChB|PA-C|C?NP|APRN|CRNP|DNP|LPN"
    r"|ARNP|MPH|RT\(R\)|R\.?T\.?|DABR)(?![\p{L}\d-])"
)
#: Predicates of people and not of images: they decide whether the first word of a sentence is a name.
PERSON_PREDICATE = regex.compile(
    r"(?:\s+(?:(?:has|have|had|was|were|is)\s+(?:been\s+)?(?:notified|informed|aware|called|paged|told"
    r"|contacted|alerted|unavailable|present|in\s+agreement)"
    r"|(?:agrees?|concurs?|acknowledge[sd]?|called|notified|reviewed|states?|reports?|reported|denies|confirmed"
    r"|dictated|presented|presents|complains|complained"
    r"|requested|requests|recommends|verbalized|understood)\b|is\s+an?\s+\d)|,\s*\d{1,3}(?:\b|,)"
    r"|,?\s+an?\s+\d{1,3}[\s-]*(?:y|year))"
)
