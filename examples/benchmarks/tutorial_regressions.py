"""Regressions and hierarchies as NumPyro's documentation teaches them, in small versions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from tutorial_base import Kind, generator, sigmoid


def linear(x, y):
    """Two predictors, normal noise."""
    a = numpyro.sample("a", dist.Normal(0.0, 0.2))
    b = numpyro.sample("b", dist.Normal(0.0, 0.5).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.Exponential(1.0))
    numpyro.sample("y", dist.Normal(a + x @ b, noise), obs=y)


def _linear_data():
    g = generator(0)
    x = g.normal(size=(50, 2))
    return {"x": x, "y": x @ [0.6, -0.3] + 0.5 * g.normal(size=50)}


def growth(patient, week, y, num=12):
    """Intercept and slope of every patient from two populations."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    with numpyro.plate("patients", num):
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    line = numpyro.deterministic("line", mean + sd * raw)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    with numpyro.plate("visits", len(y)):
        value = line[patient, 0] + line[patient, 1] * week
        numpyro.sample("y", dist.Normal(value, noise), obs=y)


def _growth_data():
    g = generator(1)
    patient, week = np.repeat(np.arange(12), 6), np.tile(np.linspace(-1.0, 1.0, 6), 12)
    lines = np.array([1.0, -0.8]) + 0.5 * g.normal(size=(12, 2))
    y = lines[patient, 0] + lines[patient, 1] * week + 0.3 * g.normal(size=72)
    return {"patient": patient, "week": week, "y": y}


def batting(at_bats, hits):
    """Averages from one beta population of unknown mean and concentration."""
    mean = numpyro.sample("mean", dist.Uniform(0.0, 1.0))
    concentration = numpyro.sample("concentration", dist.Pareto(1.0, 1.5))
    with numpyro.plate("players", len(hits)):
        beta = dist.Beta(mean * concentration, (1.0 - mean) * concentration)
        average = numpyro.sample("average", beta)
        numpyro.sample("hits", dist.Binomial(at_bats, average), obs=hits)


def _batting_data():
    g = generator(2)
    return {"at_bats": np.full(15, 45), "hits": g.binomial(45, g.beta(20.0, 55.0, 15))}


def schools(error, effect):
    """Eight schools, centred: a funnel where the schools agree."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", len(error)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("effect", dist.Normal(theta, error), obs=effect)


def _schools_data():
    return {
        "error": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
        "effect": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    }


def admissions(department, male, applied, admitted, num=6):
    """Binomial regression whose intercepts and slopes correlate over departments."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, concentration=2.0))
    with numpyro.plate("departments", num):
        raw = numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    effects = mean + raw @ (sd[:, None] * factor).T
    logits = effects[department, 0] + effects[department, 1] * male
    numpyro.sample("admitted", dist.Binomial(applied, logits=logits), obs=admitted)


def _admissions_data():
    g = generator(3)
    department, male = np.repeat(np.arange(6), 2), np.tile([0.0, 1.0], 6)
    applied = g.integers(30, 400, 12)
    logits = np.linspace(0.7, -2.2, 6)[department] - 0.1 * male
    return {
        "department": department,
        "male": male,
        "applied": applied,
        "admitted": g.binomial(applied, sigmoid(logits)),
    }


def logistic(x, y):
    """Bernoulli regression."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def _logistic_data():
    g = generator(4)
    x = g.normal(size=(100, 8))
    return {"x": x, "y": g.binomial(1, sigmoid(x @ g.normal(size=8)))}


def counts(group, x, y):
    """Log-linear counts in groups, with plates."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 0.5))
    level = numpyro.sample("level", dist.Normal(1.0, 1.0))
    spread = numpyro.sample("spread", dist.HalfNormal(0.5))
    with numpyro.plate("groups", 6):
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
    rate = jnp.exp(level + spread * offset[group] + slope * x)
    numpyro.sample("y", dist.Poisson(rate), obs=y)


def _counts_data():
    g = generator(5)
    group, x = np.repeat(np.arange(6), 8), g.normal(size=48)
    rate = np.exp(1.2 + 0.4 * g.normal(size=6)[group] + 0.3 * x)
    return {"group": group, "x": x, "y": g.poisson(rate)}


def zeros(x, y):
    """Counts with zeros of two kinds, each with its regression."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    gate = numpyro.sample("gate", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    inflated = dist.ZeroInflatedDistribution(
        dist.Poisson(jnp.exp(w[0] + w[1] * x)), gate_logits=gate[0] + gate[1] * x
    )
    numpyro.sample("y", inflated, obs=y)


def _zeros_data():
    g = generator(6)
    x = g.normal(size=120)
    there = g.random(120) < sigmoid(0.8 + 0.5 * x)
    return {"x": x, "y": np.where(there, g.poisson(np.exp(1.0 + 0.4 * x)), 0)}


def ordinal(x, y):
    """Ordered categories between cutpoints, whose prior is on the simplex of their shares."""
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones(4)))
    cut = jnp.cumsum(shares)[:-1]
    cutpoints = numpyro.deterministic("cutpoints", jnp.log(cut) - jnp.log1p(-cut))
    numpyro.sample("y", dist.OrderedLogistic(b * x, cutpoints), obs=y)


def _ordinal_data():
    g = generator(7)
    x = g.normal(size=80)
    latent = 0.9 * x + g.logistic(size=80)
    return {"x": x, "y": np.searchsorted([-1.5, 0.0, 1.2], latent)}


def truncated(x, y):
    """A line seen only above a threshold."""
    a = numpyro.sample("a", dist.Normal(0.0, 2.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.TruncatedNormal(a + b * x, noise, low=0.0), obs=y)


def _truncated_data():
    g = generator(8)
    x = g.normal(size=150)
    y = 0.5 + 0.7 * x + 0.6 * g.normal(size=150)
    return {"x": x[y > 0.0], "y": y[y > 0.0]}


def missing(age, sex, y):
    """Missing values of a predictor as latent sites of the model."""
    gaps = np.flatnonzero(np.isnan(age))
    mean = numpyro.sample("age_mean", dist.Normal(0.0, 0.5))
    sd = numpyro.sample("age_sd", dist.HalfNormal(1.0))
    filled = numpyro.sample("age_missing", dist.Normal(mean, sd).expand([len(gaps)]).to_event(1))
    age = jnp.asarray(np.nan_to_num(age)).at[gaps].set(filled)
    numpyro.sample("age", dist.Normal(mean, sd), obs=age)
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=w[0] + w[1] * age + w[2] * sex), obs=y)


def _missing_data():
    g = generator(9)
    age, sex = g.normal(size=100), g.integers(0, 2, 100).astype(float)
    y = g.binomial(1, sigmoid(-0.3 - 0.6 * age + 1.5 * sex))
    age[g.choice(100, 12, replace=False)] = np.nan
    return {"age": age, "sex": sex, "y": y}


def survival(x, time, died):
    """Weibull times, some of them cut off by the end of the study."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    shape = numpyro.sample("shape", dist.LogNormal(0.0, 0.5))
    weibull = dist.Weibull(jnp.exp(w[0] + w[1] * x), shape)
    with numpyro.handlers.mask(mask=died == 1):
        numpyro.sample("death", weibull, obs=time)
    # log P(T > t) of those who lived; their hazard up to then.
    lived = -((time / weibull.scale) ** shape)
    numpyro.factor("censored", jnp.where(died == 1, 0.0, lived).sum())


def _survival_data():
    g = generator(10)
    x = g.normal(size=80)
    time = np.exp(0.8 - 0.5 * x) * g.weibull(1.4, 80)
    return {"x": x, "time": np.minimum(time, 4.0), "died": (time < 4.0).astype(int)}


def items(person, item, right):
    """Two-parameter item response: ability against difficulty, scaled by discrimination."""
    with numpyro.plate("people", 20):
        ability = numpyro.sample("ability", dist.Normal(0.0, 1.0))
    with numpyro.plate("questions", 8):
        difficulty = numpyro.sample("difficulty", dist.Normal(0.0, 1.5))
        discrimination = numpyro.sample("discrimination", dist.LogNormal(0.0, 0.5))
    logits = discrimination[item] * (ability[person] - difficulty[item])
    numpyro.sample("right", dist.Bernoulli(logits=logits), obs=right)


def _items_data():
    g = generator(11)
    person, item = np.repeat(np.arange(20), 8), np.tile(np.arange(8), 20)
    logits = g.normal(size=20)[person] - np.linspace(-1.5, 1.5, 8)[item]
    return {"person": person, "item": item, "right": g.binomial(1, sigmoid(logits))}


def horseshoe(x, y):
    """Many predictors, few of which matter."""
    width = x.shape[1]
    overall = numpyro.sample("overall", dist.HalfCauchy(1.0))
    local = numpyro.sample("local", dist.HalfCauchy(1.0).expand([width]).to_event(1))
    raw = numpyro.sample("raw", dist.Normal(0.0, 1.0).expand([width]).to_event(1))
    beta = numpyro.deterministic("beta", overall * local * raw)
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x @ beta, noise), obs=y)


def _horseshoe_data():
    g = generator(12)
    x = g.normal(size=(60, 10))
    return {"x": x, "y": x[:, :2] @ [1.5, -1.0] + 0.5 * g.normal(size=60)}


def network(x, y):
    """A neural network with one hidden layer: its units may be exchanged and turned over."""
    first = numpyro.sample("first", dist.Normal(0.0, 1.0).expand([2, 4]).to_event(2))
    second = numpyro.sample("second", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    precision = numpyro.sample("precision", dist.Gamma(3.0, 1.0))
    inputs = jnp.stack([jnp.ones_like(x), x], axis=-1)
    mean = jax.nn.tanh(inputs @ first) @ second
    numpyro.sample("y", dist.Normal(mean, precision**-0.5), obs=y)


def _network_data():
    g = generator(13)
    x = np.linspace(-2.0, 2.0, 30)
    return {"x": x, "y": np.tanh(2.0 * x) + 0.3 * g.normal(size=30)}


def proportions(treated, clicked):
    """Two proportions, and the difference between them."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Normal(0.0, 0.5))
    numpyro.deterministic("lift", jax.nn.sigmoid(a + b) - jax.nn.sigmoid(a))
    numpyro.sample("clicked", dist.Bernoulli(logits=a + b * treated), obs=clicked)


def _proportions_data():
    g = generator(14)
    treated = np.repeat([0.0, 1.0], 150)
    return {"treated": treated, "clicked": g.binomial(1, 0.25 + 0.1 * treated)}


KINDS = (
    Kind("linear", "Bayesian regression", linear, _linear_data),
    Kind("growth", "hierarchical linear regression", growth, _growth_data),
    Kind("batting", "baseball: partial pooling", batting, _batting_data),
    Kind("schools", "bad posterior geometry: eight schools, centred", schools, _schools_data),
    Kind("admissions", "generalised linear mixed model, LKJ", admissions, _admissions_data),
    Kind("logistic", "logistic regression", logistic, _logistic_data),
    Kind("counts", "Poisson log-linear model", counts, _counts_data),
    Kind("zeros", "zero-inflated Poisson", zeros, _zeros_data),
    Kind("ordinal", "ordinal regression", ordinal, _ordinal_data),
    Kind("truncated", "truncated distributions", truncated, _truncated_data),
    Kind("missing", "imputation of missing values", missing, _missing_data),
    Kind("survival", "censored survival times", survival, _survival_data),
    Kind("items", "item response", items, _items_data),
    Kind("horseshoe", "horseshoe and sparse regression", horseshoe, _horseshoe_data),
    Kind("network", "Bayesian neural network", network, _network_data),
    Kind("proportions", "proportion test", proportions, _proportions_data),
)
