"""Reference for the metrics: two passes, float64, plain loops over classes, pairs and samples.

Written from the formulas of the papers, sharing no code with tightframe. ``x`` is (N, D) float64,
``y`` (N,) int, ``k`` the number of classes, all of which have samples; ``w`` (K, D), ``b`` (K,).
"""

import math

import numpy as np


def class_means(x, y, k):
    """Exactly rounded sums over the count, so the mean itself is as good as float64 allows."""
    rows = []
    for c in range(k):
        own = x[y == c]
        rows.append([math.fsum(column) / len(own) for column in own.T.tolist()])
    return np.array(rows)


def traces(x, y, k):
    means = class_means(x, y, k)
    return np.array(
        [
            math.fsum(((x[y == c] - means[c]) ** 2).ravel().tolist()) / np.sum(y == c)
            for c in range(k)
        ]
    )


def within(x, y, k):
    total = np.zeros((x.shape[1], x.shape[1]))
    for c in range(k):
        own = x[y == c]
        total += len(own) * np.atleast_2d(np.cov(own.T, bias=True))
    return total / len(x)


def global_mean(x, y, k, weighting="class"):
    return class_means(x, y, k).mean(axis=0) if weighting == "class" else x.mean(axis=0)


def between(x, y, k, weighting="class"):
    means, middle = class_means(x, y, k), global_mean(x, y, k, weighting)
    total = np.zeros((x.shape[1], x.shape[1]))
    for c in range(k):
        share = 1 / k if weighting == "class" else np.sum(y == c) / len(x)
        total += share * np.outer(means[c] - middle, means[c] - middle)
    return total


def nc1(x, y, k, weighting="class", rank=None):
    """The caller says the rank of Sigma_B: no cut-off is guessed here."""
    rank = min(k - 1, x.shape[1]) if rank is None else rank
    values, vectors = np.linalg.eigh(between(x, y, k, weighting))
    sigma_w = within(x, y, k)
    total = 0.0
    for r in range(1, rank + 1):
        v = vectors[:, -r]
        total += v @ sigma_w @ v / values[-r]
    return total / k


def nc1_quotient(x, y, k, weighting="class"):
    return np.trace(within(x, y, k)) / np.trace(between(x, y, k, weighting))


def cdnv(x, y, k):
    means, v = class_means(x, y, k), traces(x, y, k)
    terms = []
    for i in range(k):
        for j in range(i + 1, k):
            terms.append((v[i] + v[j]) / (2 * np.sum((means[i] - means[j]) ** 2)))
    return sum(terms) / len(terms)


def nc4(queries, x, y, k, w, b):
    means = class_means(x, y, k)
    differing = 0
    for h in queries:
        logits = [w[c] @ h + b[c] for c in range(k)]
        distances = [np.linalg.norm(h - means[c]) for c in range(k)]
        differing += int(np.argmax(logits) != np.argmin(distances))
    return differing / len(queries)


def grams(x, y, k, w):
    """Return the four K x K matrices, entry by entry."""
    means = class_means(x, y, k)
    middle = sum(means) / k
    out = {name: np.zeros((k, k)) for name in ("classifier", "means", "centered_means", "logits")}
    for i in range(k):
        for j in range(k):
            out["classifier"][i, j] = w[i] @ w[j]
            out["means"][i, j] = means[i] @ means[j]
            out["centered_means"][i, j] = (means[i] - middle) @ (means[j] - middle)
            out["logits"][i, j] = w[i] @ means[j]
    return out


def frobenius_distance(a, b):
    return math.sqrt(
        sum(
            (p / np.linalg.norm(a) - q / np.linalg.norm(b)) ** 2
            for p, q in zip(a.flat, b.flat, strict=True)
        )
    )


def self_duality(x, y, k, w):
    means = class_means(x, y, k)
    return frobenius_distance(w, means - sum(means) / k)


def bias_alignment(x, y, k, w, b):
    middle = sum(class_means(x, y, k)) / k
    return math.sqrt(sum((b[c] + w[c] @ middle) ** 2 for c in range(k)))


def margins(x, y, k, w):
    """Averaged over the samples, not taken from the class means."""
    out = np.zeros((k, k))
    for c in range(k):
        own = x[y == c]
        for j in range(k):
            out[j, c] = np.mean([w[c] @ h - w[j] @ h for h in own])
    return out
