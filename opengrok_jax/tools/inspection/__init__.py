"""What `opengrok inspect` shows, each view first as plain values, then drawn.

reading    single examples out of millions, and what all have in common, without reading all
tokens     an example: the terms of the formula, the draw, and why each token stays or goes
row        a packed training row as the model will see it
stats      distributions, and the keep rate against each factor
terminal   the three views as text, page the same as one self-contained HTML file
"""
