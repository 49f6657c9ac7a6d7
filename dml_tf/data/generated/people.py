"""People as a few attributes: what they wear, what they carry, how they look.

Colours are red, green and blue from 0 to 1.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

COLOURS = {
    "black": (0.09, 0.09, 0.10), "charcoal": (0.22, 0.22, 0.24), "grey": (0.50, 0.50, 0.51),
    "silver": (0.70, 0.71, 0.72), "white": (0.92, 0.92, 0.90), "cream": (0.88, 0.82, 0.68),
    "navy": (0.11, 0.14, 0.30), "blue": (0.16, 0.30, 0.62), "sky": (0.49, 0.67, 0.86),
    "denim": (0.27, 0.36, 0.50), "pale denim": (0.53, 0.62, 0.72), "teal": (0.10, 0.45, 0.45),
    "green": (0.16, 0.45, 0.22), "olive": (0.38, 0.38, 0.20), "yellow": (0.90, 0.77, 0.22),
    "orange": (0.88, 0.46, 0.14), "red": (0.76, 0.13, 0.14), "maroon": (0.38, 0.08, 0.13),
    "pink": (0.90, 0.56, 0.64), "purple": (0.42, 0.23, 0.52), "brown": (0.36, 0.24, 0.16),
    "khaki": (0.62, 0.54, 0.38),
}  # fmt: skip
SKIN = {
    "pale": (0.92, 0.76, 0.66), "light": (0.85, 0.66, 0.53), "tan": (0.73, 0.52, 0.38),
    "brown": (0.55, 0.37, 0.26), "dark": (0.36, 0.24, 0.17),
}  # fmt: skip
HAIR = {
    "black": (0.07, 0.06, 0.06), "brown": (0.25, 0.16, 0.10), "chestnut": (0.42, 0.24, 0.13),
    "blond": (0.74, 0.60, 0.36), "grey": (0.58, 0.57, 0.56),
}  # fmt: skip

# The values of each attribute and how often they occur: as in life, many wear black and white.
_UPPER_COLOURS = {
    "black": 6, "white": 6, "grey": 3, "charcoal": 2, "navy": 3, "blue": 3, "sky": 2, "red": 3,
    "pink": 2, "green": 1.5, "olive": 1, "yellow": 1.5, "orange": 1, "maroon": 1, "purple": 1,
    "teal": 1, "brown": 1, "cream": 2, "khaki": 1, "silver": 1,
}  # fmt: skip
_LOWER_COLOURS = {
    "black": 6, "charcoal": 2, "navy": 3, "denim": 5, "pale denim": 3, "grey": 2, "khaki": 2,
    "white": 1, "brown": 1, "olive": 1, "maroon": 0.5, "cream": 1,
}  # fmt: skip
_CHOICES: dict[str, dict] = {
    "build": {0.86: 2, 1.0: 4, 1.14: 3, 1.3: 1},
    "skin": dict.fromkeys(SKIN, 1) | {"light": 3},
    "hair_colour": {"black": 5, "brown": 3, "chestnut": 1, "blond": 1, "grey": 1},
    "hair": {"short": 5, "long": 3, "bun": 1.5, "bald": 0.5},
    "hat": {"": 10, "cap": 1.5, "beanie": 0.7, "sun hat": 0.8},
    "hat_colour": dict.fromkeys(("black", "white", "red", "navy", "cream"), 1),
    "upper": {"short sleeves": 5, "long sleeves": 3, "open jacket": 2, "coat": 1},
    "upper_colour": _UPPER_COLOURS,
    "second_colour": {"white": 4, "black": 3, "red": 1, "navy": 1, "yellow": 1, "grey": 1},
    "pattern": {"plain": 6, "hoops": 1.5, "stripes": 1, "checks": 1, "print": 2, "yoke": 1},
    "lower": {"trousers": 6, "shorts": 3, "skirt": 1.5, "dress": 1},
    "lower_colour": _LOWER_COLOURS,
    "shoes": {"black": 3, "white": 3, "brown": 1, "red": 0.7, "blue": 0.5},
    "bag": {"": 5, "backpack": 3, "shoulder bag": 2, "carrier": 1.5},
    "bag_colour": {
        "black": 3, "red": 1, "blue": 1, "khaki": 1, "brown": 1, "pink": 0.7, "white": 0.7,
    },
    "bag_side": {-1: 1, 1: 1},
}  # fmt: skip


_FAMILY = 4  # people who resemble each other
_CHANGES = 4  # attributes drawn again for each lookalike
_LEAST_DIFFERENCES = 2  # visible attributes in which any two people differ


@dataclass(frozen=True)
class Person:
    """What one person looks like: one value of each attribute."""

    build: float
    skin: str
    hair_colour: str
    hair: str
    hat: str
    hat_colour: str
    upper: str
    upper_colour: str
    second_colour: str
    pattern: str
    lower: str
    lower_colour: str
    shoes: str
    bag: str
    bag_colour: str
    bag_side: int


def random_person(rng: np.random.Generator) -> Person:
    """Draws each attribute of a person by itself."""
    return Person(**{field.name: _choose(rng, field.name) for field in fields(Person)})


def random_people(count: int, rng: np.random.Generator) -> list[Person]:
    """Draws people, family by family of lookalikes; any two can be told apart."""
    people, seen = [], []
    while len(people) < count:
        place = len(people) % _FAMILY
        person = _lookalike(people[-place], rng) if place else random_person(rng)
        look = appearance(person)
        differences = (sum(a != b for a, b in zip(look, o, strict=True)) for o in seen)
        if all(number >= _LEAST_DIFFERENCES for number in differences):
            people.append(person)
            seen.append(look)
    return people


def appearance(person: Person) -> tuple:
    """The attributes that pictures show: no hat colour without a hat, and so on."""
    plain = person.pattern == "plain" or person.second_colour == person.upper_colour
    open_front = person.upper in ("open jacket", "coat")
    unseen = {
        "hat_colour": not person.hat,
        "bag_colour": not person.bag,
        "bag_side": person.bag in ("", "backpack"),
        "hair_colour": person.hair == "bald",
        "pattern": plain,
        "second_colour": plain and not open_front,
        "lower_colour": person.lower == "dress",
    }
    return tuple("" if unseen.get(f.name) else getattr(person, f.name) for f in fields(Person))


def _lookalike(person: Person, rng: np.random.Generator) -> Person:
    names = rng.choice([field.name for field in fields(Person)], _CHANGES, replace=False)
    return replace(person, **{name: _choose(rng, name, getattr(person, name)) for name in names})


def _choose(rng: np.random.Generator, name: str, other_than=None):
    choices = {value: p for value, p in _CHOICES[name].items() if value != other_than}
    odds = np.array(list(choices.values()), float)
    return list(choices)[rng.choice(len(choices), p=odds / odds.sum())]
