"""More word lists by kind, of common words only; no word is in two of them."""

from icmlora_cli.tasks.builtin.split import words_of
from icmlora_cli.tasks.builtin.words_adjectives import SHORT_ADJECTIVES
from icmlora_cli.tasks.builtin.words_kinds import ANIMALS, CITIES, COLORS, FRUITS, VEGETABLES

TOOLS = words_of("""
hammer saw screwdriver wrench pliers drill chisel axe shovel rake hoe spade ladder crowbar mallet sander
sickle scythe pickaxe trowel hacksaw wheelbarrow anvil tweezers scissors spanner hatchet lathe vise
""")
CLOTHES = words_of("""
shirt coat jacket sweater hat glove sock shoe boot scarf skirt blouse trousers jeans pajamas vest
cardigan hoodie sandal slipper sneaker mitten cap shorts raincoat swimsuit bathrobe tuxedo apron leggings
""")
BODY_PARTS = words_of("""
head neck shoulder elbow wrist finger thumb knee ankle toe ear nose mouth chin cheek forehead eyebrow
lip tongue tooth stomach hip thigh shin heel throat eyelid jaw belly
""")
VEHICLES = words_of("""
car bus truck train bicycle motorcycle airplane helicopter boat ship taxi tram scooter van ambulance
tractor canoe ferry yacht submarine limousine jeep minibus sailboat kayak airship bulldozer
""")
INSTRUMENTS = words_of("""
piano guitar violin cello flute clarinet trumpet trombone saxophone harp drum banjo ukulele oboe
bassoon tuba accordion harmonica xylophone tambourine mandolin bagpipes viola piccolo lute bongos
""")
SPORTS = words_of("""
football basketball tennis volleyball baseball hockey golf rugby swimming boxing wrestling karate judo
skiing snowboarding surfing cycling gymnastics badminton handball softball archery fencing rowing sailing
""")
FURNITURE = words_of("""
table chair sofa bed desk bookcase wardrobe cupboard armchair stool bench dresser couch nightstand
sideboard bookshelf crib hammock rocker futon bunk
""")
COUNTRIES = words_of("""
France Germany Italy Spain Portugal Greece Norway Sweden Finland Denmark Poland Hungary Austria Ireland
Turkey Egypt Kenya Nigeria Ghana Morocco India China Japan Thailand Vietnam Indonesia Australia Canada
Brazil Argentina Chile Peru Mexico Cuba Colombia Iceland
""")
JOBS = words_of("""
doctor nurse teacher baker farmer pilot sailor plumber carpenter lawyer dentist firefighter butcher
waiter barber tailor electrician mechanic journalist architect engineer accountant librarian gardener
secretary surgeon painter cashier
""")
FLOWERS = words_of("""
tulip daisy daffodil sunflower orchid carnation marigold dandelion buttercup geranium chrysanthemum
hyacinth snowdrop bluebell begonia poppy pansy gardenia magnolia hydrangea jasmine peony
""")
DRINKS = words_of("water milk tea coffee juice wine beer lemonade cocoa soda cider whiskey vodka champagne rum gin")
MEALS = words_of("""
bread cheese butter pizza pasta soup sandwich pancake burger sausage bacon omelet salad cake pie cookie
chocolate rice noodles yogurt cereal waffle muffin bagel steak ham popcorn pudding porridge
""")

BASIC: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS[:40],
    "fruit": FRUITS[:24],
    "vegetable": VEGETABLES[:22],
    "color": tuple(word for word in COLORS[:30] if word not in ("gold", "silver")),
    "city": CITIES[:45],
    "tool": TOOLS,
    "piece of clothing": CLOTHES,
    "body part": BODY_PARTS,
    "vehicle": VEHICLES,
    "musical instrument": INSTRUMENTS,
    "sport": SPORTS,
    "piece of furniture": FURNITURE,
    "country": COUNTRIES,
    "job": JOBS,
    "flower": FLOWERS,
    "drink": DRINKS,
    "food": MEALS,
}
"""The commonest words of each kind."""

PLURALS: dict[str, str] = {
    "animal": "animals",
    "fruit": "fruits",
    "vegetable": "vegetables",
    "color": "colors",
    "city": "cities",
    "tool": "tools",
    "piece of clothing": "clothes",
    "body part": "body parts",
    "vehicle": "vehicles",
    "musical instrument": "musical instruments",
    "sport": "sports",
    "piece of furniture": "furniture",
    "country": "countries",
    "job": "jobs",
    "flower": "flowers",
    "drink": "drinks",
    "food": "foods",
    "noun": "nouns",
    "verb": "verbs",
    "adjective": "adjectives",
}

PARTS_OF_SPEECH: dict[str, tuple[str, ...]] = {
    "noun": words_of("""
        river lamp chair table window house garden street bridge bottle basket pillow mirror mountain valley
        forest desert castle church museum library kitchen bathroom piano violin doctor farmer teacher city
        village candle apple banana elephant rabbit pencil hospital umbrella blanket island cheese child boy
    """),
    "verb": words_of("""
        go eat write speak sing think know bring sit arrive become begin forget understand explain
        describe believe remember decide agree complain listen learn send give take build grow choose
        hear lose teach keep enjoy invite allow avoid borrow
    """),
    "adjective": tuple(
        word
        for word in SHORT_ADJECTIVES
        if word
        in words_of("""
            big small tall narrow loud happy sad angry brave shy proud polite wise clever silly funny lucky busy lazy
            strange huge tiny hungry thirsty sleepy healthy pretty ugly lovely strong weak rich poor cheap heavy
            noisy cloudy windy rainy muddy dusty salty spicy
        """)
    ),
}
