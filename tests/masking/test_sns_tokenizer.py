import time

import pytest

spacy = pytest.importorskip("spacy")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from opengrok_jax.masking.sns_tokenizer import configure  # noqa: E402
from opengrok_jax.masking.syntax import LONGEST_PIECE  # noqa: E402

NLP = configure(spacy.blank("en"))

# A post, and the words a reader sees in it; blanks separate the words.
READINGS = {
    "@ann: sooo good!!! 😂😂 #nyc https://t.co/x1": "@ann : sooo good !!! 😂😂 #nyc https://t.co/x1",
    "#a#b": "#a #b",
    "#1 in #2024goals": "# 1 in #2024goals",
    "great!#win": "great ! #win",
    "buy $TSLA at $5": "buy $TSLA at $ 5",
    "mail a.b@c.co.uk, now": "mail a.b@c.co.uk , now",
    "see (www.x.com) or bbc.co.uk/news.": "see ( www.x.com ) or bbc.co.uk/news .",
    "on cnn.com. x.com.au cnn.complete": "on cnn.com . x.com.au cnn.complete",
    "look:https://t.co/a1": "look : https://t.co/a1",
    "RT @x_y: “hi” …": "RT @x_y : “ hi ” …",
    "thanks:) :-( <3 :'( ^_^ T_T": "thanks :) :-( <3 :'( ^_^ T_T",
    "what?!?! no... yes--ok": "what ?!?! no ... yes -- ok",
    "&lt;3 &amp; co": "&lt;3 &amp; co",
    "ima wanna Wanna WANNA cant": "ima wan na Wan na WAN NA ca nt",
    "I'm i'm it's can't": "I 'm i 'm it 's ca n't",
    "5:30 3/4 e-mail w/o it": "5:30 3/4 e-mail w/o it",
    "＠ann ＃日本 #été #C3PO #100 #_x": "＠ann ＃日本 #été #C3PO # 100 #_x",
    "@ann's @ann, (@bob) .@cid": "@ann 's @ann , ( @bob ) . @cid",
    "RT@ann RT @ann: via @bob": "RT@ann RT @ann : via @bob",
    "http://a.b/c?d=e&f#g, ftp://h.i (https://t.co/x)": "http://a.b/c?d=e&f#g , ftp://h.i ( https://t.co/x )",
    "t.co/ab bit.ly/3x end.Next 3.5": "t.co/ab bit.ly/3x end . Next 3.5",
    "$tsla, $BRK $1 a$b": "$tsla , $BRK $ 1 a$b",
    ":D :-D ;) =) :p :'( D: (: xD XD 8) </3 -> <-": ":D :-D ;) =) :p :'( D: (: xD XD 8) </3 -> <-",
    ":// 10:30 (a:b)": "://  10:30 ( a : b )",
    "o_O O.o T_T ^_^ >_< -_- ¯\\_(ツ)_/¯": "o_O O.o T_T ^_^ >_< -_- ¯\\_(ツ)_/¯",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿🏳️‍🌈#️⃣ 🤷‍♀️🤷‍♀️ ☕ok": "🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈 #️⃣ 🤷‍♀️🤷‍♀️ ☕ ok",
    # family, skin tone, flag, keycap, variation selector: whole; runs of one emoji: one word
    "👨‍👩‍👧‍👦👍🏽🇺🇸🇫🇷1️⃣❤️❤️ok🔥": "👨‍👩‍👧‍👦 👍🏽 🇺🇸 🇫🇷 1️⃣ ❤️❤️ ok 🔥",
}


@pytest.mark.parametrize("post", READINGS)
def test_reads_posts_as_people_do(post):
    assert [token.text for token in NLP(post)] == READINGS[post].split()


def test_a_stock_tokenizer_does_not():
    stock = spacy.blank("en")
    same = [post for post in READINGS if [t.text for t in stock(post)] == READINGS[post].split()]
    assert len(same) < len(READINGS) / 2


POSTS = st.one_of(
    st.text(max_size=80).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)),
    st.lists(
        st.sampled_from(
            [*"#@$:;)(-!?.…/&'_ 1aX\n", "😂", "❤️", "🇺", "\u200d", "http", "www.", "x.co"]
        ),
        max_size=40,
    ).map("".join),
)


@given(POSTS)
def test_no_character_is_lost_or_moved(post):
    doc = NLP(post)
    assert "".join(token.text_with_ws for token in doc) == post
    assert all(post[token.idx : token.idx + len(token)] == token.text for token in doc)


def test_plain_spacy_loads_the_rules():
    plain = spacy.blank("en").from_bytes(NLP.to_bytes())
    for post in READINGS:
        assert [token.text for token in plain(post)] == READINGS[post].split()


@pytest.mark.parametrize(
    "piece", ["!", "#a", ".,", "@a", ":)", "😀😁", "a.", "x@", "http", "-", "¯\\_"]
)
def test_no_pattern_backtracks_without_end(piece):
    """The square of the length is known and capped for; anything worse would never come back."""
    chunk = (piece * LONGEST_PIECE)[: LONGEST_PIECE // 4]
    start = time.process_time()
    assert NLP(chunk).text == chunk
    assert time.process_time() - start < 5
