"""Style sheet and glossary of the page."""

CSS = """
:root {
  color-scheme: light dark; --ink: #22262b; --soft: #646c76; --line: #dfe3e8; --page: #fff; --tint: #f5f7f9;
  --hero: #fdf1e8; --accent: #c24e00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e7eb; --soft: #9aa3ae; --line: #343a42; --page: #15181c; --tint: #1d2126; --hero: #33241a;
    --accent: #ff8a3c;
  }
}
body {
  margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; color: var(--ink); background: var(--page);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif;
}
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; }
h3 { font-size: 1.02rem; margin: 2rem 0 .3rem; }
a { color: var(--accent); }
nav a { margin-right: 1rem; white-space: nowrap; }
.soft, figcaption { color: var(--soft); }
.note, figcaption { font-size: .88rem; }
.verdict { border-left: 4px solid var(--accent); background: var(--tint); padding: .8rem 1.1rem; margin: 1.2rem 0; }
.verdict p { margin: .3rem 0; }
figure { margin: .4rem 0 1.2rem; }
figure svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .5rem 0; width: 100%; }
th, td { padding: .34rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child, .left th, .left td { text-align: left; }
td:first-child { min-width: 8.5rem; }
td small { display: block; color: var(--soft); font-weight: 400; white-space: nowrap; }
td.best { font-weight: 700; }
tr.hero { background: var(--hero); }
.runs td { white-space: nowrap; }
.swatch { display: inline-block; width: 1.3em; border-top: 3px; vertical-align: middle; margin-right: .5em; }
details { margin: .7rem 0; border-top: 1px solid var(--line); padding-top: .5rem; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--tint); padding: .7rem .9rem; overflow-x: auto; font-size: .82rem; }
dt { font-weight: 600; margin-top: .7rem; }
dd { margin: 0; max-width: 46rem; }
@media (max-width: 48rem) {
  table { font-size: .8rem; }
  th, td { padding: .3rem; }
  td:first-child { min-width: 6rem; }
  .scroll th:first-child, .scroll td:first-child { position: sticky; left: 0; background: var(--page); }
  .scroll tr.hero td:first-child { background: var(--hero); }
  figure { overflow-x: auto; }
  figure svg { min-width: 38rem; }
  figcaption { position: sticky; left: 0; }
}
"""

GLOSSARY = {
    "Score": "Share of evaluation episodes that succeed (or of sub-tasks solved): 0 is the worst, 1 the best. “Before” "
    "is the policy that fine-tuning starts from, “after” the one at its end.",
    "Regret": "1 − mean score over a uniform grid of online evaluations, the one at step 0 included: what was lost, on "
    "average, against a policy that always succeeds. 0 is perfect, 1 the worst.",
    "Dip": "Score at step 0 − lowest score in the first fifth of fine-tuning; “–” if only step 0 was "
    "evaluated there. As the lowest of noisy evaluations it is a little above 0 even if nothing was unlearned.",
    "Relative improvement": "(after − before) / before, of the aggregates; not shown if “before” may be 0, or "
    "if nothing was pre-trained.",
    "IQM": "Interquartile mean: the mean of the middle half of the runs. For fewer than four runs it is the mean.",
    "(a to b), range of the seeds": "With fewer than five seeds: the lowest and the highest of them. It is not a "
    "confidence interval: that of three seeds contains the limit of many seeds in about three cases out of four.",
    "[a, b], 95 % interval": "With five seeds or more: expanded percentile bootstrap (Hesterberg 2015), runs resampled "
    "with replacement within each task. In simulations of 5, 8 and 10 seeds it held the true value in 93 % to 97 % of "
    "cases. It covers the noise between seeds, not the choice of tasks or settings.",
    "Cal-QL's regret lower": "In how many pairs of a run of Cal-QL and a run of the other method Cal-QL has the lower "
    "regret, ties counting one half. With five seeds or more on both sides it is shown as a probability (0.5 means no "
    "difference) with the two-sided p-value of a permutation test over the seeds (exact Mann–Whitney on one task), not "
    "corrected for the number of methods. With three seeds on each side even 9 of 9 pairs has p = 0.1. Of several "
    "variants of Cal-QL, the one compared with is the one whose own row has a dash.",
    "Settled": "A difference is called settled if that test has p < 0.05 with at least five seeds on both sides.",
    "Mean Q, return of the data": "Mean of Q(s, a) over pairs of the data set, and mean of the discounted return "
    "G = Σ γᵏ r that followed them. A Q far below the return has to be relearned when fine-tuning starts, and the "
    "policy with it: that is the dip.",
    "Bounding rate": "Share of (state of the data, action of the policy) pairs with Q below the reference value, the "
    "return G of that state. Cal-QL replaces Q there by max(Q, G) in the term that is pushed down.",
}
