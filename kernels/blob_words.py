"""The words that the rule-based planner knows."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "both": 2, "some": 3, "several": 4, "many": 6,
}  # fmt: skip
QUANTITIES = {
    ("a", "couple", "of"): 2, ("a", "pair", "of"): 2, ("a", "few"): 3, ("a", "dozen"): 12, ("a", "lot", "of"): 6,
    ("lots", "of"): 6, ("a", "group", "of"): 4, ("a", "row", "of"): 4,
}  # fmt: skip
MOST_OF_A_KIND = 20
ARTICLES = ("a", "an", "the", "another", "his", "her", "its", "their", "this", "that")
SIZES = {
    "tiny": 0.45, "small": 0.7, "little": 0.7, "big": 1.35, "large": 1.35, "huge": 1.8, "giant": 1.8, "enormous": 1.8,
}  # fmt: skip

COLOURS = _words(
    "red orange yellow green blue purple violet pink brown black white grey gray golden silver beige turquoise cyan "
    "magenta dark light bright pale striped dotted spotted"
)

RELATIONS = {
    "to the left of": "left", "on the left of": "left", "on the left side of": "left", "left of": "left",
    "to the right of": "right", "on the right of": "right", "on the right side of": "right", "right of": "right",
    "above": "above", "over": "above", "high above": "above", "hovering over": "above",
    "below": "below", "beneath": "below", "under": "below", "underneath": "below",
    "on top of": "on", "on": "on", "atop": "on", "upon": "on",
    "next to": "beside", "beside": "beside", "by": "beside", "near": "beside", "alongside": "beside",
    "close to": "beside",
    "in front of": "front", "before": "front", "behind": "behind", "at the back of": "behind",
    "inside": "inside", "inside of": "inside", "in": "inside", "between": "between",
}  # fmt: skip

_SIDES = {"left": (0.0, None), "right": (1.0, None), "top": (None, 0.0), "bottom": (None, 1.0)}
_NAMES = {
    "middle": (0.5, 0.5), "center": (0.5, 0.5), "centre": (0.5, 0.5), "foreground": (None, 0.9),
    "background": (None, 0.15), **_SIDES,
}  # fmt: skip


def _places() -> dict[str, tuple[float | None, float | None]]:
    """Where in the picture; None = anywhere."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, place in _NAMES.items():
        for start in ("in the", "on the", "at the", "to the"):
            for end in ("", " side", " edge", " half", " part"):
                found[f"{start} {name}{end}"] = place
    for vertical, y in (("top", 0.0), ("upper", 0.0), ("bottom", 1.0), ("lower", 1.0)):
        for horizontal, x in (("left", 0.0), ("right", 1.0)):
            for name in (f"{vertical} {horizontal}", f"{vertical}-{horizontal}", f"{horizontal} {vertical}"):
                for start in ("in the", "at the", "on the"):
                    for end in ("", " corner", " part"):
                        found[f"{start} {name}{end}"] = (x, y)
    found.update({"in a corner": (0.0, 1.0), "in the corner": (0.0, 1.0)})
    whole = [f"{of} the {what}" for of in ("of", "in") for what in ("picture", "image", "scene", "photo", "frame")]
    return found | {f"{words} {end}": place for words, place in found.items() for end in whole}


PLACES = _places()

OPENINGS = (
    r"(?:(?:a|an|the)\s+)?(?:[\w-]+\s+){0,2}?(?:photo|photograph|picture|painting|drawing|image|illustration|render|"
    r"rendering|sketch|view|scene|watercolour|watercolor|close-up)\s+of\s+",
    r"(?:there\s+(?:is|are)|we\s+(?:can\s+)?see|here\s+(?:is|are)|show(?:ing)?|draw)\s+",
)

FILLERS = _words(
    "is are was were stands stand standing sits sit sitting lies lie lying placed located positioned floating resting "
    "hanging perched parked that which who there right just directly also then exactly"
)

TAILS = _words("with wearing holding carrying made of without that who which whose full having for from")
"""What follows says how a thing looks, up to the next relation, place or end."""

PRONOUNS = _words("it him her them")
"""The thing that was named last."""

EMPTY_WORDS = _words("of to at for from as if or then it they he she we you i not no very so too be been has have")
"""No thing consists of these alone."""

BACKDROPS = _words(
    "forest woods snow desert room park sea ocean sky city street garden field meadow beach kitchen space jungle "
    "mountains night rain sun sunset sunrise fog air water world style studio countryside landscape bedroom "
    "moon grass ground floor lawn hill"
)
"""Places that a thing is "in" which fill the picture: the prompt draws them, they get no ellipse."""

IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "oxen": "ox", "knives": "knife", "wolves": "wolf", "leaves": "leaf",
    "loaves": "loaf", "shelves": "shelf", "calves": "calf", "elves": "elf", "thieves": "thief", "sheep": "sheep",
    "fish": "fish", "deer": "deer", "potatoes": "potato", "tomatoes": "tomato", "heroes": "hero", "horses": "horse",
    "houses": "house", "vases": "vase", "roses": "rose", "buses": "bus", "shoes": "shoe", "bees": "bee",
    "trees": "tree", "cookies": "cookie", "ties": "tie", "pies": "pie", "zombies": "zombie", "glasses": "glass",
    "axes": "axe", "noses": "nose", "cases": "case", "movies": "movie",
}  # fmt: skip
NEVER_PLURAL = _words("bus glass grass cactus octopus dress walrus class gas lens scissors trousers moss")

SHAPES = {
    "person man woman child boy girl knight robot tree tower lighthouse giraffe lamp bottle vase door ghost candle "
    "ladder cactus penguin tulip fridge rocket wizard king queen": 1.7,
    "car truck bus train boat ship sofa couch bed table bench bridge fish whale crocodile snake airplane plane horse "
    "cow elephant cloud sheep pig lion tiger log sausage road fence": 0.6,
    "dog cat fox rabbit bear house": 0.85,
}
"""Height by width of some things; all others are round."""


def proportions(noun: str) -> float:
    """Height by width of a thing."""
    return next((ratio for words, ratio in SHAPES.items() if noun in words.split()), 1.0)


def singular(noun: str) -> str:
    """One of several."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun in NEVER_PLURAL or not noun.endswith("s") or noun.endswith("ss") or len(noun) < 4:
        return noun
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    if noun.endswith(("xes", "ches", "shes", "sses", "zes")):
        return noun[:-2]
    return noun[:-1]
