"""Invented report sentences with names that nothing announces: no title, no role, no verb of informing, no label.

Two halves that share no name and no sentence: `tuning`, which the choice of words, weights and rules was made against,
and `held_out`, which it was not. Everybody is invented; given and family names are common ones of forty languages and
regions, written down by hand and taken from none of the lists that the recogniser uses. In one case in twelve the
family name is also an English word ("Young"). The forms are those that occur: ordinary capitals, small letters,
capitals throughout, headings, family name first, initials, lists.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Literal

from planted_reports import Sentence

NamesHalf = Literal["tuning", "held_out"]

#: Language or region: (given names, family names).
NAMES: dict[NamesHalf, dict[str, tuple[str, str]]] = {
    "tuning": {
        "english": ("Geoffrey Hazel Kimberly Dustin", "Thornbury Hargreaves Whitaker Simmons Ashworth"),
        "irish and scottish": ("Aisling Eoin Morag", "Gallagher McKenzie O'Dowd Buchanan"),
        "welsh": ("Gwyneth Rhys", "Llewellyn Prosser"),
        "german": ("Ulrike Matthias", "Schäfer Kaltenbach Riedel Vogelsang"),
        "dutch": ("Maarten Saskia", "Hoekstra Verhoeven Dijkstra"),
        "nordic": ("Ingrid Torbjørn Päivi", "Halvorsen Bergström Virtanen Jakobsen"),
        "french": ("Thibault Solène", "Beaumont Marchand Rousselle"),
        "italian": ("Giuseppe Chiara", "Esposito Bertolini Ricciardi"),
        "spanish": ("Consuelo Rodrigo Xiomara", "Gutiérrez Echeverría Zamora Quiñones"),
        "portuguese": ("Thiago Rosângela", "Carvalho Nascimento Figueiredo"),
        "polish": ("Katarzyna Przemysław", "Lewandowski Zawadzka Jankowiak"),
        "czech and slovak": ("Zdeněk Radka", "Dvořáková Hruška Kováč"),
        "hungarian": ("László Ildikó", "Nagy Fekete Szilágyi"),
        "romanian": ("Mihaela Vasile", "Dumitrescu Ungureanu"),
        "southern slavic": ("Goran Snežana", "Petrović Babić Dimitrov"),
        "greek": ("Stavros Eleni", "Papadopoulos Karagiannis"),
        "russian and ukrainian": ("Oksana Gennady", "Kuznetsova Shevchenko Bondarenko"),
        "baltic": ("Vytautas Ilze", "Kazlauskas Ozoliņš"),
        "turkish": ("Gülşen Mehmet", "Çelik Kaya Aydoğan"),
        "arabic": ("Khaled Noura", "Al-Harbi Mansour Abdelrahman"),
        "persian": ("Shahram Niloofar", "Hosseini Rostami"),
        "hebrew": ("Moshe Avigail", "Rosenfeld Mizrahi"),
        "hindi and marathi": ("Sunita Ashok", "Agarwal Kulkarni Chauhan"),
        "tamil and telugu": ("Karthik Padmavathi", "Subramanian Reddy Ramanathan"),
        "bengali and punjabi": ("Sourav Gurpreet", "Mukherjee Sandhu"),
        "urdu": ("Zainab Imran", "Qureshi Chaudhry"),
        "chinese": ("Xiaoling Jianguo", "Huang Zhao Cheung"),
        "vietnamese": ("Thuy Duc", "Pham Huynh"),
        "korean": ("Ji-Hoon Eun-Ji", "Kwon Jeong"),
        "japanese": ("Kenji Sachiko", "Nakamura Hayashi Fujimoto"),
        "filipino": ("Maricel Jejomar", "Magsaysay Dimaculangan"),
        "thai and indonesian": ("Somchai Wulandari", "Srisai Hartono"),
        "igbo and hausa": ("Chinedu Aminu", "Nwosu Abubakar"),
        "yoruba": ("Folasade", "Ogunleye Akinwale"),
        "akan": ("Kwabena Abena", "Boateng Asante"),
        "east african": ("Wanjiku Otieno", "Kamau Mwangi"),
        "ethiopian": ("Tigist Dawit", "Tesfaye Bekele"),
        "southern african": ("Sibusiso Lerato", "Mokoena Ndlovu"),
        "polynesian": ("Tevita Kalani", "Tuilagi Faleolo"),
        "english words": ("Dawn Iris", "Rivers Stone Marsh Bell Cook Snow"),
    },
    "held_out": {
        "english": ("Rosalind Clifford Tiffany Brandon", "Featherstone Hollingworth Cartwright Jenkins Pickering"),
        "irish and scottish": ("Siobhán Declan Fergus", "Doherty Macpherson O'Halloran Drummond"),
        "welsh": ("Angharad Gethin", "Gwilliam Pritchard"),
        "german": ("Annegret Burkhard", "Grünwald Hoffmeister Weidner Scholz"),
        "dutch": ("Pieter Marijke", "Vermeulen Zijlstra Kuipers"),
        "nordic": ("Sigrid Anders Jukka", "Kristiansen Nyström Korhonen Rasmussen"),
        "french": ("Guillaume Mathilde", "Desrosiers Lemaire Chevallier"),
        "italian": ("Salvatore Fiorella", "Lombardi Castellano Marchetti"),
        "spanish": ("Rocío Ignacio Yesenia", "Villalobos Arriaga Ibáñez Sepúlveda"),
        "portuguese": ("Leandro Graciete", "Albuquerque Teixeira Guimarães"),
        "polish": ("Małgorzata Grzegorz", "Kaczmarek Szymańska Piotrowski"),
        "czech and slovak": ("Jaroslav Lenka", "Procházka Černá Horňák"),
        "hungarian": ("Gergely Orsolya", "Molnár Takács Vörös"),
        "romanian": ("Gheorghe Anca", "Stănescu Moldoveanu"),
        "southern slavic": ("Dragan Jasmina", "Jovanović Kovačević Georgieva"),
        "greek": ("Panagiotis Despina", "Theodorakis Konstantinou"),
        "russian and ukrainian": ("Valentina Arkady", "Sokolova Tkachenko Zaitsev"),
        "baltic": ("Jurgita Andris", "Petrauskas Bērziņš"),
        "turkish": ("Emine Serkan", "Yıldırım Demirtaş Koç"),
        "arabic": ("Hassan Maryam", "Al-Qahtani Khalil Benabdallah"),
        "persian": ("Behrouz Parisa", "Karimi Tehrani"),
        "hebrew": ("Shlomo Rivka", "Goldberg Peretz"),
        "hindi and marathi": ("Meenakshi Vikram", "Bhattacharya Joshi Tripathi"),
        "tamil and telugu": ("Senthil Saraswathi", "Natarajan Venkatesh Palaniappan"),
        "bengali and punjabi": ("Debashish Harjit", "Chatterjee Dhaliwal"),
        "urdu": ("Asma Faisal", "Siddiqui Bukhari"),
        "chinese": ("Weiming Yanhong", "Liang Zheng Kwok"),
        "vietnamese": ("Hanh Minh", "Vuong Dang"),
        "korean": ("Min-Soo Hye-Jin", "Choi Hwang"),
        "japanese": ("Takeshi Yuriko", "Watanabe Kobayashi Matsumoto"),
        "filipino": ("Rowena Bienvenido", "Pangilinan Macaraeg"),
        "thai and indonesian": ("Siriporn Budi", "Wongsuwan Setiawan"),
        "igbo and hausa": ("Obinna Hauwa", "Eze Danjuma"),
        "yoruba": ("Babatunde", "Adebayo Oyelaran"),
        "akan": ("Yaw Akosua", "Amoah Opoku"),
        "east african": ("Njeri Kipchoge", "Odhiambo Wambui"),
        "ethiopian": ("Selamawit Girma", "Haile Gebremedhin"),
        "southern african": ("Thabo Nomsa", "Mthembu Nkosi"),
        "polynesian": ("Sione Leilani", "Tupou Kealamakia"),
        "english words": ("Joy Ivy", "Banks Field Cross Waters Price Frost"),
    },
}
#: Form of the name: sentences. Slots: {full} {family} {given} {family2} {initial}; a form's capitals are those around.
FORMS: dict[NamesHalf, dict[str, tuple[str, ...]]] = {
    "tuning": {
        "running text": (
            "The drain was repositioned for {family} before this film.",
            "Rotation of {full} limits the left base.",
            "A previous radiograph shows {family} with a smaller effusion.",
            "No pneumothorax, which is what {given} was worried about.",
        ),
        "start of a sentence": (
            "{full} could not stand for the lateral view.",
            "{family} moved during the exposure. Lungs are clear.",
            "Clear lungs. {given} coughed throughout.",
        ),
        "small letters": (
            "portable film of {family} shows low volumes",
            "tube was advanced and {full} extubated later",
            "no change since {given} went home",
        ),
        "capitals": (
            "LEFT EFFUSION IN {family} IS SMALLER.",
            "{full} MOVED DURING THE EXPOSURE.",
            "NO CHANGE SINCE {given} WENT HOME.",
        ),
        "heading": ("Portable Chest Film Of {full} In The Morning", "Small Effusion, {family}, Left Base"),
        "family name first": ("{family}, {given}. Heart size is normal.", "Lungs clear ({family}, {given})."),
        "initials": ("The film of {initial} {family} is rotated.", "Heart size is normal. {family} {initial}"),
        "list": ("Films of {family}, {family2} and {given} lie in one folder.",),
    },
    "held_out": {
        "running text": (
            "Compared to last week, the pleural fluid in {family} has been drained.",
            "Motion of {full} blurs the diaphragm.",
            "The catheter that {given} pulled out was replaced.",
            "On the lateral view {family} is turned to the left.",
        ),
        "start of a sentence": (
            "{full} was unable to hold still.",
            "{given} has had this nodule for years.",
            "Unchanged lines. {family} remains intubated.",
        ),
        "small letters": (
            "low lung volumes, {family} did not breathe in",
            "effusion drained, {full} feels better",
            "film repeated because {given} moved",
        ),
        "capitals": (
            "SUPINE VIEW OF {family} SHOWS NO FREE AIR.",
            "STABLE NODULE, {full} IS WITHOUT SYMPTOMS.",
            "FILM REPEATED BECAUSE {given} MOVED.",
        ),
        "heading": ("Follow-Up Radiograph For {full} After Drainage", "Stable Nodule Of {family} In The Right Apex"),
        "family name first": ("No acute findings. {family}, {given}", "Supine film [{family}, {given}], two views."),
        "initials": ("Both views of {initial} {family} are adequate.", "No free air. {initial} {family}"),
        "list": ("The images of {given}, {family} and {family2} were mixed up.",),
    },
}


def uncued(half: NamesHalf, repeats: int, seed: int = 0) -> Iterator[Sentence]:
    """Every sentence `repeats` times for each language or region; the kind of a secret is the form of its sentence."""
    draw = random.Random(f"uncued/{half}/{seed}")
    for _ in range(repeats):
        for given, family in NAMES[half].values():
            for form, templates in FORMS[half].items():
                yield _filled(draw.choice(templates), form, given.split(), family.split(), draw)


def _filled(template: str, form: str, given: list[str], family: list[str], draw: random.Random) -> Sentence:
    first, last, second = draw.choice(given), draw.choice(family), draw.choice(family)
    slots = {
        "full": (f"{first} {last}", (first, last)),
        "family": (last, (last,)),
        "given": (first, (first,)),
        "family2": (second, (second,)),
        # A letter alone tells nothing.
        "initial": (draw.choice((f"{first[0]}.", first[0])), ()),
    }
    change = {"small letters": str.lower, "capitals": str.upper}.get(form, str)
    text: list[str] = []
    secrets: list[tuple[str, tuple[str, ...]]] = []
    carrier: list[str] = []
    for literal, slot, _, _ in string.Formatter().parse(template):
        text.append(literal)
        carrier.extend(word for part in literal.split() if (word := part.strip(".,()[]")))
        if slot:
            shown, parts = slots[slot]
            text.append(change(shown))
            if parts:
                secrets.append((form, tuple(change(part) for part in parts)))
    return Sentence("".join(text), tuple(secrets), tuple(carrier))
