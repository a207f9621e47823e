"""Words for a pronouncing dictionary: found in it, built from parts that are, or read by rule."""

import re
import unicodedata
from typing import Any

from spirit.align.aligner import Unaligned

_RULES = """
tch=CH tion=SH AH N sion=ZH AH N ture=CH ER eigh=EY augh=AO ough=AO igh=AY dge=JH ck=K ch=CH sh=SH
th=TH ph=F wh=W ng=NG qu=K W ee=IY ea=IY oo=UW ou=AW ow=OW oi=OY oy=OY ai=EY ay=EY au=AO aw=AO
ei=EY ey=IY ie=IY oa=OW ue=UW ew=UW er=ER ir=ER ur=ER ar=AA R or=AO R ce=S EH ci=S IH cy=S IY
a=AE b=B c=K d=D e=EH f=F g=G h=HH i=IH j=JH k=K l=L m=M n=N o=AA p=P q=K r=R s=S t=T u=AH v=V w=W
x=K S y=IY z=Z
"""
"""How letters are read, the longest that fit first. Rough: an alignment needs the outline of a
word, and its score will tell."""
_GRAPHEMES = dict(
    rule.split("=") for rule in re.findall(r"[a-z]+=[A-Z ]+(?=\s|$)", _RULES.replace("\n", " "))
)
_READ = re.compile("|".join(sorted(_GRAPHEMES, key=lambda letters: -len(letters))))
_DOUBLE = re.compile(r"([bdfgklmnprstvz])\1")


def pronounce(word: str, decoder: Any) -> str:
    """The key under which a decoder of pocketsphinx can say `word`; made and added if need be.

    Raises `Unaligned` for a word that cannot be read as English: with digits, or in another script.
    """
    lower = word.lower().replace("’", "'")
    for key in (lower, lower.strip(".,;:!?\"()[]{}-'"), lower.strip('.,;:!?"()[]{}-')):
        # A bracket in a key would mark an alternative or a noise.
        if key and not set(key) & set("()[]<>+") and decoder.lookup_word(key):
            return key
    letters = unicodedata.normalize("NFKD", lower)
    key = "".join(c for c in letters if c.isalnum() or c in "'-").strip("-'")
    parts = re.findall(r"[a-z]+|'s\b|[^\W_]", key)
    if not parts or not all(re.fullmatch(r"[a-z']+", part) for part in parts):
        raise Unaligned("unknown word", f"{word!r} has no pronunciation; write it in letters")
    if not decoder.lookup_word(key):
        decoder.add_word(key, " ".join(_say(part, decoder) for part in parts), False)
    return key


def _say(part: str, decoder: Any) -> str:
    """Phones of a part of a word, as a string with spaces."""
    if part == "'s":
        return "Z"
    if known := decoder.lookup_word(part):
        return str(known)
    if not re.search("[aeiouy]", part):  # spelled letter by letter
        return " ".join(str(decoder.lookup_word(letter)) for letter in part)
    for cut in range(3, len(part) - 2):  # voicemail
        first, second = (decoder.lookup_word(half) for half in (part[:cut], part[cut:]))
        if first and second:
            return f"{first} {second}"
    return read_letters(part)


def read_letters(part: str) -> str:
    """The phones of small letters by rule: `blorp` is B L AO R P."""
    once = _DOUBLE.sub(r"\1", part)
    silent = len(once) > 2 and once[-1] == "e" and once[-2] not in "aeiouy"
    return " ".join(_GRAPHEMES[match] for match in _READ.findall(once[:-1] if silent else once))
