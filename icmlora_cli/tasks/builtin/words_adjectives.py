"""Adjectives: the ones that take -er and -est, the ones that take more and most, and un- pairs."""

from icmlora_cli.tasks.builtin.split import words_of

SHORT_ADJECTIVES = words_of(
    """
    big small tall short long wide narrow deep shallow high low fast slow quick old young new hot
    cold warm cool hard soft loud quiet bright dark light heavy thick thin fat slim strong weak rich
    poor cheap clean dirty neat messy sweet sour salty spicy fresh dry wet sharp blunt smooth
    rough flat steep happy sad angry calm brave shy proud kind rude polite wise smart clever silly
    funny lucky busy lazy early late near close safe simple easy tough strange plain fair large huge
    tiny tidy noisy hungry thirsty sleepy healthy pretty ugly lovely gentle grand great good bad far
    firm tight loose mild fine pale sunny cloudy windy rainy muddy dusty
    """
)

LONG_ADJECTIVES = words_of(
    """
    careful bitter beautiful expensive difficult important interesting dangerous famous popular comfortable
    delicious generous patient powerful peaceful colorful cheerful modern ancient curious nervous
    serious selfish reliable valuable creative colorless harmless helpful careless playful painful
    successful wonderful terrible exciting boring surprising confident efficient elegant fragile
    fertile ambitious mysterious
    """
)

IRREGULAR_DEGREES: dict[str, tuple[str, str]] = {
    "good": ("better", "best"),
    "bad": ("worse", "worst"),
    "far": ("farther", "farthest"),
}

DOUBLING_ADJECTIVES = frozenset(["big", "hot", "fat", "flat", "slim", "thin", "sad", "wet"])

UN_ADJECTIVES = words_of(
    """
    happy kind fair safe able aware certain clear common even familiar fit fortunate friendly
    healthy important likely lucky natural necessary pleasant popular real reliable steady sure tidy
    usual willing wise worthy known seen heard done finished paid used wanted written broken cooked
    opened changed married armed dressed employed expected invited locked packed planned qualified
    sold solved tested touched washed spoken said believable comfortable controlled defined
    disturbed educated equal explained forgettable grateful harmed helpful interesting noticed
    painted protected reasonable related stable suitable true welcome
    """
)
