"""Common verbs, the past tenses that no rule gives, and the verbs that double their last letter."""

from icmlora_cli.tasks.builtin.split import words_of

REGULAR_VERBS = words_of("""
walk talk play jump look watch listen help call work cook clean wash paint open close start finish laugh
smile cry dance climb visit stay wait answer ask knock push pull carry lift turn touch point count
measure add join follow chase race hunt fish row sail float land park load pack fill empty pour mix bake
boil fry roast chop slice peel taste chew order serve share offer borrow return save waste collect
gather sort stack fold iron mend repair fix design invent create copy print type record film study train
practice improve check test mark grade pass fail cheat guess decide agree argue complain explain
describe discuss mention promise refuse accept invite greet thank praise blame warn scare annoy bother
worry hope wish believe remember wonder notice recognize enjoy like love hate need want own belong
happen appear vanish arrive enter cross hurry rest relax yawn snore breathe cough sneeze kick kiss hug
shave dress comb brush stretch exercise jog stop plan drop clap nod shop skip slip step trip wrap grab
tie die try marry bury deny reply rely tidy rescue protect guard attack escape crash melt rain snow
""")

IRREGULAR_PAST: dict[str, str] = dict(
    pair.split(":")
    for pair in words_of("""
    go:went come:came eat:ate drink:drank sleep:slept run:ran swim:swam fly:flew drive:drove
    ride:rode write:wrote read:read speak:spoke say:said tell:told see:saw hear:heard feel:felt
    think:thought know:knew find:found lose:lost win:won buy:bought sell:sold pay:paid send:sent
    give:gave take:took bring:brought make:made do:did have:had get:got keep:kept hold:held
    leave:left meet:met sit:sat stand:stood fall:fell rise:rose throw:threw catch:caught break:broke
    cut:cut put:put hit:hit shut:shut build:built teach:taught begin:began forget:forgot
    choose:chose sing:sang ring:rang draw:drew grow:grew blow:blew wear:wore steal:stole wake:woke
    freeze:froze hide:hid bite:bit dig:dug feed:fed fight:fought shake:shook sweep:swept swing:swung
    spend:spent lend:lent understand:understood become:became lead:led shoot:shot
    """)
)

VERBS = REGULAR_VERBS + tuple(IRREGULAR_PAST)

DOUBLING_VERBS = frozenset(
    words_of("""
    chop jog stop plan drop clap nod shop skip slip step trip wrap grab hug run swim win get sit cut
    put hit shut begin forget dig
    """)
)
