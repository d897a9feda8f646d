"""The views as text: coloured on a terminal, plain in a pipe, harmless in both.

Hidden tokens are struck through on a terminal; in plain text they stand in `[-brackets-]`, and
characters of which only some bytes are hidden in `[~brackets~]`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from opengrok_jax.pages import inert, pieces
from opengrok_jax.tokenizer import ChatTokenizer
from opengrok_jax.tools.inspection.row import Row
from opengrok_jax.tools.inspection.stats import Stats, sentences
from opengrok_jax.tools.inspection.tokens import FACTORS, Explained

# Even steps of one hue, from what is likely to go to what is likely to stay.
SHADES = ("grey42", "steel_blue", "deep_sky_blue3", "deep_sky_blue1", "bright_cyan")
WIDE = 150  # columns that the terms of the formula need beside the factors
ROLE_STYLE = {"template": "dim", "prompt": "", "response": "underline", "padding": "dim"}


def console() -> Console:
    """Standard output; in a pipe as wide as the lines are."""
    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, emoji=False, width=width, soft_wrap=False)


def shade(keep_prob: float) -> str:
    """The colour of a probability."""
    return SHADES[min(int(keep_prob * len(SHADES)), len(SHADES) - 1)]


def show_tokens(out: Console, shown: Explained, chat: ChatTokenizer) -> None:
    """An example."""
    set_ = shown.settings
    share = (
        ""
        if shown.visible_share is None
        else f", {100 * shown.visible_share:.1f} % of those visible"
    )
    free = sum(token.free for token in shown.tokens)
    out.print(Text(f"example {shown.number}: {inert(shown.id)} ({shown.split})", "bold"))
    out.print(f"{len(shown.tokens)} tokens, {free} may be hidden{share}; scope {set_['scope']}")
    out.print(formula(set_))
    if shown.differing:
        out.print(Text(f"{shown.differing} tokens do not follow from the formula", "bold red"))
    out.print()
    out.print(
        flowing(
            out,
            chat,
            [token.id for token in shown.tokens],
            [token.visible for token in shown.tokens],
            lambda n: (shown.tokens[n].role, shown.tokens[n].keep_prob),
        ),
        soft_wrap=not out.is_terminal,
    )
    out.print()
    wide = not out.is_terminal or out.width >= WIDE
    names = "".join(f" {name:>{12 if wide else 6}}" for name in FACTORS.values())
    head = f"{'#':>4} {'token':<16} {'role':<8}{names}"
    head += f"{'bias':>8}{'sum':>8}" if wide else f"{'sum':>8}"
    out.print(Text(f"{head} {'keep':>5} {'u':>5} {'why' if wide else ''}", "dim"), soft_wrap=True)
    for token in shown.tokens:
        line = Text(f"{token.place:>4} ")
        line.append(_cell(token.text, 16), shade(token.keep_prob) if token.free else "dim")
        line.append(f" {token.role:<8}")
        for name, value in token.terms.items():
            line.append(f" {token.factors[name]:>5.2f}{f' {value:>+6.2f}' if wide else ' '}")
        line.append(f" {set_['bias']:>+7.2f}" if wide else "")
        line.append(f" {token.total:>+7.2f} {token.keep_prob:>5.3f}")
        line.append(f" {token.u:>5.3f} ")
        fate = "kept" if token.visible else "hidden"
        line.append(token.why if wide else fate, "" if token.visible else "red")
        out.print(line, soft_wrap=True)


def formula(settings: dict) -> str:
    """The formula with this run's numbers."""
    terms = " + ".join(f"{settings[weight]:g} {factor}" for weight, factor in FACTORS.items())
    target = settings["target_keep_rate"]
    by = "" if target is None else f", the bias found for a keep rate of {target:g}"
    return f"keep_prob = sigmoid({terms} {settings['bias']:+.4f}), visible where u < keep_prob{by}"


def show_row(out: Console, row: Row, chat: ChatTokenizer) -> None:
    """A training row."""
    used = [position for position in row.positions if position.segment]
    bearing = sum(position.loss_weight > 0 for position in used)
    out.print(Text(f"row {row.number} of {row.rows} (training split)", "bold"))
    out.print(
        f"{row.row_tokens} positions: {len(used)} tokens, {row.row_tokens - len(used)} padding; "
        f"{bearing} bear loss; normalize {row.normalize}, rule {row.rule}"
    )
    steps = ", ".join(map(str, row.steps)) or "none"
    epoch = f"; the mask of epoch {row.epoch}" if row.epoch else ""
    out.print(
        f"learnt in update {steps}{epoch}; attention stays within a segment and looks back only"
    )
    for doc in row.documents:
        out.print()
        out.print(
            Text(
                f"segment {doc.segment}: positions {doc.start} to {doc.stop - 1}, example "
                f"{doc.number} ({inert(doc.id)}), {doc.hidden} keys hidden, "
                f"{doc.bearing} bear loss",
                "bold",
            )
        )
        mine = row.positions[doc.start : doc.stop]
        out.print(
            flowing(
                out,
                chat,
                [position.token for position in mine],
                [position.visible for position in mine],
                lambda n, mine=mine: (mine[n].role, 1.0),
            ),
            soft_wrap=not out.is_terminal,
        )
    out.print()
    head = f"{'at':>5} {'seg':>3} {'pos':>5} {'id':>6} {'token':<16} {'role':<8} {'key':<6} "
    out.print(Text(head + f"{'predicts':<16} {'loss_weight':>11} {'norm_weight':>11}", "dim"))
    for position in row.positions:
        line = Text(f"{position.at:>5} {position.segment:>3} {position.position:>5} ")
        line.append(f"{position.token:>6} ")
        line.append(_cell(position.text, 16), ROLE_STYLE[position.role])
        line.append(f" {position.role:<8} ")
        line.append(
            f"{'seen' if position.visible else 'hidden':<6} ", "" if position.visible else "red"
        )
        line.append(_cell(position.target_text, 16), "green")
        line.append(f" {position.loss_weight:>11g} {position.norm_weight:>11g}")
        out.print(line, soft_wrap=True)


def show_stats(out: Console, stats: Stats) -> None:
    """The statistics."""
    read = "all" if stats.examples == stats.of else f"{stats.examples:,} spread evenly over the"
    out.print(Text(f"{read} {stats.of:,} examples", "bold"))
    said = sentences(stats)
    for role in stats.roles:
        rate = f"{100 * role.visible / role.tokens:.1f} % visible" if role.tokens else ""
        out.print(
            f"{role.name:<9} {role.tokens:>12,} tokens, {role.free:>12,} may be hidden  {rate}"
        )
    for curve in stats.curves:
        out.print()
        out.print(Text(f"keep rate by {curve.name}", "bold"))
        out.print(said[curve.name], soft_wrap=True)
        for n, tokens in enumerate(curve.tokens):
            low, high, rate = curve.low[n], curve.high[n], curve.rate(n)
            name = f"{low:.1f}" if low == high else f"{low:.1f}-{high:.1f}"
            line = Text(f"{name:>9} {tokens:>12,} tokens {100 * rate:>7.1f} % ")
            line.append("█" * round(40 * rate), "deep_sky_blue3")
            out.print(line)
    out.print()
    out.print(Text("tokens of an example", "bold"))
    out.print(said["length"])
    most = max(stats.length_counts, default=0)
    for low, high, number in zip(
        stats.length_edges, stats.length_edges[1:], stats.length_counts, strict=False
    ):
        line = Text(f"{f'{low}-{high - 1}':>9} {number:>12,} examples      ")
        line.append("█" * round(40 * number / max(most, 1)), "deep_sky_blue3")
        out.print(line)


def flowing(
    out: Console,
    chat: ChatTokenizer,
    ids: Sequence[int],
    visible: Sequence[bool],
    of: Callable[[int], tuple[str, float]],
) -> Text:
    """Some tokens as running text.

    Args:
      out: where it will be printed; decides between colours and brackets.
      chat: of the tokens.
      ids, visible: of the tokens.
      of: role and keep_prob of the n-th of them.
    """
    text = Text()
    for piece in pieces(chat, list(ids)):
        role, keep_prob = of(piece.first)
        shown = sum(visible[piece.first : piece.stop])
        said = inert(piece.text, lines=True)
        if out.is_terminal:
            style = ROLE_STYLE[role] if role == "template" else shade(keep_prob)
            style += " underline" if role == "response" else ""
            text.append(said, style if shown else "strike red")
        elif shown == piece.stop - piece.first:
            text.append(said)
        else:
            text.append(f"[~{said}~]" if shown else f"[-{said}-]")
    return text


def _cell(text: str, width: int) -> str:
    """Text in so many columns, however wide its characters are; nothing that moves the cursor."""
    said = inert(text).replace(" ", "▁") or ""
    if cell_len(said) > width:
        said = set_cell_size(said, width - 1) + "…"
    return set_cell_size(said, width)
