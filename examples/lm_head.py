"""A language model's head: 50,000 words with Zipf counts, predicted and measured in little memory.

A K x K matrix would need 18.6 GiB in float64. The prediction works on groups of words of equal
count, the metrics on K x D arrays, and what needs all pairs of words goes through them in tiles.
"""

import argparse
import resource
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import tightframe as tf
from tightframe.metrics import ClassMoments, cdnv, equinorm, nc1, nc1_quotient, nc2, nc3

#: What may be added to the memory in use after the imports, in MiB.
BUDGET = 600

#: Entries of one float32 tile of the K x K matrix: 16 MiB.
TILE = 2**22


def zipf(classes: int, groups: int, most: int) -> list[tuple[int, int]]:
    """Return (count, words) by group.

    The word of rank r is seen about ``most / r`` times; the words of a group share a count.
    """
    edges = np.unique(np.geomspace(1, classes + 1, groups).astype(int))
    means = [np.mean(most / np.arange(a, b)) for a, b in pairwise(edges)]
    return [
        (max(1, round(mean)), int(b - a))
        for mean, (a, b) in zip(means, pairwise(edges), strict=True)
    ]


def nearest_words(weight: torch.Tensor) -> tuple[float, int, int]:
    """Return the largest cosine between two rows, and which: half of the K x K pairs, in tiles."""
    rows = torch.nn.functional.normalize(weight, dim=1)
    best, pair = -2.0, (0, 0)
    step = max(1, int(TILE**0.5))
    for i in range(0, len(rows), step):
        for j in range(i, len(rows), step):
            cosines = rows[i : i + step] @ rows[j : j + step].T
            if i == j:
                cosines.fill_diagonal_(-2.0)
            largest = float(cosines.max())  # argmax is slow, and seldom needed
            if largest > best:
                best, place = largest, int(cosines.argmax())
                pair = (i + place // cosines.shape[1], j + place % cosines.shape[1])
    return best, *pair


def peak() -> float:
    """Return the largest memory this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one too
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Predict, train a little, measure, and hold the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    k, d = options.classes, options.dim
    torch.manual_seed(0)
    torch.rand(64, 64) @ torch.rand(64, 64)  # the libraries' own buffers are not ours
    before, clock = peak(), time.perf_counter()

    # The decays are such that all words rarer than the 40 most frequent merge, group by group.
    groups = zipf(k, 40, 10_000)
    counts = ",".join(f"{n}x{words}" for n, words in groups)
    samples = sum(n * words for n, words in groups)
    rarest_apart = groups[int(np.searchsorted(np.cumsum([w for _, w in groups]), 40))][0]
    decay = 1.01 * rarest_apart**0.5 / samples
    problem = tf.Problem(counts, weight_decay=30 * decay, feature_decay=decay / 30)
    solution = tf.solve(problem)
    merged = int(solution.group_collapsed @ solution.blocks.partition.sizes)
    print(f"{k:,} words, {samples:,} tokens, {len(problem.groups)} groups of equal count")
    print(
        f"predicted ({solution.status}, gap {solution.gap:.1e}): {merged:,} words share their "
        f"group's logits; the rank is {solution.rank}, and D = {d}"
    )

    # A head that is trained a little on features near one vector a word.
    words = torch.from_numpy(np.repeat(np.arange(k), problem.counts))
    centers = torch.randn(k, d)
    head = torch.nn.Linear(d, k, bias=False)
    optimizer = torch.optim.SGD(head.parameters(), lr=200.0)
    stream = torch.Generator().manual_seed(1)
    for _ in range(8):
        y = words[torch.randint(len(words), (128,), generator=stream)]
        x = centers[y] + 0.3 * torch.randn(len(y), d, generator=stream)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(x), y).backward()
        optimizer.step()

    moments = ClassMoments(k, d)
    for y in words.split(8192):
        moments.update(centers[y] + 0.3 * torch.randn(len(y), d, generator=stream), y)
    weight = head.weight.detach()
    print(f"NC1 {nc1(moments):.3e}, tr/tr {nc1_quotient(moments):.4f}")
    print(f"classifier: equinorm {equinorm(weight):.4f}")
    for name, target in (("prediction", solution), ("ETF", "etf")):
        print(
            f"to the {name}: classifier {nc2(weight, target):.4f}, "
            f"centred means {nc2(moments, target):.4f}, logits {nc3(moments, weight, target):.4f}"
        )
    cosine, first, second = nearest_words(weight)
    print(
        f"all {k * (k - 1) // 2:,} pairs: nearest words {first} and {second}, cosine {cosine:.4f}"
    )
    frequent = moments_of(range(1000), words, centers)
    print(f"CDNV of the 1000 most frequent words {cdnv(frequent):.4f}")

    used = peak() - before
    print(
        f"{time.perf_counter() - clock:.1f} s, peak memory {used:.0f} MiB of {BUDGET} MiB allowed"
    )
    if used > BUDGET:
        sys.exit("over the memory budget")


def moments_of(chosen: range, words: torch.Tensor, centers: torch.Tensor) -> ClassMoments:
    """Return moments of some words only, at most 50 tokens each."""
    moments, stream = ClassMoments(len(chosen), centers.shape[1]), torch.Generator().manual_seed(2)
    own = torch.repeat_interleave(torch.tensor(chosen), 50)
    return moments.update(
        centers[own] + 0.3 * torch.randn(len(own), centers.shape[1], generator=stream), own
    )


if __name__ == "__main__":
    main()
