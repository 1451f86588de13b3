"""Every limit of the verdict, with its reason."""

# Quantiles good to a few per cent of an sd and log Z to 0.05: the number asked of MCMC (Vehtari
# et al. 2021, "Rank-normalization, folding, and localization: an improved R-hat"), of the bulk and
# of the tails.
MIN_RELIABLE_ESS = 400
# Below, log Z is off by 0.14 or more, and the ends of a 95 % interval are single draws.
MIN_USABLE_ESS = 50
# The chains of the posterior group accept too seldom below; weighted draws lose nothing.
MIN_RELIABLE_FRACTION = 0.1

# From here on weights have no variance: errors shrink more slowly than 1/sqrt(S), and ESS, means
# and errors all hang on the largest weight seen. The limit for usable is importance's own.
MAX_RELIABLE_K = 0.5
# Unless the tail holds little of the weight: were it ten times as heavy as it looks, log Z would
# move by 0.01 and by 0.1. The first is immaterial, the second no more than usable.
NEGLIGIBLE_TAIL, SMALL_TAIL = 1e-3, 1e-2

# A few unknown weights may be a corner of the support; at one draw in a hundred it is a region.
MIN_USABLE_FINITE = 0.99

# Of the prior's draws: fewer without a log-density may be an overflow far out.
MIN_UNDEFINED = 0.01

# Weight that rounding has made up moves log Z by so much, at the least.
MAX_RELIABLE_IMPRECISE, MAX_USABLE_IMPRECISE = 1e-3, 1e-2

# Equally weighted draws leave folded ones out: at most about this share of them is misplaced.
MAX_RELIABLE_FOLDED, MAX_USABLE_FOLDED = 0.01, 0.05

# Errors of log Z beyond which a Bayes factor is off by 10 %, by 65 %.
MAX_RELIABLE_SE, MAX_USABLE_SE = 0.1, 0.5

# Two estimates of log Z disagree beyond 4 joint errors (1 in 16,000 by chance if errors were
# normal, rather 1 in 1000 for skewed ones) and beyond a difference that decides anything: a Bayes
# factor off by 5 %, or by 28 %.
MAX_Z = 4.0
SMALL_NATS, LARGE_NATS = 0.05, 0.25
# Standard errors here are on the safe side: between healthy halves |z| stays below 3.1 in 10,000
# repeats (log-normal weights up to sd 2, Pareto weights up to k = 0.6, S = 1000 and 4000).
MAX_HALVES_Z, GROSS_HALVES_Z = 3.5, 5.0

# What moved points find is a lower end: chains with a few steps enter a missed part only a little
# (a funnel without the 16 % of its neck shows as an excess of 1-2 %). Only a significant excess
# below this is let pass as harmless.
MIN_MISSED = 0.003
# A region that the exploration found is measured whole, and its share is in the stated error of the
# evidence, but in no probability: each may be off by all of it. With the error of the share itself
# that stays below 3 %.
MAX_MISSED = 0.025
# Moved points must be able to show a missed part of this size, or they prove too little.
# From a few draws, all that they show is where these came from: nothing speaks for coverage then.
MAX_DETECTABLE, GROSS_DETECTABLE = 0.03, 0.2
# Moves that stand still prove nothing.
MIN_ACCEPTANCE = 0.1
MAX_CORRELATION = 0.95
# Where the inverse map fails nobody knows the weight: the points may all be missed ones.
MAX_FAILED, GROSS_FAILED = 0.01, 0.1

# Chains of NUTS (Vehtari et al. 2021). A divergence marks a place that the steps cannot enter:
# up to this share of them moved no probability by more than 0.02 on the hard posteriors, while
# 0.2 % went with a tail of which half was missing.
MAX_R_HAT = 1.01
# Its excess over one halves, at best, with every doubling of the chains.
HOPELESS_R_HAT = 1.2
MAX_DIVERGENT = 1e-3
# Of what the exploration found, beyond the reach of the chains: it may be missing from every
# probability.
MAX_RESCUE_MISSED = 0.02
# Points that a fold covers are counted up to three times.
MAX_RESCUE_FOLDED = 1e-3
