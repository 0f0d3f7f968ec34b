"""Lists of English (and a few Chinese) function words that reading claims needs."""

_SPELLED = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_MONTHS = "january february march april may june july august september october november december"


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


MONTHS = {form: i for i, name in enumerate(_MONTHS.split(), 1) for form in (name, name[:3], name[:4])}
SPELLED = {word: i for i, word in enumerate(_SPELLED.split())}
SPELLED |= {word: 10 * i for i, word in enumerate(_TENS.split(), 2)}
MAGNITUDES = {
    "hundred": 1e2,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "trillion": 1e12,
    "mn": 1e6,
    "bn": 1e9,
    "百": 1e2,
    "千": 1e3,
    "万": 1e4,
    "百万": 1e6,
    "亿": 1e8,
    "万亿": 1e12,
}

ABOUT = _set("about around approximately approx roughly nearly almost circa estimated some c ca ~ ≈ 约")
OVER = _set("over above exceeding exceeds than 过")
UNDER = _set("under below 到")
"""Hedges: the word before a number."""

STOP = _set(
    """
    a an the this that these those it its he his him she her they their them we our us you your i my
    me who whom whose which what there here is are was were be been being am has have had having do
    does did will would shall should can could may might must of in on at by for from to with within
    into onto as and or but nor so yet if then than when while where because since until also too
    very just only even both either each every all any some such same other another more most much
    many few several own known called named considered one ones s t d ll re ve m not no never
    neither nor cannot without country nation about around approximately approx roughly nearly
    almost circa over above under below between among through during after before up down out off
    again further once longer however therefore thus hence although though located situated lie lies
    的 了 是 为 在 于 有 和 与 约 个
    """
)
"""Words that do not say what is claimed."""
SENTENCE_OPENERS = _set(
    """
    additionally finally overall similarly furthermore moreover meanwhile generally typically
    usually today now first second third next lastly specifically particularly unfortunately yes why
    how please note according despite like unlike among during based given given in
    """
)
"""Words that often begin sentences and are no names."""
NEGATIONS = _set("not no never neither nor cannot without none nobody nothing cant 不 没 非 未")
BOUNDARIES = _set(", ; : ( ) and but while with which who whose where that although 。 ；")
"""After these, a new clause may begin."""
CLAUSE_OPENERS = _set("it its he his she her they their is are was were has have had which who there")
"""After a boundary, these begin a new clause."""
RELATIONS = _set("in on at near from by as to for of within under between since until")
CONNECTORS = _set("of the de da do del della la le les du des von van der den bin ibn al el y e dos das zu")
"""Small words inside names."""
DIRECTIONS = _set("north south east west northeast northwest southeast southwest") | _set(
    "northern southern eastern western northeastern northwestern southeastern southwestern"
)
MONEY = _set(
    """
    dollar euro pound peso franc dinar rupee rupiah ringgit shilling krona krone yen yuan renminbi
    riyal ruble rouble lira baht dirham naira kwacha zloty forint
    """
)
"""Names of currencies are names in lower case too."""
MODIFIERS = DIRECTIONS | _set("central new middle equatorial upper lower inner outer papua democratic greater")
"""Words that turn the name of a place into another one: Sudan is not South Sudan."""
SMALL_MODIFIERS = DIRECTIONS | _set("central middle")
"""The modifiers that are often in lower case: "southern Africa" is a name as "Southern Africa" is."""
TITLES = _set(
    """
    mr mrs ms dr sir lord lady king queen prince princess president senator justice judge professor
    prof general captain saint st pope emperor chancellor minister governor chief
    """
)
