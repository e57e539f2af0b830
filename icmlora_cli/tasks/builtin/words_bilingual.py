"""A small lexicon: English, Spanish, French, German and Italian, one word each, unique in every language."""

LANGUAGES = ("Spanish", "French", "German", "Italian")

_TABLE = """
dog perro chien Hund cane|cat gato chat Katze gatto|horse caballo cheval Pferd cavallo
cow vaca vache Kuh mucca|bird pájaro oiseau Vogel uccello|fish pez poisson Fisch pesce
wolf lobo loup Wolf lupo|bear oso ours Bär orso|lion león lion Löwe leone|mouse ratón souris Maus topo
sheep oveja mouton Schaf pecora|rabbit conejo lapin Kaninchen coniglio|house casa maison Haus casa
door puerta porte Tür porta|window ventana fenêtre Fenster finestra|table mesa table Tisch tavolo
chair silla chaise Stuhl sedia|bed cama lit Bett letto|kitchen cocina cuisine Küche cucina
garden jardín jardin Garten giardino|street calle rue Straße strada|bridge puente pont Brücke ponte
city ciudad ville Stadt città|village pueblo village Dorf villaggio|school escuela école Schule scuola
church iglesia église Kirche chiesa|hospital hospital hôpital Krankenhaus ospedale
water agua eau Wasser acqua|bread pan pain Brot pane|milk leche lait Milch latte|wine vino vin Wein vino
beer cerveza bière Bier birra|cheese queso fromage Käse formaggio|butter mantequilla beurre Butter burro
egg huevo œuf Ei uovo|meat carne viande Fleisch carne|rice arroz riz Reis riso|salt sal sel Salz sale
sugar azúcar sucre Zucker zucchero|apple manzana pomme Apfel mela|pear pera poire Birne pera
lemon limón citron Zitrone limone|cherry cereza cerise Kirsche ciliegia
potato patata patate Kartoffel patata|onion cebolla oignon Zwiebel cipolla|sun sol soleil Sonne sole
moon luna lune Mond luna|star estrella étoile Stern stella|sky cielo ciel Himmel cielo|sea mar mer Meer mare
river río rivière Fluss fiume|mountain montaña montagne Berg montagna|forest bosque forêt Wald foresta
tree árbol arbre Baum albero|flower flor fleur Blume fiore|leaf hoja feuille Blatt foglia
stone piedra pierre Stein pietra|fire fuego feu Feuer fuoco|snow nieve neige Schnee neve
rain lluvia pluie Regen pioggia|wind viento vent Wind vento|earth tierra terre Erde terra
island isla île Insel isola|man hombre homme Mann uomo|woman mujer femme Frau donna
child niño enfant Kind bambino|friend amigo ami Freund amico|mother madre mère Mutter madre
father padre père Vater padre|brother hermano frère Bruder fratello|sister hermana sœur Schwester sorella
king rey roi König re|queen reina reine Königin regina|doctor médico médecin Arzt medico
head cabeza tête Kopf testa|hand mano main Hand mano|foot pie pied Fuß piede|eye ojo œil Auge occhio
ear oreja oreille Ohr orecchio|nose nariz nez Nase naso|mouth boca bouche Mund bocca
heart corazón cœur Herz cuore|blood sangre sang Blut sangue|arm brazo bras Arm braccio
book libro livre Buch libro|letter carta lettre Brief lettera|word palabra mot Wort parola
paper papel papier Papier carta|key llave clé Schlüssel chiave|clock reloj horloge Uhr orologio
car coche voiture Auto automobile|train tren train Zug treno|ship barco bateau Schiff nave
money dinero argent Geld denaro|gold oro or Gold oro|shoe zapato chaussure Schuh scarpa
shirt camisa chemise Hemd camicia|hat sombrero chapeau Hut cappello|knife cuchillo couteau Messer coltello
spoon cuchara cuillère Löffel cucchiaio|fork tenedor fourchette Gabel forchetta
plate plato assiette Teller piatto|day día jour Tag giorno|night noche nuit Nacht notte
week semana semaine Woche settimana|month mes mois Monat mese|year año an Jahr anno
hour hora heure Stunde ora|morning mañana matin Morgen mattina|evening tarde soir Abend sera
summer verano été Sommer estate|winter invierno hiver Winter inverno
spring primavera printemps Frühling primavera|autumn otoño automne Herbst autunno|red rojo rouge rot rosso
green verde vert grün verde|yellow amarillo jaune gelb giallo|white blanco blanc weiß bianco
black negro noir schwarz nero|blue azul bleu blau blu|big grande grand groß grande
small pequeño petit klein piccolo|new nuevo nouveau neu nuovo|old viejo vieux alt vecchio
young joven jeune jung giovane|good bueno bon gut buono|bad malo mauvais schlecht cattivo
beautiful hermoso beau schön bello|strong fuerte fort stark forte|long largo long lang lungo
hot caliente chaud heiß caldo|cold frío froid kalt freddo|one uno un eins uno|two dos deux zwei due
three tres trois drei tre|four cuatro quatre vier quattro|five cinco cinq fünf cinque|six seis six sechs sei
seven siete sept sieben sette|eight ocho huit acht otto|nine nueve neuf neun nove|ten diez dix zehn dieci
hundred cien cent hundert cento|thousand mil mille tausend mille|music música musique Musik musica
peace paz paix Frieden pace|war guerra guerre Krieg guerra|love amor amour Liebe amore
life vida vie Leben vita|death muerte mort Tod morte|truth verdad vérité Wahrheit verità
luck suerte chance Glück fortuna|work trabajo travail Arbeit lavoro|world mundo monde Welt mondo
country país pays Land paese|road camino chemin Weg via
"""

_ROWS = tuple(tuple(entry.split()) for line in _TABLE.strip().splitlines() for entry in line.split("|"))


def pairs(language: str) -> dict[str, str]:
    """Look up the lexicon of one language.

    Args:
        language: One of ``LANGUAGES``.

    Returns:
        English word to foreign word, in table order.
    """
    column = LANGUAGES.index(language) + 1
    return {row[0]: row[column] for row in _ROWS}
