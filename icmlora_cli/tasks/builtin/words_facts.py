"""Pairs of words that everyone agrees on: countries, animals, opposites, people, colors, groups."""


def _table(text: str) -> dict[str, str]:
    rows = (entry.split(":") for line in text.strip().splitlines() for entry in line.strip().split(", "))
    return {left.strip(): right.strip() for left, right in rows}


CAPITALS = _table("""
France:Paris, Germany:Berlin, Italy:Rome, Spain:Madrid, Portugal:Lisbon, Greece:Athens, Norway:Oslo, Sweden:Stockholm
Finland:Helsinki, Denmark:Copenhagen, Poland:Warsaw, Hungary:Budapest, Austria:Vienna, Ireland:Dublin, Turkey:Ankara
Egypt:Cairo, Kenya:Nairobi, Ghana:Accra, Morocco:Rabat, India:New Delhi, China:Beijing, Japan:Tokyo, Thailand:Bangkok
Vietnam:Hanoi, Philippines:Manila, Australia:Canberra, Canada:Ottawa, Brazil:Brasilia, Argentina:Buenos Aires
Chile:Santiago, Peru:Lima, Cuba:Havana, Colombia:Bogota, Iceland:Reykjavik, Russia:Moscow, Ukraine:Kyiv
Romania:Bucharest, Bulgaria:Sofia, Serbia:Belgrade, Croatia:Zagreb, Belgium:Brussels, Switzerland:Bern, Iran:Tehran
Iraq:Baghdad, Syria:Damascus, Lebanon:Beirut, Jordan:Amman, Ethiopia:Addis Ababa, Senegal:Dakar, Tunisia:Tunis
Algeria:Algiers, Nepal:Kathmandu, Pakistan:Islamabad, Bangladesh:Dhaka, Venezuela:Caracas, Ecuador:Quito
Uruguay:Montevideo, Jamaica:Kingston, Latvia:Riga, Estonia:Tallinn, Lithuania:Vilnius, Slovenia:Ljubljana
Slovakia:Bratislava, Albania:Tirana, Cyprus:Nicosia, Malta:Valletta, Uganda:Kampala, Angola:Luanda, Mongolia:Ulaanbaatar
""")
LANGUAGES_SPOKEN = _table("""
France:French, Germany:German, Italy:Italian, Spain:Spanish, Portugal:Portuguese, Greece:Greek, Norway:Norwegian
Sweden:Swedish, Denmark:Danish, Poland:Polish, Hungary:Hungarian, Austria:German, Turkey:Turkish
Egypt:Arabic, China:Chinese, Japan:Japanese, Thailand:Thai, Vietnam:Vietnamese, Australia:English, Brazil:Portuguese
Argentina:Spanish, Chile:Spanish, Peru:Spanish, Cuba:Spanish, Colombia:Spanish, Mexico:Spanish, Iceland:Icelandic
Russia:Russian, Romania:Romanian, Bulgaria:Bulgarian, Croatia:Croatian, Serbia:Serbian, Jordan:Arabic, Syria:Arabic
Tunisia:Arabic, England:English, Venezuela:Spanish, Ecuador:Spanish, Uruguay:Spanish, Latvia:Latvian
Estonia:Estonian, Lithuania:Lithuanian, Slovenia:Slovene, Slovakia:Slovak, Albania:Albanian, Jamaica:English
Angola:Portuguese, Mongolia:Mongolian, Lebanon:Arabic, Iran:Persian
""")
CONTINENTS = _table("""
France:Europe, Germany:Europe, Italy:Europe, Spain:Europe, Portugal:Europe, Greece:Europe, Norway:Europe, Sweden:Europe
Finland:Europe, Denmark:Europe, Poland:Europe, Hungary:Europe, Austria:Europe, Ireland:Europe, Romania:Europe
Kenya:Africa, Nigeria:Africa, Ghana:Africa, Morocco:Africa, Ethiopia:Africa, Senegal:Africa, Tunisia:Africa
Algeria:Africa, Uganda:Africa, Angola:Africa, Egypt:Africa, Tanzania:Africa, Zambia:Africa, Mali:Africa
India:Asia, China:Asia, Japan:Asia, Thailand:Asia, Vietnam:Asia, Philippines:Asia, Nepal:Asia, Pakistan:Asia
Bangladesh:Asia, Mongolia:Asia, Iran:Asia, Iraq:Asia, Syria:Asia, Jordan:Asia, Malaysia:Asia
Canada:North America, Mexico:North America, Cuba:North America, Jamaica:North America
Brazil:South America, Argentina:South America, Chile:South America, Peru:South America, Colombia:South America
Venezuela:South America, Ecuador:South America, Uruguay:South America, Bolivia:South America, Paraguay:South America
""")
PEOPLE = _table("""
France:French, Germany:German, Italy:Italian, Spain:Spanish, Portugal:Portuguese, Greece:Greek, Norway:Norwegian
Sweden:Swedish, Finland:Finnish, Denmark:Danish, Poland:Polish, Hungary:Hungarian, Austria:Austrian, Ireland:Irish
Turkey:Turkish, Egypt:Egyptian, Kenya:Kenyan, Nigeria:Nigerian, Morocco:Moroccan, India:Indian, China:Chinese
Japan:Japanese, Thailand:Thai, Vietnam:Vietnamese, Australia:Australian, Canada:Canadian, Brazil:Brazilian
Chile:Chilean, Peru:Peruvian, Mexico:Mexican, Cuba:Cuban, Colombia:Colombian, Iceland:Icelandic, Russia:Russian
Ukraine:Ukrainian, Romania:Romanian, Bulgaria:Bulgarian, Serbia:Serbian, Belgium:Belgian, Switzerland:Swiss
Iran:Iranian, Iraq:Iraqi, Syria:Syrian, Lebanon:Lebanese, Jordan:Jordanian, Ethiopia:Ethiopian, Tunisia:Tunisian
Pakistan:Pakistani, Nepal:Nepalese, Jamaica:Jamaican, Scotland:Scottish, England:English, Wales:Welsh
Korea:Korean, Mongolia:Mongolian, Indonesia:Indonesian, Israel:Israeli, Malta:Maltese, Latvia:Latvian, Estonia:Estonian
""")
YOUNG = _table("""
dog:puppy, cat:kitten, cow:calf, sheep:lamb, goat:kid, pig:piglet, lion:cub, bear:cub, duck:duckling, goose:gosling
hen:chick, deer:fawn, horse:foal, kangaroo:joey, frog:tadpole, eagle:eaglet, swan:cygnet, owl:owlet, tiger:cub
fox:cub, wolf:cub, seal:pup, elephant:calf, whale:calf, donkey:foal, zebra:foal, butterfly:caterpillar, chicken:chick
dolphin:calf, giraffe:calf, buffalo:calf, leopard:cub, toad:tadpole, koala:joey, spider:spiderling
""")
SOUNDS = _table("""
dog:bark, cat:meow, cow:moo, sheep:baa, duck:quack, pig:oink, lion:roar, horse:neigh, owl:hoot, snake:hiss, frog:croak
bee:buzz, mouse:squeak, wolf:howl, donkey:bray, rooster:crow, tiger:roar, lamb:baa, bird:chirp, turkey:gobble
crow:caw, elephant:trumpet, kitten:meow, puppy:bark, goose:honk, hyena:laugh, cricket:chirp
""")
LEGS = _table("""
dog:4, cat:4, horse:4, cow:4, sheep:4, goat:4, pig:4, lion:4, tiger:4, bear:4, wolf:4, fox:4, rabbit:4, mouse:4, zebra:4
camel:4, deer:4, elephant:4, giraffe:4, frog:4, lizard:4, turtle:4, hen:2, duck:2, eagle:2, owl:2, swan:2, crow:2
goose:2, penguin:2, ostrich:2, parrot:2, sparrow:2, pigeon:2, flamingo:2, ant:6, bee:6, beetle:6, fly:6, wasp:6
butterfly:6, moth:6, grasshopper:6, cricket:6, spider:8, scorpion:8, snake:0, worm:0, eel:0, shark:0, trout:0
""")
OPPOSITES = _table("""
hot:cold, big:small, tall:short, fast:slow, up:down, left:right, day:night, black:white, good:bad, happy:sad
open:closed, early:late, rich:poor, hard:soft, wet:dry, full:empty, strong:weak, heavy:light, inside:outside
start:finish, win:lose
buy:sell, love:hate, young:old, clean:dirty, loud:quiet, high:low, wide:narrow, thick:thin, deep:shallow, true:false
first:last, push:pull, give:take, alive:dead, easy:difficult, cheap:expensive, near:far, asleep:awake, friend:enemy
above:below, before:after, always:never, more:less, many:few, yes:no, on:off, in:out, front:back, top:bottom
war:peace, north:south, east:west, begin:end, laugh:cry, question:answer, male:female, sweet:sour, sharp:blunt
brave:cowardly, polite:rude, arrive:leave, remember:forget, find:lose, raise:lower, enter:exit, import:export
accept:reject, add:subtract, multiply:divide, increase:decrease, attack:defend, ancient:modern, smooth:rough
success:failure, life:death, beginning:ending, past:future, odd:even, public:private, guilty:innocent
maximum:minimum, victory:defeat, summer:winter, sunrise:sunset, heaven:hell, teacher:student, husband:wife
tight:loose, safe:dangerous, lazy:hardworking, generous:stingy, ugly:beautiful, noisy:silent, optimist:pessimist
""")
PAIRED_PEOPLE = _table("""
king:queen, man:woman, boy:girl, father:mother, brother:sister, son:daughter, uncle:aunt, husband:wife, prince:princess
actor:actress, waiter:waitress, nephew:niece, grandfather:grandmother, grandson:granddaughter, bull:cow, rooster:hen
hero:heroine, god:goddess, duke:duchess, host:hostess, lion:lioness, emperor:empress, dad:mom, grandpa:grandma
stepfather:stepmother, he:she, him:her, sir:madam, gentleman:lady, widower:widow, policeman:policewoman
businessman:businesswoman, groom:bride, wizard:witch, ram:ewe, stallion:mare, monk:nun, salesman:saleswoman
heir:heiress, tiger:tigress, count:countess, baron:baroness, landlord:landlady, steward:stewardess
""")
OBJECT_COLORS = _table("""
grass:green, snow:white, coal:black, banana:yellow, strawberry:red, blood:red, milk:white, lemon:yellow, tomato:red
carrot:orange, spinach:green, chocolate:brown, lime:green, broccoli:green, cucumber:green, salt:white
sunflower:yellow, crow:black, raven:black, swan:white, fire truck:red, pumpkin:orange, coffee:brown
emerald:green, ruby:red, sapphire:blue, soot:black, tar:black, eggplant:purple, kale:green, lettuce:green
frog:green, cherry:red, blueberry:blue, cotton:white, ivory:white, rust:brown, mud:brown, canary:yellow
flamingo:pink, polar bear:white, elephant:gray, lavender:purple, tangerine:orange, celery:green, rice:white
""")
WORKPLACES = _table("""
teacher:school, doctor:hospital, nurse:hospital, baker:bakery, farmer:farm, librarian:library, judge:court
chef:kitchen, cook:kitchen, waiter:restaurant, scientist:laboratory, pilot:airplane, priest:church, actor:theater
student:school, sailor:ship, banker:bank, gardener:garden, miner:mine, lawyer:court, monk:monastery
secretary:office, shepherd:pasture, captain:ship, astronaut:space station, surgeon:hospital
professor:university
""")
MATERIALS = _table("""
window:glass, bottle:glass, book:paper, newspaper:paper, tire:rubber, coin:metal, sword:metal, sweater:wool
candle:wax, brick:clay, notebook:paper, envelope:paper, mirror:glass, jeans:denim, nail:metal, hammer:metal
log:wood, plank:wood, bench:wood, canoe:wood, anchor:metal, saddle:leather, eraser:rubber, jar:glass, wallet:leather
magazine:paper, lens:glass, key:metal, ladle:metal, fence post:wood, cupboard:wood, belt:leather
""")
GROUPS = _table("""
sheep:flock, wolf:pack, fish:school, bee:swarm, lion:pride, cow:herd, bird:flock, elephant:herd, ant:colony
goose:gaggle, whale:pod, dolphin:pod, kitten:litter, puppy:litter, crow:murder, deer:herd, buffalo:herd
""")
SHORT_FORMS = _table("""
I am:I'm, you are:you're, he is:he's, she is:she's, it is:it's, we are:we're, they are:they're, I will:I'll
you will:you'll, we will:we'll, they will:they'll, he will:he'll, she will:she'll, I have:I've, you have:you've
we have:we've, they have:they've, do not:don't, does not:doesn't, did not:didn't, is not:isn't, are not:aren't
was not:wasn't, were not:weren't, cannot:can't, could not:couldn't, would not:wouldn't, should not:shouldn't
will not:won't, have not:haven't, has not:hasn't, had not:hadn't, must not:mustn't, let us:let's, that is:that's
what is:what's, who is:who's, where is:where's, there is:there's, here is:here's
""")
BRITISH = _table("""
color:colour, honor:honour, favor:favour, flavor:flavour, neighbor:neighbour, labor:labour, harbor:harbour, humor:humour
center:centre, theater:theatre, meter:metre, liter:litre, fiber:fibre, gray:grey, tire:tyre, pajamas:pyjamas
traveler:traveller, jewelry:jewellery, catalog:catalogue, defense:defence, offense:offence, organize:organise
realize:realise, recognize:recognise, apologize:apologise, analyze:analyse, favorite:favourite, rumor:rumour
vapor:vapour, armor:armour, behavior:behaviour, odor:odour, plow:plough, skeptic:sceptic, aluminum:aluminium
mustache:moustache, cozy:cosy, maneuver:manoeuvre, savor:savour, parlor:parlour, splendor:splendour, saber:sabre
""")
SYMBOLS = _table("""
gold:Au, silver:Ag, iron:Fe, copper:Cu, oxygen:O, hydrogen:H, carbon:C, nitrogen:N, helium:He, sodium:Na, calcium:Ca
potassium:K, lead:Pb, tin:Sn, zinc:Zn, mercury:Hg, sulfur:S, chlorine:Cl, iodine:I, neon:Ne, lithium:Li
aluminum:Al, magnesium:Mg, silicon:Si, phosphorus:P, fluorine:F, argon:Ar, nickel:Ni, platinum:Pt, uranium:U
""")
