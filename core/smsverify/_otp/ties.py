"""What ties a number to a word: expressions for what stands between them, before and behind them.

Those that end with `\\Z` are searched in what stands before the number; the others begin behind it, or fill
the gap between it and a word. In all of them, `\\x00` is what is no code by its shape.
"""

from __future__ import annotations

from smsverify._otp.sentences import STOP

# At most so many characters lie between them.
FARTHEST = 130  # if "is" stands before the number
FAR = 80
NEAR = 40
BESIDE = 12

_OPEN = r"[\s\"'`“”„‘’«»「」『』〈〉《》【】\[\](){}<>*_#~|]"
_ARTICLE = "(?: (?:the|le|la|el|il|o|den|die|das|de|sie))?"
_LETTERS = r"[^\W\d_]"

# --- The words.

# What it is for, amounts and masked numbers included: "kod do zakupu 49,99 PLN w Foo to".
_WHAT_FOR = r"(?!\W*[0-9])(?:[a-z0-9 \x00*]|(?<=[a-z])\.(?= ?[0-9\x00])){0,60}"
# Words that say it in one language and mean something else in others.
_IS_OF_ITS_LANGUAGE = (
    rf"(?:kod|haslo){_WHAT_FOR} to|(?:kood|salasana|tunnusluku|parool){_WHAT_FOR} on"
    r"|(?<![a-z])(?:ma [a-z ]{1,40} la"
    rf"|(?:(?:ma )?otp (?:gd|giao dich)|ma (?:otp|xac thuc|xac nhan)){_WHAT_FOR} la"
    r"|(?:otp|code|pin|password)[a-z ]{0,40} ay|(?:kode|koodu|msimbo)[a-z ]{0,40} ni"
    r"|namba(?:ri)?(?: yako)? ya (?:kuthibitisha|uthibitisho|siri) ni"
    r"|koodu[a-z ]{0,40} bu|gamitin ang [a-z ]{1,20} na|kaody[a-z ]{0,40} dia|kod[a-z ]{0,40} ou se)"
)
# What belongs to a word for the code, behind it: "code to sign in", "kode verifikasi untuk masuk Anda".
_PURPOSE = rf"<<purpose + one time>>{_LETTERS}{{0,12}}"
_ITS_PURPOSE = rf"(?:<<for + of>>{_ARTICLE} |d'|ال|لل|ה|ל)"
_BELONGING = (
    rf"(?: ?{_ITS_PURPOSE}?{_PURPOSE})?"
    rf"(?: ?(?:<<one time + yours>>|{_ITS_PURPOSE}{_PURPOSE})){{0,3}}"
)
# What is to be sent is no word for a code: "text CODE to 48213".
_TO_SEND = "(?:<<messaging>>|text|sms) <<code>>(?= <<to>>[ :]*[0-9])"
KEYWORD = (
    rf"(?P<other><<other code>>|{_TO_SEND})|(?:{_IS_OF_ITS_LANGUAGE})(?=:? ?[0-9])"
    r"|<<code, by its number>> (?:no|nr)(?![a-z])\.?(?=(?: <<is>>)?[^\w\n]{0,4}[0-9])"
    rf"|<<code>>{_BELONGING}"
)
EARNEST = "<<purpose + one time>>"
QUEUE = "<<queue>>|counter [0-9]"
PROMOTING = r"<<promotion>>|\x00 off(?![a-z])"

# --- Between a word for the code and a number behind it.

_IS = r"<<is + is, before>>|(?<!, )(?<![a-z])(?:ar|ir)"
_DASH = rf"(?<!{_LETTERS})-"
_NUMBERING = r"(?:(?:number|numero|nummer|num|nr|no|n)(?![a-z])\.?|<<number>>)"
# `numbered`: "code no. 48213", "code: no 48213". `over`: what stands between the word and what says it.
SAID_BEFORE = (
    rf"{_OPEN}*(?:{_IS})? ?[:=→-]?{_ARTICLE}{_OPEN}*(?P<numbered>{_NUMBERING})[ :#]*{_OPEN}*"
    rf"|(?P<over>(?s:.*?))(?:(?P<is>{_IS})(?: ?[:=→-])?|(?P<mark>[:=→]|{_DASH})){_ARTICLE}{_OPEN}*"
    rf"|(?:[\u0530-\u139f]{{0,6}}| <<this>>){_OPEN}*"
)
OPENED = rf"{_OPEN}*"
# A numbering that lost its space, right behind the word: "code no48213". After a colon it is a code.
NUMBERING_GLUED = "(?:no|nr|num)[0-9]+"
TURNS = "[,;]|<<happened + sent + never>>"
BRACKETS = r"\([^()]{0,40}\)"
ASIDE = rf"{BRACKETS}|\x00+"
BETWEEN = r",(?! ?\Z)|\n|<<between + happened + sent + never>>"
# What opens a warning behind a number: "Foo code 48213 do not share".
WARNS = rf"{_OPEN}*<<never>>"
# In the clause before a word for the code: "never share your code", "we changed your password".
_GOES_ON = rf"(?:(?!{STOP})[^,;:\n])*\Z"
FORBIDDEN = rf"<<never>>{_GOES_ON}"
HAPPENED = rf"<<happened + sent>>{_GOES_ON}"
# Right behind it: "password changed", "passwort wurde geandert".
HAPPENED_BEHIND = rf"{_LETTERS}{{0,6}} ?(?:{_LETTERS}{{1,12}} )?<<happened + sent>>"
# Words in between that nothing explains. Scripts that set no spaces are counted by letters.
EXPLAINED = "<<purpose + one time + yours + this + for + of + medium>>"
_NO_SPACES = r"[\u0e00-\u109f\u1780-\u17ff\u3040-\uffff]"
FREE_WORD = rf"{_NO_SPACES}{{1,4}}|[^\W_](?:(?!{_NO_SPACES})\S)*"
WHERE = r" ?<<for + where>>"
CLAUSE_END = rf"\s*(?:[^\w\s'*]|\x00|\Z|\n)|{_OPEN}*<<for + is + is, after>>|{WARNS}"
# A short call behind a number, up to the word: "48213 is your one-time code", with nothing that begins anew.
CALLED = r"[^\w,;:()\n]*(?:\w+[^\w,;:()\n]+){0,5}\w*"
SAID_AFTER = rf"{_OPEN}*<<is + is, after>>|,? (?:c'est|that's) | to \Z"

FOR_THE = rf" <<for>>{_ARTICLE} "

# Behind a word for the code: a code in a form that is not read ("the code is 662.031", "code: QWERTY").
IS_UNREAD = rf"{_OPEN}*(?:(?:{_IS}) ?:?|[:=]){_OPEN}*"
UNREAD = r"(?=[A-Z]*[0-9]|[A-Z]{5})[A-Za-z0-9.,-]{3,}(?![\w/:@.,-])"

# --- Between two numbers.

# The second is what the first stands for: "... 4417 is 48213", "... 4417): 48213".
# Hindi and Persian have the verb behind what it says.
_IS_BETWEEN = rf"(?![\u0900-\u097f]|است)(?:{_IS})"
MEANS = (
    rf"(?:[^0-9\n()\[\]]{{0,30}}(?=[)\]]))?[^\W\d_a-z]{{0,3}}?{_OPEN}*,?"
    rf"(?:(?P<is>{_IS_BETWEEN})(?: ?[:=→-])?|(?P<mark>[:=→])|(?P<dash>{_DASH})){_ARTICLE}{_OPEN}*"
)
# It may be so: a word in between could be a verb, or the second stands for itself on the next line.
NEW_LINE = r"[.:]?\s*\n\s*"
_WORD = r"[^\s\d\x00.,;:!()]"
MAY_MEAN = rf"{_WORD}*(?: {_WORD}+){{1,2}}(?: | ?: ?)|\s+"
# A name for another code that has its number, and then what that stands for.
SPENT = rf"{_OPEN}*(?:{_NUMBERING}|[:=-])*[ :#]*{_OPEN}*[a-z0-9\x00-]*[0-9\x00]{MEANS}"
LISTED = r"\s*(?:(?P<or>[/|&+]|<<or>>)|[,;、،，])?\s*(?:[0-9]{1,2}[.):]|-)?\s*"

# --- What makes a number void.

_CLOSE = r"[ \"'`”’»」』〉》】\])}>*_~|]"
_PARTICLE = "(?:(?!<<other statement>>)[\u0e00-\uffff]){0,2}"
_NOT_VALID = "<<not>> (?:<<is>> )?<<valid>>"
_WRONG = rf"(?:<<wrong + wrong, behind>>|{_NOT_VALID})"
_STATEMENT = rf"(?:(?!<<code + other statement>>)(?:{_LETTERS}|')+ )"
# Where what is said ends: in "48213 is wrong please try again", not in "48213 Wrong number? Text STOP",
# nor in "48213 is expired in 5 minutes".
_SAID = r"(?! ?(?!<<please>>|(?:re)?try|by )[a-z\u0370-\u052f]| [0-9\x00]| ?\?)"
# Scripts that set no space before what goes on: "错误了", "間違いです", not "错误请忽略", "오류 시 문의".
_UNSPACED = r"[\u0e00-\u0fff\u3040-\uffff]"
_UNLESS = r"(?:<<other statement>>|(?:(?<!다)시|면)(?![가-힣]))"
_ENDED = (
    rf"(?!(?:{_UNSPACED}| ){{0,12}}?{_UNLESS})"
    rf"(?:[了的]|(?![\u3400-\u9fff]){_UNSPACED}){{0,12}}(?!{_UNSPACED})"
)
_WRONG_SAID = rf"(?:(?:<<is>>|was|war) )?{_WRONG}{_ENDED}{_SAID}"
_AFTER = rf"{_PARTICLE} ?(?:<<code>> )?"
VOID = rf"(?:{_OPEN}*{_AFTER}<<void>>(?! ?\?)|{_CLOSE}*{_AFTER}{_WRONG_SAID})"
# The same with more words in between. They are said of something else if they begin with a capital.
VOID_STATED = rf"{_CLOSE}*{_AFTER}{_STATEMENT}{{1,4}}?{_WRONG_SAID}"
GOES_ON = rf"{_CLOSE}*"
WRONG_BEFORE = rf"<<wrong + void, before>>{_PARTICLE}[ -]?(?:{_PURPOSE} )?\Z"
IGNORED = r"(?<![a-z])ignore \Z"
WRONG_BEHIND = rf"{_PARTICLE} ?(?:<<is>> )?{_WRONG}"
WRONG_TO_MARK = rf"(?:<<wrong>>|{_NOT_VALID})[\u0e00-\uffff]{{0,6}} ?[:=-]{_OPEN}*\Z"
SENT = rf"{_OPEN}*<<sent>>"

# --- What asks for a number to be entered.

# "enter the following number: 48213", "enter at foo.example: 48213".
FIGURE = (
    rf"<<type>>(?: zur {_LETTERS}{{4,20}})?{_ARTICLE}(?: <<following>>)? <<figure>>"
    rf"(?:[^0-9\n.,:]{{0,30}}:)?{_OPEN}*\Z"
)
ENTERED = rf"<<enter>>(?: <<please>>)?{_ARTICLE}{_OPEN}*\Z|<<type>>[^0-9\n.,:]{{0,20}}:{_OPEN}*\Z|{FIGURE}"
SERVES_AS_CODE = rf" <<for>>(?!(?:(?!{STOP})[^\n]){{0,{FAR}}}<<for something else>>)"
THEN = r"[ ,;.]{0,3}<<or>>[ ,:]?"
OR_VISIT = rf"[ ,;][^0-9\n.!?]{{0,20}}?<<or>>(?:(?!{STOP})[^0-9\n]){{0,40}}"
TO_ENTER = r"[^0-9\n.,!?]{0,6}<<enter, after>>"
# Not what has been done: "session verified: 48213".
NAMED = (
    rf"(?!<<done>>)<<verification>>(?:(?!{STOP}|<<done>>)[^0-9\n]){{0,30}}"
    rf"(?:[:=#-]|<<is + is, before + with>>){_OPEN}*\Z"
)
SERVES = (
    r" will <<verification>> your (?:account|device|e-?mail|mobile|number|phone)"
    rf"| (?:is|to|for|zu|zum|um|pour|para|per|om|для|чтобы)(?:(?!{STOP})[^0-9\n,])*?<<verification>>"
)

# --- What names a number as something else.

_FILLER = (
    r"(?: |:\s*|[はが는은是为]|[#(*\"'=-]|\.(?! )"
    r"|(?:no|nr|num|number|numero|nummer|is|are|es|est|ist|in|with|at|to|on|id|mit|auf|en)\b\.?){0,8}"
)
LABELLED = rf"(?:<<label>>|(?P<owned><<owned label>>)|<<label, with a full stop>>\.){_FILLER}\Z"
NUMBERED = rf"(?<!{_LETTERS})(?:num|nr|no|n)(?![a-z])\.?[ :#-]*\Z"
_SPAN = rf"(?:(?!{STOP})[^0-9\n]){{0,30}}"
REACHED = (
    rf"(?:<<reaching label>>{_SPAN}|<<until>>(?:(?!{STOP})[^0-9\n:]){{0,30}}"
    rf"|(?:<<messaging>>|text|sms){_SPAN}<<to>>[ :]*|<<messaging>>[ :]*)\Z"
)

# --- What may stand around a number that is alone.

_NO_END = rf"(?:(?!{STOP})[^0-9;:()\n]){{0,{NEAR}}}"

TAG = r"\[[^\[\]\n]{0,30}\]|【[^【】\n]{0,30}】"
BRACKETED = rf"(?:<#>|\x00:|[ \"'`“”„«»「」(){{}}<>*#|\x00-]|{TAG}|[\[【](?=\s*\Z))*"
SENDER = rf"{BRACKETED}(?:[^\W\d]{{1,20}}(?: [^\W\d]{{1,20}}){{0,2}} ?[:-]{BRACKETED})*"
WORDLESS = rf"{BRACKETED}(?:[a-z]{{1,3}}-)?[0-9 -]{{4,30}}[\s.\x00]*"
CLOSED = rf"[.,\x00-]*{_OPEN}*"
# How long it is good, behind a warning: "Do not share this code. 48213 expires in 5 min".
LASTS = rf",? ?[\x00内]*<<lasts>>{_NO_END}"
WARNED = rf"<<never>>{_NO_END}<<code>>|<<code>>{_NO_END}<<never>>"
NO_SENDER = "<<label + owned label + done>>"
