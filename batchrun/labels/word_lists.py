"""Words around a label, as `folded` writes them: those that change nothing, and those that take it back."""

# A sentence of these and a choice says no more than the choice. No word of doubt or denial belongs here.
_NEUTRAL_WORDS = """
a an the this that it it's its i i'd i'll i'm my me we you your is be would will should can as to of for
in on by with into under at so thus therefore hence here here's there then following given based provided
below above sure certainly definitely clearly okay ok course overall final finally correct right best
most likely appropriate suitable single main primary predicted assigned chosen selected detected expressed

label labeled labelled answer sentiment category class classification classified classify topic
type tag rating score grade result output response prediction verdict decision determination conclusion
choice option pick selection stance emotion mood tone intent language polarity toxicity relevance urgency
priority severity quality level status genre subject theme department star stars point points

review text message tweet comment email mail e sentence document article statement post passage snippet
input question ticket request title headline paragraph conversation customer user reviewer author writer
text's review's

think believe say choose select assign give rate call consider find see fits falls belongs expresses
conveys shows indicates has one only just simply

json text plaintext txt markdown md xml html yaml csv
"""

# Words that name what the last line of a longer answer gives: "Final answer: x".
_ANSWERING_WORDS = """
label answer sentiment category class classification topic rating score grade result verdict decision
conclusion prediction choice stance emotion intent
"""

# A sentence that begins with one of these may be a question, also without its mark.
_ASKING_WORDS = "is be would will should can has"

# Denial, doubt and contrast. English first; then German, French, Spanish, Italian, Portuguese, Dutch.
_TAKES_BACK_WORDS = """
not no nor non never none neither nothing cannot cant without but however although though yet instead
rather unless except if when either or vs versus maybe perhaps possibly probably might may could unsure
unclear uncertain ambiguous mixed both wrong incorrect false untrue invalid inaccurate opposite contrary
actually wait reconsider reconsidering correction corrected kidding joking sarcastic sarcasm ironic
irony ignore disregard unlikely hardly barely scarcely least less worst isnt arent wasnt werent dont
doesnt didnt wont wouldnt shouldnt couldnt aint null nil other another alternative alternatively second
disagree reject rejected negated absent missing lacking low zero minimal negligible options choices
candidates categories classes possibilities possible allowed mistake mistaken error erroneous wrongly
incorrectly falsely mislabeled misclassified inappropriate excluded excluding exclude nope nah refuse
sorry unable impossible lie lying previous previously former old example instance

nicht kein keine keinen keiner keinem nein nie niemals aber jedoch doch sondern oder falsch vielleicht
ne pas jamais aucun aucune mais ou faux plutôt peut
nunca pero sino o ni falso tampoco quizás quizá
mai ma però nessuno nessuna forse
não nem mas talvez errado
niet geen nooit maar fout misschien
"""

# Of these, the ones that only say no.
_NEGATING_WORDS = "not nor never nothing isnt doesnt nicht kein keine pas niet geen non não"

NEUTRAL = frozenset(_NEUTRAL_WORDS.split())
ANSWERING = frozenset(_ANSWERING_WORDS.split())
ASKING = frozenset(_ASKING_WORDS.split())
_TAKES_BACK = frozenset(_TAKES_BACK_WORDS.split())
_NEGATING = frozenset(_NEGATING_WORDS.split())


def takes_back(word: str) -> bool:
    """Whether a folded word may deny the label beside it, or doubt it."""
    return word in _TAKES_BACK or word.endswith("n't")


def negates(word: str) -> bool:
    """Whether a folded word only says no, which takes nothing back from a label that says no itself."""
    return word in _NEGATING or (word.endswith("n't") and word != "can't")
