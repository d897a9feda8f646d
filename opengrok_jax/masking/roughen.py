"""Makes edited treebank text look like posts: spelling, case, stops, openers and closers.

Nothing but the treebank's own text and the word lists below goes into the result, so it carries
the treebank's licence and no other. The trees stay gold: added words are attached as treebanks of
posts attach them.

    clean   I am going to the concert tonight .
    rough   RT @mika_tv : i am goin to the concert 2nite !! 😍 #nyc https://t.co/a8Kq2xYz
"""

from __future__ import annotations

import string
from random import Random

from opengrok_jax.masking.treebank import Sentence, Token, loosen, tighten

_CONTENT = frozenset({"NOUN", "PROPN", "VERB", "ADJ"})


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SHORT = {
    long: tuple(short.split(","))
    for long, short in (
        entry.split("=")
        for entry in _words(
            "you=u,ya,yu your=ur,yo are=r to=2 too=2 for=4,fr because=cuz,bc,cos,coz with=w/,wit "
            "please=plz,pls people=ppl,peeps the=da,teh this=dis that=dat them=em,dem they=dey "
            "love=luv,lov and=n,nd,& be=b see=c what=wat,wut about=bout,abt tomorrow=tmrw,2moro "
            "tonight=2nite,tonite thanks=thx,thnx,ty though=tho right=rite night=nite okay=ok,k "
            "really=rly,rlly know=kno just=jus,jst my=ma,mah would=wud could=cud should=shud "
            "before=b4 great=gr8 good=gud,gd very=v have=hav,hv from=frm so=soo,sooo,soooo "
            "no=nooo,nah yes=yess,yea,yep never=neva ever=eva something=sumthin,smth when=wen "
            "someone=sum1 everyone=every1 anyone=ne1 today=2day,tday friend=frnd friends=frnds "
            "weekend=wknd birthday=bday picture=pic pictures=pics video=vid work=wrk why=y "
            "minutes=mins favorite=fav,fave definitely=def probably=prob,prolly school=skool "
        )
    )
}
# Half of the emoji put in are these few; the others are there so that each has been seen.
_FREQUENT_EMOJI = _words(
    "😂 😭 😍 ❤️ 😊 🙏 🔥 💕 🎉 👏 💯 😩 🙄 👍 💔 😎 🤔 ✨ 💪 👀 😅 🥺 🤣 👍🏽 🙌🏾 🇺🇸 "
    ":) :( :D ;) <3 :P xD :-) :/ ^_^ :') ;-) =) :o"
)
_OTHER_EMOJI = _words(
    "😀 😃 😄 😁 😆 🙂 🙃 😉 😇 🥰 🤩 😘 😗 😚 😋 😛 😜 🤪 🤗 🤭 🤫 🤐 😐 😑 😶 😏 😒 😬 "
    "😌 😔 😪 😴 😷 🤒 🤢 🤮 🥵 🥶 😵 🤯 🤠 🥳 🤓 😕 😟 🙁 ☹️ 😮 😯 😲 😳 😦 😨 😰 😥 😢 "
    "😱 😖 😞 😓 😫 🥱 😤 😡 😠 🤬 😈 💀 ☠️ 💩 🤡 👻 👽 🤖 🙈 🙊 💋 💘 💖 💗 💓 💞 💙 💚 "
    "💛 🧡 💜 🖤 ❣️ 💢 💥 💫 💦 💤 👋 ✋ 👌 ✌️ 🤞 🤘 🤙 👈 👉 👆 👇 ☝️ 👎 ✊ 👊 🙌 👐 🤝 "
    "💅 🤳 🧠 👑 🤷 🤦 💃 🐶 🐱 🐻 🐼 🦁 🐷 🐸 🐵 🦄 🐝 🦋 🐢 🐍 🌸 🌹 🌻 🌷 🌱 🌴 🍀 🍁 "
    "🍂 🍎 🍓 🍑 🍒 🍍 🥑 🍕 🍔 🍟 🌮 🍩 🍪 🎂 🍫 ☕ 🍺 🍻 🍷 🥂 🌍 🏠 🏖️ 🚗 ✈️ 🚀 ⏰ ⏳ "
    "☀️ 🌙 ⭐ 🌟 🌈 ⚡ ❄️ ☃️ 🌊 🎃 🎄 🎁 🎈 🎊 🏆 🥇 ⚽ 🏀 🏈 ⚾ 🎾 🎮 🎯 🎵 🎶 🎤 🎧 🎸 "
    "📱 💻 📷 📸 📺 🎬 💡 📚 📖 💰 💵 📈 📉 📝 📌 📢 🔔 🔒 🔑 🔫 💊 🚨 ⚠️ ⛔ ✅ ❌ ❗ ❓ "
    "➡️ ⬇️ 🔴 🔵 ▶️ 🆕 🔝 🏁 🇬🇧 🇨🇦 🇮🇳 🇫🇷 🇩🇪 🇧🇷 👏🏻 👏🏾 🙏🏼 💪🏿 ✊🏾 🤷‍♀️ 🤦‍♂️ 👩‍💻 👨‍👩‍👧 🏳️‍🌈"
)
_INTERJECTIONS = _words(
    "lol lmao omg haha hahaha smh ugh wow yay aww yeah damn hey oh well yes no ok lmfao jk btw "
    "tbh hmm woah yep nope bruh hello"
)
_TAGS = _words(
    "win fail love truth tbt throwback news job jobs hiring nowplaying np ff giveaway blessed "
    "music photo travel food fitness weekend MondayMotivation FollowFriday sorrynotsorry nyc usa "
    "london breaking election2020 worldcup gameday nofilter icymi vote BlackFriday"
)
_STOPS = {".": ["!", "!!", "!!!", "...", "..", "…"], "!": ["!!", "!!!", "!!!!"], "?": ["??", "?!"]}


def roughen(sentence: Sentence, rng: Random) -> Sentence:
    """Makes a text look like a post: spelling, case, stops, openers and closers.

    Added words carry the relations that treebanks of posts give them: an `RT` and its handle
    `discourse`, a reply's handle `vocative`, emoji and trailing tags `discourse`, a link `list`.
    They hang on the first or the last root, so that every tree stays one stretch of words.
    """
    tokens = loosen(sentence)
    _respell(tokens, rng)
    _recase(tokens, rng)
    tokens = _sprinkle(_loosen_stops(tokens, rng), rng)
    roots = [token for token in tokens if token.head is None]
    opener, closer = _opener(roots[0], rng), _closer(roots[-1], tokens, rng)
    return tighten(opener + tokens + closer, sentence.document)


def _respell(tokens: list[Token], rng: Random) -> None:
    careless, no_apostrophe = rng.random() < 0.5, rng.random() < 0.25
    in_name = {id(t.head) for t in tokens if t.dep in ("flat", "compound")}
    for token in tokens:
        word, low = token.word, token.word.lower()
        whole = word.isalpha() and token.space  # `#` or a handle must not run into the next word
        is_name = token.upos == "PROPN" and token.dep not in ("flat", "compound")
        if whole and is_name and id(token) not in in_name and rng.random() < 0.05:
            token.word = _handle(rng)
        elif whole and token.upos in _CONTENT and len(word) > 3 and rng.random() < 0.03:
            token.word = "#" + word
        elif careless and low in _SHORT and rng.random() < 0.35:
            token.word = rng.choice(_SHORT[low])
        elif careless and low.endswith("ing") and len(low) > 4 and rng.random() < 0.15:
            token.word = word[:-1]
        elif careless and word.isalpha() and len(word) > 3 and rng.random() < 0.02:
            token.word = _mistype(word, rng)
        elif no_apostrophe and low in ("n't", "'s", "'m", "'re", "'ve", "'ll", "'d"):
            token.word = word.replace("'", "")


def _mistype(word: str, rng: Random) -> str:
    i = rng.randrange(1, len(word) - 1)
    before, at, after = word[:i], word[i], word[i + 1 :]
    slips = (
        before + at * rng.randint(2, 4) + after,
        before + after,
        before + after[0] + at + after[1:],
    )
    return rng.choice(slips)


def _recase(tokens: list[Token], rng: Random) -> None:
    style = rng.choices(("kept", "lower", "title", "upper"), (42, 43, 10, 5))[0]
    for token in tokens:
        if token.word.startswith("@"):
            continue
        if style == "title":
            token.word = token.word[:1].upper() + token.word[1:]
        elif style != "kept":
            token.word = token.word.lower() if style == "lower" else token.word.upper()
        if len(token.word) > 1 and token.word.isalpha() and rng.random() < 0.02:
            token.word = token.word.upper()


def _loosen_stops(tokens: list[Token], rng: Random) -> list[Token]:
    """Drops or multiplies the stops that end a sentence."""
    heads = {id(token.head) for token in tokens}
    kept: list[Token] = []
    for i, token in enumerate(tokens):
        at_end = i + 1 == len(tokens) or _root(tokens[i + 1]) is not _root(token)
        stop = token.head is not None and id(token) not in heads and token.word in _STOPS
        chance = rng.random() if at_end and stop and kept else 1.0
        if chance < (0.4 if i + 1 == len(tokens) else 0.15):
            kept[-1].space = True
            continue
        if chance < 0.6:
            token.word = rng.choice(_STOPS[token.word])
        kept.append(token)
    return kept


def _sprinkle(tokens: list[Token], rng: Random) -> list[Token]:
    """Puts an emoji behind some inner sentences, and rarely behind a word."""
    mixed: list[Token] = []
    for i, token in enumerate(tokens):
        mixed.append(token)
        if i + 1 == len(tokens) or not token.space:
            continue
        root = _root(token)
        if _root(tokens[i + 1]) is not root:
            if rng.random() < 0.1:
                mixed.append(_emoji(root, rng))
        elif rng.random() < 0.004:
            mixed.append(_emoji(token, rng))  # on the word before it: no other arc can cross
    return mixed


def _root(token: Token) -> Token:
    while token.head is not None:
        token = token.head
    return token


def _opener(root: Token, rng: Random) -> list[Token]:
    added: list[Token] = []
    chance = rng.random()
    if chance < 0.22:
        retweet = Token("RT", True, "X", root, "discourse")
        added = [retweet, Token(_handle(rng), False, "X", retweet, "discourse")]
        added.append(Token(":", True, "PUNCT", retweet, "punct"))
    elif chance < 0.42:
        handles = rng.choices((1, 2, 3), (75, 15, 10))[0]
        added = [Token(_handle(rng), True, "PROPN", root, "vocative") for _ in range(handles)]
    if rng.random() < 0.12:
        word = rng.choice(_INTERJECTIONS)
        cased = rng.choice((word, word, word.upper(), word.capitalize()))
        added.append(Token(cased, True, "INTJ", root, "discourse"))
    return added


def _closer(root: Token, tokens: list[Token], rng: Random) -> list[Token]:
    added: list[Token] = []
    if rng.random() < 0.06:
        added.append(Token(rng.choice(_INTERJECTIONS), True, "INTJ", root, "discourse"))
    if rng.random() < 0.25:
        added.append(_emoji(root, rng))
    tags = (
        [_tag(tokens, rng) for _ in range(rng.choice((1, 1, 2, 3)))] if rng.random() < 0.28 else []
    )
    hashtags = [Token(tag, True, "X", root, "discourse") for tag in tags]
    links = [Token(_link(rng), True, "X", root, "list")] if rng.random() < 0.3 else []
    added += hashtags + links if rng.random() < 0.6 else links + hashtags
    if not links and rng.random() < 0.06:
        handle = Token(_handle(rng), True, "PROPN", root, "nmod")
        added += [Token("via", True, "ADP", handle, "case"), handle]
    return added


def _emoji(head: Token, rng: Random) -> Token:
    emoji = rng.choice(_FREQUENT_EMOJI if rng.random() < 0.5 else _OTHER_EMOJI)
    runs = rng.choice((1, 1, 2, 3)) if not emoji.isascii() else 1
    return Token(emoji * runs, True, "SYM", head, "discourse")


def _tag(tokens: list[Token], rng: Random) -> str:
    words = [token.word.capitalize() for token in tokens if token.word.isalpha()]
    if not words or rng.random() < 0.7:
        return "#" + rng.choice(_TAGS)
    return "#" + "".join(rng.choice(words) for _ in range(rng.randint(1, 2)))


def _handle(rng: Random) -> str:
    """A made-up handle, or a placeholder that anonymised corpora put in its stead."""
    if rng.random() < 0.55:
        return rng.choice(("@user", "@user", "@USER", f"@USER{rng.randint(1, 3000)}"))
    name = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 9)))
    tail = rng.choice(("", "", "_", str(rng.randint(0, 99)), "_tv", "_x", "Official"))
    return "@" + (name if rng.random() < 0.6 else name.capitalize()) + tail


def _link(rng: Random) -> str:
    """A made-up link, or a placeholder that anonymised corpora put in its stead."""
    tail = "".join(rng.choice(string.ascii_letters + string.digits) for _ in range(8))
    if rng.random() < 0.45:
        return f"https://t.co/{tail}"
    if rng.random() < 0.5:
        return rng.choice(("http", "URL", f"URL{rng.randint(1, 3000)}", "HTTPURL"))
    if rng.random() < 0.6:
        return f"http://{rng.choice(('bit.ly', 'youtu.be', 'goo.gl', 'fb.me', 'ow.ly'))}/{tail}"
    return f"https://www.{tail.lower()}.com/{rng.choice(('news', 'watch', 'blog'))}/{tail}"
