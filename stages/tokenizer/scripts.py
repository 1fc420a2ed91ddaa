"""Detects the Unicode script of a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COMMON = "Common"
"""Script of a text without letters: digits, punctuation, emoji."""

# Values of the Script property in the Unicode Character Database, as RE2 knows them.
_KNOWN = """
Latin Han Hiragana Katakana Hangul Cyrillic Arabic Devanagari Greek Hebrew Thai Adlam Ahom Armenian Balinese Bamum
Bassa_Vah Batak Bengali Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian
Caucasian_Albanian Chakma Cham Cherokee Coptic Cuneiform Cypriot Deseret Dogra Duployan Egyptian_Hieroglyphs Elbasan
Ethiopic Georgian Glagolitic Gothic Grantha Gujarati Gunjala_Gondi Gurmukhi Hanifi_Rohingya Hanunoo Imperial_Aramaic
Javanese Kaithi Kannada Kayah_Li Kharoshthi Khmer Khojki Khudawadi Lao Lepcha Limbu Linear_A Linear_B Lisu Lycian
Lydian Malayalam Mandaic Manichaean Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Miao Modi Mongolian Mro
Multani Myanmar Newa New_Tai_Lue Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki Old_Hungarian Old_Italic
Old_Persian Old_Turkic Oriya Osage Osmanya Pahawh_Hmong Pau_Cin_Hau Phags_Pa Phoenician Rejang Runic Samaritan
Saurashtra Sharada Shavian Siddham Sinhala Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa
Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangut Telugu Thaana Tibetan Tifinagh Tirhuta Ugaritic Vai Wancho Warang_Citi
Yezidi Yi Zanabazar_Square
"""
_NAMES = [COMMON, *_KNOWN.split()]
_UNKNOWN = 255


class ScriptDetector:
    """Detects the main script of texts; looks each character up once."""

    names = _NAMES
    """Names of scripts by number."""

    def __init__(self) -> None:
        self._scripts = np.full(0x110000, _UNKNOWN, np.uint8)  # by code point

    def detect(self, texts: Sequence[str]) -> np.ndarray:
        """Script of each text, uint8 [texts], numbers into `names`: that of most of its letters, `COMMON` for none.

        In a text of several scripts (Japanese), each letter counts for its own script.
        """
        joined = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        self._look_up(joined)
        letters = np.zeros((len(texts), len(_NAMES)), np.int32)
        owner = np.repeat(np.arange(len(texts)), np.fromiter(map(len, texts), np.int64, count=len(texts)))
        flat = np.bincount(owner * len(_NAMES) + self._scripts[joined], minlength=letters.size)
        letters += flat.reshape(letters.shape)
        letters[:, 0] = 0
        return letters.argmax(axis=1).astype(np.uint8)

    def _look_up(self, characters: np.ndarray) -> None:
        present = np.flatnonzero(np.bincount(characters, minlength=1))
        new = present[self._scripts[present] == _UNKNOWN]
        if not len(new):
            return
        self._scripts[new] = 0
        strings = pa.array([chr(c) if not 0xD800 <= c < 0xE000 else " " for c in new])
        for number, name in enumerate(_NAMES[1:], 1):
            matches = pc.match_substring_regex(strings, rf"\p{{{name}}}").to_numpy(zero_copy_only=False)
            self._scripts[new[matches]] = number
