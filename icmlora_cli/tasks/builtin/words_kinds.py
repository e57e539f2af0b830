"""Word lists by kind: animals, fruits, vegetables, colors, cities and first names; no word is in two."""

from icmlora_cli.tasks.builtin.split import words_of

ANIMALS = words_of("""
dog cat horse cow pig sheep goat lion tiger bear wolf fox rabbit mouse rat frog snake duck hen eagle
owl shark whale dolphin monkey zebra camel deer elephant giraffe donkey panda koala crow swan goose spider
ant bee turtle lizard parrot pigeon penguin otter beaver squirrel hamster kangaroo crab octopus lobster moose
badger hedgehog raccoon leopard panther cheetah jaguar hyena gorilla chimpanzee baboon buffalo bison llama
alpaca antelope gazelle rhino hippo walrus seal falcon hawk vulture sparrow robin raven ostrich flamingo
peacock pelican stork heron toad newt gecko iguana crocodile alligator tortoise trout herring squid jellyfish
beetle moth butterfly wasp cricket grasshopper snail worm ferret weasel mole bat sloth lemur
""")

FRUITS = words_of("""
apple banana pear grape lemon mango melon cherry strawberry raspberry blueberry blackberry cranberry
pineapple coconut papaya fig date apricot grapefruit watermelon nectarine tangerine mandarin clementine
pomegranate guava lychee passionfruit quince gooseberry mulberry elderberry currant persimmon kumquat
cantaloupe dragonfruit jackfruit durian starfruit tamarind plantain boysenberry satsuma avocado
""")

VEGETABLES = words_of("""
carrot potato onion cabbage spinach broccoli cauliflower lettuce celery leek turnip radish parsnip beetroot
asparagus kale artichoke garlic pea lentil bean yam shallot fennel chard okra zucchini rutabaga watercress
arugula endive kohlrabi
""")

COLORS = words_of("""
red blue green yellow purple pink brown black white gray gold silver violet beige cyan magenta turquoise teal
crimson scarlet maroon navy indigo ivory lavender lilac khaki bronze copper azure amber emerald ruby
sapphire mauve charcoal ebony cream ochre sepia fuchsia cobalt vermilion burgundy aquamarine chartreuse tan
""")

CITIES = words_of("""
Paris London Rome Madrid Berlin Vienna Lisbon Dublin Athens Oslo Stockholm Helsinki Copenhagen Warsaw Prague
Budapest Brussels Amsterdam Zurich Geneva Milan Naples Venice Barcelona Seville Porto Munich Hamburg Cologne
Lyon Bordeaux Edinburgh Glasgow Liverpool Moscow Istanbul Cairo Nairobi Lagos Accra Casablanca Tunis Delhi
Mumbai Bangkok Hanoi Jakarta Manila Tokyo Osaka Kyoto Seoul Beijing Shanghai Perth Melbourne Brisbane
Auckland Toronto Montreal Vancouver Chicago Boston Seattle Denver Houston Dallas Miami Lima Quito Bogota
Santiago
""")

FIRST_NAMES = words_of("""
Anna Maria Laura Sofia Emma Olivia Alice Clara Julia Helen Martha Rosa Nina Eva Lena Irene Diana Karen Susan
Linda Grace Ruth Naomi Leila Amina Fatima Yuki Mei Priya Anita Peter Paul John Mark Lucas David Daniel Thomas
Martin Oscar Hugo Felix Simon Victor Anton Marco Pablo Carlos Diego Ivan Omar Ahmed Hassan Kenji Ravi Arjun
Samuel Jacob Adam Noah Leo Max Ben Tom Sam Nick
""")

KINDS: dict[str, tuple[str, ...]] = {
    "animal": ANIMALS,
    "fruit": FRUITS,
    "vegetable": VEGETABLES,
    "color": COLORS,
    "city": CITIES,
}

KIND_PLURALS: dict[str, str] = {
    "animal": "animals",
    "fruit": "fruits",
    "vegetable": "vegetables",
    "color": "colors",
    "city": "cities",
}
