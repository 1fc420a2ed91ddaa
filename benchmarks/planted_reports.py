"""Invented report sentences with identifiers planted in them, and clean ones full of words that look like names.

Two sets that share no name and no sentence: `tuning`, which the rules were written against, and `held_out`, which
they were not. `hard` is what rules of this kind cannot know: names without a capital, a title or anything around them.
Everybody here is invented; every name is made of common parts of its language.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Half = Literal["tuning", "held_out", "hard"]

#: Given names and family names of many origins, as they are written in English reports.
GIVEN = {
    "tuning": "Margaret Harold Chidi Siew-Ling Jürgen Wanda Dmitri Fatima Rajesh Mei Hiroshi Kwame Guadalupe Seán"
    " Thi Anneliese Björn Yusuf Leilani Tamar Zoltán Ines Marek Aroha Priya Omar Grace Luc Nomvula Ioana",
    "held_out": "Beatrice Walter Ngozi Wei-Lin Käthe Zbigniew Svetlana Ahmed Lakshmi Xin Akiko Kofi Esperanza Niamh"
    " Quang Helga Åsa Leyla Keanu Eitan Piroska Joaquim Vaclav Wiremu Anjali Khadija Hope Étienne Thandiwe Bogdan",
}
FAMILY = {
    "tuning": "Fontaine Pembroke Okonkwo Ng Müller Kowalczyk Volkov Haddad Krishnamurthy Zhang Tanaka Mensah Hernández"
    " O'Sullivan Nguyen Schreiber Lindqvist Özdemir Kealoha Ben-David Szabó Ferreira Novák Ngata Patel"
    " al-Rashid MacAllister Dubois Dlamini Popescu Young Brown van der Berg de la Cruz St. James D'Angelo",
    "held_out": "Whitcombe Lathrop Adeyemi Wu Böhm Wojciechowski Morozova El-Sayed Venkataraman Chen Yamamoto Owusu"
    " Villanueva O'Rourke Tran Zimmermann Söderström Yılmaz Kahananui Bar-Lev Horváth Monteiro Svoboda"
    " Parata Deshmukh bin-Salman McTavish Lefèvre Khumalo Ionescu Long White van den Heuvel da Silva St. Clair De'Ath",
}
#: Who they are, and what was planted: {full} {reversed} {family} {given} {initial} {date} {mrn} {phone} {address}
#: {email} {hospital} {time} {age} {url} {ssn} {year}.
PLANTED = {
    "tuning": (
        "Discussed with Dr. {family} at {time}.",
        "These findings were communicated to Dr. {full} by telephone on {date}.",
        "Mr. {family} has a 12 mm nodule in the right upper lobe.",
        "Mrs. {full} was rescanned because of motion.",
        "{full} is a 54-year-old man with cough.",
        "Compared with the study of {date}, the effusion is smaller.",
        "Comparison: {date}. No new consolidation.",
        "Stable since {date}; no pneumothorax.",
        "The patient, {full}, moved during the exposure.",
        "Findings were called to nurse {family} in the ICU.",
        "Reviewed and agreed by {full}, MD.",
        "Electronically signed by {reversed} on {date} {time}.",
        "Dictated by: {initial} {family}, M.D.",
        "Image labelled {reversed}, record {mrn}.",
        "MRN: {mrn}. Heart size is normal.",
        "Medical record number {mrn} was checked against the request.",
        "Accession {mrn} supersedes the earlier report.",
        "Please call {phone} with any questions.",
        "Radiology desk, extension {ext}, was informed.",
        "Contact: {email}.",
        "The patient lives at {address} and was sent home.",
        "Transferred from {hospital} with a chest tube in place.",
        "Outside film from {hospital}, dated {date}, was reviewed.",
        "A {age}-year-old woman after a fall.",
        "{age} yo male with dyspnea.",
        "SSN {ssn} was given by the family.",
        "Images are stored at {url} for review.",
        "dr {lower} was told about the new infiltrate.",
        "DISCUSSED WITH DR {upper} AT {time}.",
        "PATIENT {upperfull} HAS A SMALL LEFT EFFUSION.",
        "Nodule first seen in {year}, now 9 mm.",
        "Post lobectomy in {month_year}, without recurrence.",
        "{family} was notified of the pneumothorax.",
        "According to {given}, the pain began a week ago.",
        "{given}'s heart is enlarged.",
        "Line placed by {full} under fluoroscopy.",
        "Drs. {family} and {family2} were present.",
        "Her son {given} was at the bedside.",
        "Wet read by {initial} {family} at {time}: no acute process.",
        "As discussed with {full}, follow-up CT is advised.",
        "cc: {full}",
        "PA and lateral views of {full} show clear lungs.",
    ),
    "held_out": (
        "I spoke to Dr. {family} about the catheter tip at {time}.",
        "Results were relayed to {full}, RN, at {time} on {date}.",
        "Ms. {family} shows interval improvement of the basal opacities.",
        "Professor {full} reviewed the images.",
        "{full}, 61, was referred for staging.",
        "In comparison to {date} the cardiac silhouette has grown.",
        "Prior radiograph ({date}) showed no such lesion.",
        "Unchanged from {date} and {date2}.",
        "Portable film of {full} at {time} shows the tube in place.",
        "Critical result phoned to charge nurse {family}.",
        "Final report approved by {full}, DO.",
        "Signed: {reversed}, {date}",
        "Transcribed by {given} {family} for the attending.",
        "Label on film reads {reversed} {mrn}.",
        "Patient ID {mrn}. Lungs are clear.",
        "Hospital number {mrn} does not match the request form.",
        "Acc# {mrn} was read together with this one.",
        "Callback number is {phone} until the evening.",
        "Pager {ext} did not answer.",
        "Write to {email} for the full data set.",
        "Home address {address} confirmed by the relatives.",
        "Sent by {hospital} for a second opinion.",
        "CT performed at {hospital} on {date} is not available.",
        "This {age} year old lady has a hip fracture.",
        "Aged {age}, with progressive weakness.",
        "Social security number {ssn} appears on the film.",
        "The study can be opened under {url} from inside.",
        "mrs {lower} could not hold her breath.",
        "FINDINGS REPORTED TO DR {upper} ON {date}.",
        "MR. {upper} HAS BEEN EXTUBATED.",
        "Operated in {year} for a sarcoma.",
        "Last seen in {month_year} with a smaller mass.",
        "{family} agrees with the interpretation.",
        "Per {given}, no trauma is recalled.",
        "{family}'s lungs remain hyperinflated.",
        "The drain was inserted by {full} this morning.",
        "Doctors {family} and {family2} have been informed.",
        "His wife {given} reports night sweats.",
        "Preliminary read: {initial} {family}, {time}.",
        "Findings were reviewed together with {full} before discharge.",
        "Referring physician: {full}",
        "Ultrasound of {full} was limited by bowel gas.",
    ),
}
GIVEN["hard"], FAMILY["hard"] = GIVEN["held_out"], FAMILY["held_out"]
PLANTED["hard"] = (
    "spoke with {lower} about the drain.",
    "COMPARED WITH THE FILM OF {upper}.",
    "{upper} TOLERATED THE PROCEDURE WELL.",
    "{family}. Right pleural effusion.",
    "{given} tolerated the procedure well.",
    "seen with {lower} on rounds.",
    "{upperfull} WAS RESCANNED.",
    "Small Effusion In {family} As Before With Stable Nodes.",
    "the {lower} family asks for a second opinion.",
    "Parkinson agrees with {family}.",
    "Film of {upper} reviewed.",
    "{reversed}: no change.",
)
#: Nothing here is about anybody: every word must stay.
CLEAN = {
    "tuning": (
        "Foley catheter and Swan-Ganz catheter are in standard position.",
        "Kerley B lines are seen at both bases.",
        "Changes may represent early Paget disease.",
        "Disc space narrowing at L4-L5 and L5-S1; T12 is wedged.",
        "A mass of 2.5 x 3.1 cm abuts the ligament of Treitz.",
        "Dobhoff tube ends below the diaphragm, Hickman line in the right atrium.",
        "Findings suggest Crohn's disease rather than Whipple disease.",
        "Bosniak II cyst; BI-RADS 3; LI-RADS 4.",
        "There is a Hill-Sachs lesion and a Bankart fracture.",
        "Gleason 7 disease; Ann Arbor stage III lymphoma.",
        "Bochdalek and Morgagni hernias are excluded.",
        "The Cobb angle measures 25 degrees; Schmorl nodes are present.",
        "Gram-negative pneumonia such as Klebsiella or Pseudomonas should be considered.",
        "Doppler shows flow; Valsalva increased it.",
        "MRI with gadolinium (Gadovist) on a Siemens scanner, T1 and T2 weighted, TE of 20 ms.",
        "Port-A-Cath ends in the SVC. ET tube 4.5 cm above the carina.",
        "Hounsfield values of 40 to 60 HU; SUV of 3.2.",
        "Ratio 1/2, grade 3/4, 5/5 strength, segment 8/9.",
        "No acute fracture. Heart size is normal. Mild COPD.",
        "The long head of the biceps is intact; brown tumor is unlikely.",
        "White matter lesions of Fazekas grade 2; Virchow-Robin spaces.",
        "Chiari I malformation with a syrinx from C2 to T4.",
        "A 45-year-old man with chest pain for 2 days.",
        "Right IJ line ends at the cavoatrial junction; Left PICC was removed.",
        "Comparison: None. Technique: Axial images through the Chest.",
        "Colles fracture of the left wrist and Bennett fracture of the thumb.",
        "CONSISTENT WITH LEFT LOWER LOBE PNEUMONIA. NO PNEUMOTHORAX.",
        "Cardiomegaly. Aortic stent graft. Sternotomy wires. Unremarkable bones.",
        "Impression: Normal Chest X-ray. Recommendation: Follow-up in 6-12 weeks.",
        "Window 400-1500, 120 kVp, 200 mAs, 2000 ml of water.",
        "Hampton hump and Westermark sign are absent.",
        "Possible Lyme disease in a patient from the emergency department.",
        "Fluid in Morrison's pouch and the pouch of Douglas.",
        "Pneumocystis jirovecii or COVID-19 pneumonia; SARS-CoV-2 test pending.",
        "Sclerotic focus, probably a bone island, 1.5 by 0.8 cm.",
        "Salter-Harris II fracture; Lisfranc joint is aligned.",
        "Gastric sleeve after Roux-en-Y bypass and Nissen fundoplication.",
        "IMPRESSION: 1. No change. 2. Small hiatal hernia.",
    ),
    "held_out": (
        "Sengstaken-Blakemore tube and Shiley tracheostomy are unchanged.",
        "Garland triad of nodes in sarcoidosis; Lofgren syndrome is possible.",
        "The march of the contrast may be delayed.",
        "Spondylolisthesis at L5/S1, grade 2 of Meyerding.",
        "Lesion of 14 x 9 x 7 mm near the circle of Willis.",
        "Blake drain in the left pleural space, Broviac catheter removed.",
        "Consider Wegener granulomatosis, Goodpasture syndrome or Churg-Strauss.",
        "Lung-RADS 2, TI-RADS 4, PI-RADS 5; Fleischner follow-up applies.",
        "Segond fracture with Pellegrini-Stieda calcification.",
        "Child-Pugh B cirrhosis; Barcelona stage C carcinoma.",
        "A Killian-Jamieson diverticulum and a Zenker diverticulum.",
        "Baker cyst in the popliteal fossa; Tarlov cysts in the sacrum.",
        "Aspergillus and Nocardia are considered; Mycobacterium is less likely.",
        "Power Doppler shows the Murphy sign to be negative.",
        "Philips system, Omnipaque contrast, 80 kVp, delay of 70 s.",
        "Quinton catheter through the left subclavian vein ends in the right atrium.",
        "Agatston score of 120; Z-score of -2.1; FDG uptake with SUV 8.",
        "Oxygen saturation 98%, pH 7.35/7.45, ratio 3/5 of predicted.",
        "Minimal scarring. Lungs are otherwise clear. Mild DJD.",
        "Black pleura sign, hair-on-end skull, hand and foot are normal.",
        "Dawson fingers point to multiple sclerosis; Meckel cave is free.",
        "Dandy-Walker malformation and a Blake pouch cyst.",
        "An 82-year-old woman with hip pain for 3 weeks.",
        "Bilateral Hilar enlargement. Right Ventricle is dilated.",
        "History: Fever. Procedure: Portable AP view of the Abdomen.",
        "Monteggia fracture-dislocation; Galeazzi injury is excluded.",
        "MULTIPLE RIGHT RIB FRACTURES WITH SMALL HEMOTHORAX.",
        "Nasogastric tube. Median sternotomy. Mitral annuloplasty ring.",
        "Conclusion: Stable Disease. Advice: Repeat CT in 3-6 months.",
        "Level 40, width 350-400 HU, 5000 units of heparin, 1800 mg.",
        "Luftsichel sign and the Golden S sign suggest collapse.",
        "Rheumatoid lung or Caplan syndrome in a coal worker.",
        "Gerota fascia is thickened; fluid in the space of Retzius.",
        "Influenza A, RSV and Legionella antigens are negative.",
        "Well-defined lucency, presumably a Brodie abscess, 0.9 by 0.6 cm.",
        "Denis Burst fracture of L1; Chance fracture is excluded.",
        "After a Whipple procedure and Billroth II reconstruction.",
        "CONCLUSION: 1. Unchanged. 2. Large hiatus hernia.",
    ),
}
CLEAN["hard"] = ("No pneumothorax.",)
_ADDRESSES = {
    "tuning": (
        "12 Oak Tree Lane, Springfield, IL 62704",
        "4400 W. Birchwood Ave Apt 3B, Riverton",
        "P.O. Box 1187, Lakeview",
        "7 Castle Street, Milford SW1A 2BQ",
    ),
    "held_out": (
        "881 Maple Hollow Road, Brookhaven, TX 75001",
        "29 N. Juniper Blvd. Suite 210, Eastham",
        "PO Box 92, Harmon Falls",
        "15 Abbey Gardens, Thornbury BS35 1HQ",
    ),
}
_HOSPITALS = {
    "tuning": ("Mercy General Hospital", "St. Brigid's Medical Center", "Lakeside Clinic", "Hospital San Rafael"),
    "held_out": ("Good Shepherd Hospital", "Northgate Health Center", "Royal Elmwood Infirmary", "Klinikum Neustadt"),
}
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True)
class Sentence:
    """One sentence and what must be gone from it: (kind, the parts none of which may survive)."""

    text: str
    secrets: tuple[tuple[str, tuple[str, ...]], ...]
    carrier: tuple[str, ...]
    """Words of the sentence around the identifiers, which should stay."""


def planted(half: Half, repeats: int, seed: int = 0) -> Iterator[Sentence]:
    """Every template `repeats` times, with identifiers drawn anew."""
    draw = random.Random(f"{half}/{seed}")
    for _ in range(repeats):
        for template in PLANTED[half]:
            yield _filled(template, half, draw)


def _filled(template: str, half: Half, draw: random.Random) -> Sentence:
    import string

    text: list[str] = []
    secrets: list[tuple[str, tuple[str, ...]]] = []
    carrier: list[str] = []
    for literal, slot, _, _ in string.Formatter().parse(template):
        text.append(literal)
        carrier.extend(word.strip(".,:;()'") for word in literal.split())
        if slot:
            kind, shown, parts = _identifier(slot, half, draw)
            text.append(shown)
            secrets.append((kind, parts))
    skipped = {"", "s", "Dr", "Drs", "Mr", "Mrs", "Ms", "MD", "M.D", "DO", "RN", "DR", "MR", "dr", "mrs", "Professor"}
    labels = {"MRN", "Medical", "record", "number", "Accession", "Acc#", "Hospital", "Patient", "ID", "SSN", "Social"}
    labels |= {"security", "extension", "Pager", "Doctors", "nurse", "Aged", "year", "yo", "old", "Signed", "Suite"}
    return Sentence("".join(text), tuple(secrets), tuple(w for w in carrier if w not in skipped | labels))


def _identifier(slot: str, half: Half, draw: random.Random) -> tuple[str, str, tuple[str, ...]]:
    """(kind, as written, parts that must all go)."""
    given, family = draw.choice(GIVEN[half].split()), draw.choice(_families(half))
    parts = tuple(part for part in family.replace(".", "").split() if part[0].isupper() or "-" in part)
    if slot in ("full", "reversed", "upperfull", "initial"):
        letter = f"{given[0]}."
        shown = {
            "full": draw.choice((f"{given} {family}", f"{given} {draw.choice('ABJKMS')}. {family}")),
            "reversed": f"{family.upper()}, {given.upper()}",
            "upperfull": f"{given} {family}".upper(),
            "initial": letter,
        }[slot]
        if slot == "initial":
            return "initial", shown, ()
        return "name", shown, tuple(p.upper() if slot != "full" else p for p in (given, *parts))
    if slot in ("family", "family2", "lower", "upper"):
        change = {"lower": str.lower, "upper": str.upper}.get(slot, str)
        return "name", change(family), tuple(change(part) for part in parts)
    if slot == "given":
        return "name", given, (given,)
    if slot in ("date", "date2", "month_year", "year"):
        return ("date", *_date(slot, draw))
    if slot == "time":
        hour, minute = draw.randint(1, 12), draw.randint(0, 59)
        shown = draw.choice((f"{hour}:{minute:02d} PM", f"{hour:02d}:{minute:02d}", f"{hour}:{minute:02d} a.m."))
        return "time", shown, (f"{minute:02d}",)
    if slot == "mrn":
        digits = str(draw.randint(10**6, 10**7 - 1))
        shown = draw.choice(
            (
                digits,
                f"MR-{digits}",
                f"{digits[:3]}-{digits[3:]}",
                f"A{digits}",
                f"{digits[:2]}-{digits[2:5]}-{digits[5:]}",
            )
        )
        return "record", shown, (shown, digits[3:])
    if slot == "phone":
        a, b, c = draw.randint(201, 989), draw.randint(200, 999), draw.randint(1000, 9999)
        forms = (f"{a}-{b}-{c}", f"({a}) {b}-{c}", f"+1 {a} {b} {c}", f"{a}.{b}.{c}", f"+44 20 7{b} {c}", f"{b}-{c}")
        return "phone", draw.choice(forms), (str(c),)
    if slot == "ext":
        digits = str(draw.randint(4000, 98000))
        return "phone", draw.choice((digits, f"#{digits}", f"x{digits}")), (digits,)
    if slot == "ssn":
        number = f"{draw.randint(100, 899)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}"
        return "record", number, (number, number[-4:])
    if slot == "email":
        shown = f"{given[0].lower()}.{draw.choice(('desk', 'reads', 'ward7'))}@{draw.choice(('clinic', 'rad'))}.example"
        return "email", shown, (shown.split("@")[0], "example")
    if slot == "url":
        host = draw.choice(("pacs", "viewer"))
        return "url", f"https://{host}.example/study?id={draw.randint(1000, 9999)}", (host,)
    if slot == "age":
        age = str(draw.randint(90, 104))
        return "age", age, (age,)
    shown = draw.choice((_ADDRESSES if slot == "address" else _HOSPITALS)[half])
    common = {"Hospital", "Medical", "Center", "Clinic", "Health", "Infirmary", "Klinikum", "General", "Royal", "Good"}
    words = (word.strip(".,'") for word in shown.split())
    kept = tuple(w for w in words if len(w) > 2 and w not in common and (slot == "hospital" or w[0].isupper()))
    short = {"Ave", "Apt", "Box", "Suite", "Blvd", "Road", "Lane", "Street", "Gardens"}
    return slot, shown, tuple(word for word in kept if word not in short)


def _families(half: Half) -> list[str]:
    """Family names, those of several words whole."""
    words, names, held = FAMILY[half].split(), [], ""
    for word in words:
        held = f"{held} {word}".strip()
        if word in ("van", "der", "den", "de", "la", "da", "St."):
            continue
        names.append(held)
        held = ""
    return names


def _date(slot: str, draw: random.Random) -> tuple[str, tuple[str, ...]]:
    year, month, day = draw.randint(1998, 2024), draw.randint(1, 12), draw.randint(1, 28)
    name = _MONTHS[month - 1]
    if slot == "year":
        return str(year), (str(year),)
    if slot == "month_year":
        return draw.choice((f"{name} {year}", f"{name[:3]} {year}", f"{month:02d}/{year}", f"{name}, {year}")), (
            str(year),
        )
    whole = {
        f"{month}/{day}/{year}": (str(year),),
        f"{month:02d}/{day:02d}/{year % 100:02d}": (f"{month:02d}/{day:02d}", f"{day:02d}/{year % 100:02d}"),
        f"{year}-{month:02d}-{day:02d}": (str(year),),
        f"{day}.{month}.{year}": (str(year),),
        f"{name} {day}, {year}": (name, str(year)),
        f"{day} {name[:3]} {year}": (str(year),),
        f"{day}-{name[:3].upper()}-{year}": (str(year),),
        f"the {day}th of {name}": (name,),
        f"{name[:3]}. {day}": (f"{name[:3]}. {day}",),
        f"{year}{month:02d}{day:02d}": (str(year),),
        f"{month}/{day}": (f"{month}/{day}",),
    }
    return draw.choice(list(whole.items()))
