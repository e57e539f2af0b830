"""Common countable nouns and the plurals that no rule gives."""

from icmlora_cli.tasks.builtin.split import words_of

NOUNS = words_of(
    """
    river lamp stone chair table window door house garden street bridge road car train boat plane
    book paper pen pencil letter box bag cup plate bowl spoon fork knife bottle glass clock watch
    phone camera radio screen button key lock rope chain wheel engine hammer nail saw brush broom
    bucket basket blanket pillow bed mirror carpet curtain shelf drawer desk lake mountain hill
    valley forest tree leaf flower branch root seed cloud star planet island beach desert field farm
    barn fence gate tower castle church school office shop market museum library hospital hotel
    kitchen bathroom roof wall floor stair tunnel path coat shirt hat shoe boot sock glove scarf
    belt ring crown coin ticket map flag drum guitar piano violin trumpet song story poem picture
    statue doctor nurse teacher baker farmer pilot sailor soldier king queen child man woman person
    friend neighbor baby city country village party game ball kite puzzle doll toy race prize medal
    candle match torch ladder tent cake loaf sandwich pie egg bench bus taxi bicycle truck ship
    anchor sail wave storm shadow dream idea plan question answer lesson exam word number page
    chapter tooth foot thief wife life hero echo photo dish dress witch class boss address lady
    berry diary factory army duty body half calf ox hook cave sofa
    """
)

IRREGULAR_PLURALS: dict[str, str] = {
    "knife": "knives",
    "shelf": "shelves",
    "leaf": "leaves",
    "loaf": "loaves",
    "thief": "thieves",
    "wife": "wives",
    "life": "lives",
    "half": "halves",
    "calf": "calves",
    "wolf": "wolves",
    "scarf": "scarves",
    "child": "children",
    "man": "men",
    "woman": "women",
    "person": "people",
    "tooth": "teeth",
    "foot": "feet",
    "goose": "geese",
    "mouse": "mice",
    "ox": "oxen",
    "hero": "heroes",
    "echo": "echoes",
    "mango": "mangoes",
    "buffalo": "buffaloes",
    "sheep": "sheep",
    "deer": "deer",
    "moose": "moose",
    "bison": "bison",
    "squid": "squid",
    "trout": "trout",
    "herring": "herring",
    "jellyfish": "jellyfish",
}

EVENTS = words_of(
    """
    exam party dentist meeting concert wedding picnic lecture match interview holiday dinner lunch
    workshop festival parade race rehearsal trip flight delivery appointment class seminar fair game
    reunion checkup haircut training deadline birthday barbecue auction election inspection ceremony
    repair sale visit audit
    """
)
