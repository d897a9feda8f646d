"""Posts as people write them and as nobody should: for property tests of alignment."""

from hypothesis import strategies as st


def _cut(text: str) -> list[str]:
    return text.split()


FRAGMENTS = {
    "words": _cut("I love this don't can't naïve Straße ıI #tag #b2b @user_1 RT $TSLA https://t.co/x1 www.x.co !!! ?! ... :) <3 ¯\\_(ツ)_/¯"),
    "emoji": _cut("😂 😂😂 ❤️ ❤ ☕ 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 🤷‍♀️ 1️⃣ 🇺🇸 🇫🇷🇩🇪 🇺 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏻 \u200d \ufe0f"),
    "combining": ["e\u0301", "\u0301", "n\u0303\u0308\u0323", "Z\u0351\u036b\u0343\u036a", "क्षि", "ไม่มี", "각"],
    "scripts": _cut("中文字 日本語テスト ｶﾀｶﾅ 한국어 Привет Ελλάδα"),
    "right to left": ["مرحبا", "שלום", "\u200fאבג\u200e", "\u202eabc\u202c", "سلام 123 abc"],
    "bytes": ["𒀀", "𝒜𝓫", "\ue00d", "\uffff", "\x00", "\x07", "\U0010ffff"],
    "space": [" ", "  ", "\n", "\r\n", "\n\n\n", "\r", "\t", "\xa0", "\x85", "\u2028", "\u3000", "\x1c"],
    "entities": _cut("&amp; &lt;3 &#x27; &quot;hi&quot; &nbsp;"),
    "nfkc": _cut("ﬁne ½ … ① ｗｉｄｅ ㍿ Å ™ ＃tag ＠user"),
    "zero width": ["\u200b", "\u200c", "\ufeff", "\u2060", "\xad", "a\u200bb"],
    "surrogates": ["\ud83d", "\ude00", "a\ud83db", "\ude00\ud83d"],
    "control tokens": _cut("<|end|> <|user|> <|assistant|> <|endoftext|> <s> </s> <unk> <0x41> ▁ ▁▁a"),
}  # fmt: skip

fragments = st.one_of([st.sampled_from(part) for part in FRAGMENTS.values()])
glued = st.lists(
    st.tuples(fragments, st.sampled_from(["", "", " "])).map("".join), max_size=14
).map("".join)
anything = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=30)
posts = st.one_of(glued, glued, anything)

# One post of every kind by itself and between words, and the edges.
EDGES = (
    "",
    " ",
    "\n\n",
    "\r\n",
    " \t\x85\u2028 ",
    "\u200b",
    "\ud83d",
    *(f"{piece}" for part in FRAGMENTS.values() for piece in part),
    *(f"ok {piece}yes" for part in FRAGMENTS.values() for piece in part),
)

LONG = (
    ("so good " * 1250)[:10_000],
    ("👨‍👩‍👧‍👦 مرحبا ﬁne\r\n" * 600)[:10_000],
    "😀" * 10_000,
    "a" * 10_000,
    "!" * 10_000,
    "#a" * 5_000,
    "\u0301" * 10_000,
    ("日本語" * 4_000)[:10_000],
    " " * 10_000,
)
