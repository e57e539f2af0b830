"""Words that are clearly positive or clearly negative, and things to say them of."""

from icmlora_cli.tasks.builtin.split import words_of

POSITIVE = words_of(
    """
    good great happy wonderful excellent amazing lovely fantastic beautiful perfect brilliant
    delightful charming pleasant superb awesome joyful cheerful glorious terrific marvelous splendid
    fabulous magnificent outstanding exciting friendly kind helpful generous delicious tasty
    impressive inspiring enjoyable satisfying thrilling fun lovable adorable gorgeous stunning
    elegant graceful refreshing relaxing peaceful comforting encouraging hopeful grateful thankful
    proud pleased delighted thrilled glad content lucky fortunate successful winning reliable
    trustworthy honest loyal caring thoughtful warm welcoming bright sunny radiant sparkling fresh
    tremendous exceptional remarkable phenomenal incredible sensational heavenly divine blissful
    uplifting rewarding worthwhile valuable wise clever talented gifted skilled flawless ideal
    admirable praiseworthy charismatic festive harmonious sweet
    """
)

NEGATIVE = words_of(
    """
    bad terrible sad awful horrible nasty disgusting dreadful ugly poor boring dull annoying painful
    miserable gloomy depressing disappointing frustrating irritating unpleasant horrid lousy rotten
    filthy dirty cruel mean rude selfish greedy hateful hostile angry furious bitter jealous nervous
    scared frightened terrified worried anxious upset hurt lonely hopeless helpless worthless
    useless pointless broken faulty defective damaged dangerous harmful toxic poisonous deadly
    tragic disastrous catastrophic shameful disgraceful pathetic ridiculous stupid foolish careless
    clumsy lazy dishonest unfair unjust corrupt wicked evil vile vicious brutal violent grim bleak
    dismal dire atrocious appalling abysmal repulsive revolting offensive insulting tedious
    exhausting stressful tasteless bland stale sour noisy messy chaotic
    """
)

STRENGTHS = ("", "", "", "very ", "really ", "so ", "quite ", "truly ")

SUBJECTS = words_of(
    """
    food film book hotel service trip music weather show meal game party view staff room lesson
    story song coffee concert
    """
)
