"""People look at answers, one at a time; what they decide overrules the checks.

verbs           what `opengrok review` does: the page, files for others, the summary
queueing        which answers are looked at, in which order
session         one reviewer at work
server          the page's server; page.html, page.css, page.js: the page
decision_log    the file that only grows
exchange        other programs' files: csv_table, label_studio
agreement       Cohen's kappa, of a reviewer with themselves and between two
bound           what may be said of the answers that nobody looked at
"""
