"""Every metric as one descriptor: to add one, write its function, list it here, render its docs.

What a report holds, the keys of `CollapseMetric`, the columns of training histories, labels, the
rows of tables and the table in ``docs/api/metrics.md`` (`documented`) follow from the list.
Loads no torch: the functions are loaded when they are first called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

#: What a metric may need beside class means, and how it is given.
NEEDS = {
    "scatter": "`scatter=True`",
    "classifier": "a classifier",
    "features": "the samples a second time",
    "labels": "their labels",
    "target": "a target",
    "ood": "`ood=`",
    "problem": "`problem=`",
    "groups": "groups of classes",
}

#: What a number is, and between which values it lies. A distance is that of two matrices or vectors
#: of length one.
KINDS = {
    "distance": (0.0, 2.0),
    "cosine": (-1.0, 1.0),
    "difference of cosines": (0.0, 2.0),
    "share": (0.0, 1.0),
    "count": (0.0, math.inf),
    "ratio": (0.0, math.inf),
    "norm": (0.0, math.inf),
    "difference of objectives": (0.0, math.inf),
    "logarithm": (-math.inf, math.inf),
}

#: What is said of numbers, by the mean that classes are centred on, so that they are not taken for
#: those of the other one.
CENTERINGS = {
    "class": "",
    "sample": "Centred on the mean of all samples, not of the classes: NC1, NC3 and what else is "
    "centred is that of the code of Papyan et al. (2020).",
}

#: What norms and angles are measured of.
VECTOR_PARTS = ("classifier", "centered_means")

#: Parts that say something of the classifier.
CLASSIFIER_PARTS = ("classifier", "logits", "centered_logits")


@dataclass(frozen=True)
class Descriptor:
    """One metric, and everything that is known of it.

    Attributes
    ----------
    key : str
        Its name in reports, logs and tables.
    label : str
        In words, for tables and pictures: a short title, a comma, details.
    formula, latex : str
        With K classes of n_k samples, means mu_k as rows of M, their mean mu, classifier W, bias b,
        within- and between-class covariances Sigma_W and Sigma_B.
    says : str
        What it measures, in a few words.
    collapsed : str
        Its value at full collapse; empty where collapse does not determine it.
    kind : str
        One of `KINDS`: what may be compared with what.
    measure : callable
        Its value: of a `Source` where it is measured once; of a `Source`, a part and a target; of
        `Directed` vectors; of the cosines between classifier rows and class means; of
        `GroupAngles` and one or two of its groups.
    fan : {"once", "target", "vectors", "pairs", "groups", "group_pairs"}
        What it is measured for: see ``measure``.
    parts : tuple of str
        What of the network it is measured of, where there is a choice.
    needs : tuple of str
        Of `NEEDS`.
    target : str
        What it compares with, where that is fixed.
    limits : str
        When it says less than it seems to.
    scale : {"log", "linear"}
        Of an axis.
    streaming : bool
        Whether `CollapseMetric` computes it.
    place : int
        From 1 on, its place among the few of a training history and of ``tightframe measure``;
        0 if it is not there.
    """

    key: str
    label: str
    formula: str
    latex: str
    says: str
    collapsed: str
    kind: str
    measure: Callable[..., Any]
    fan: Literal["once", "target", "vectors", "pairs", "groups", "group_pairs"] = "once"
    parts: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    target: str = ""
    limits: str = ""
    scale: Literal["log", "linear"] = "log"
    streaming: bool = False
    place: int = 0


def _loaded(home: str) -> Callable[..., Any]:
    """Return a function of this folder, ``"<module>.<name>"``, loaded when it is first called."""

    def call(*args: Any, **options: Any) -> Any:
        module, _, name = home.partition(".")
        return getattr(import_module(f"tightframe.metrics.{module}"), name)(*args, **options)

    return call


_nc1_quotient = _loaded("variability.nc1_quotient")
_cdnv = _loaded("variability.cdnv")
_self_duality = _loaded("frames.self_duality")
_nc5 = _loaded("decisions.nc5")
_certificate_gap = _loaded("decisions.certificate_gap")
_equinorm = _loaded("angles.equinorm")

#: All metrics, in the order in which reports and torchmetrics show those of one kind.
METRICS = (
    Descriptor(
        "nc1",
        "NC1, tr Σ_W Σ_B⁺ / K",
        "tr(Sigma_W pinv(Sigma_B)) / K",
        r"\operatorname{tr}(\Sigma_W \Sigma_B^+) / K",
        "spread within classes against spread between them",
        "0",
        "ratio",
        lambda s: s.nc1,
        needs=("scatter",),
        limits="infinite where all class means are equal; spread outside their span is not seen",
        streaming=True,
        place=1,
    ),
    Descriptor(
        "nc1_rank",
        "rank behind NC1",
        "rank(Sigma_B)",
        r"\operatorname{rank} \Sigma_B",
        "directions between class means that NC1 counts",
        "K - 1 if balanced",
        "count",
        lambda s: s.details.rank,
        needs=("scatter",),
        scale="linear",
    ),
    Descriptor(
        "nc1_quotient",
        "NC1 quotient, tr Σ_W / tr Σ_B",
        "tr Sigma_W / tr Sigma_B",
        r"\operatorname{tr} \Sigma_W / \operatorname{tr} \Sigma_B",
        "the traces of both spreads, without inverse",
        "0",
        "ratio",
        lambda s: _nc1_quotient(s.own, center=s.center),
        limits="infinite where all class means are equal",
        streaming=True,
        place=2,
    ),
    Descriptor(
        "cdnv",
        "CDNV, spread over class distance",
        "mean over i != j of (v_i + v_j) / (2 ||mu_i - mu_j||^2), v_k = tr Sigma_k",
        r"\langle (v_i + v_j) / (2 \lVert\mu_i - \mu_j\rVert^2) \rangle_{i \ne j}",
        "spread within two classes against their distance, over pairs",
        "0",
        "ratio",
        lambda s: _cdnv(s.own),
        limits="infinite where two class means are equal",
        streaming=True,
        place=3,
    ),
    Descriptor(
        "nc2",
        "NC2, Gram matrix to target",
        "||G/||G|| - G*/||G*||||, G = W W^T or M M^T",
        r"\lVert G/\lVert G\rVert - G^*/\lVert G^*\rVert \rVert_F",
        "Gram matrix of classifier or means against a target",
        "0",
        "distance",
        lambda s, part, target: s.vectors.distance(part, target),
        fan="target",
        parts=("classifier", "means", "centered_means"),
        needs=("target",),
        limits="centred means of two classes are a simplex ETF always; D < K - 1 puts a floor",
        streaming=True,
    ),
    Descriptor(
        "nc3",
        "NC3, logits to target",
        "||Z/||Z|| - Z*/||Z*||||, Z = W M^T",
        r"\lVert Z/\lVert Z\rVert - Z^*/\lVert Z^*\rVert \rVert_F",
        "mean logits against a target",
        "0",
        "distance",
        lambda s, part, target: s.vectors.distance(part, target),
        fan="target",
        parts=("logits", "centered_logits"),
        needs=("classifier", "target"),
        streaming=True,
    ),
    Descriptor(
        "self_duality",
        "NC3, classifier to centred means",
        "||W/||W|| - M/||M||||, M centred",
        r"\lVert W/\lVert W\rVert - M/\lVert M\rVert \rVert_F",
        "classifier against centred means, the classical NC3",
        "0 if balanced",
        "distance",
        lambda s: _self_duality(s.own, s.kept_weight, weighting=s.center),
        needs=("classifier",),
        streaming=True,
        place=5,
    ),
    Descriptor(
        "bias_alignment",
        "bias alignment, ‖b + W μ‖",
        "||b + W mu||",
        r"\lVert b + W \mu \rVert_2",
        "whether the bias only undoes the global mean",
        "0 if balanced",
        "norm",
        lambda s: float((s.bias + s.weight @ s.own.global_mean(s.center)).norm()),
        needs=("classifier",),
        streaming=True,
        place=6,
    ),
    Descriptor(
        "nc4",
        "NC4, share unlike nearest mean",
        "share of samples with argmax W h + b != argmin ||h - mu_k||",
        r"P(\operatorname{argmax}_k (W h + b)_k"
        r" \ne \operatorname{argmin}_k \lVert h - \mu_k \rVert)",
        "share of samples where classifier and nearest centre disagree",
        "0",
        "share",
        lambda s: s.decisions.nc4,
        needs=("features",),
        limits="a tie counts as disagreement",
        scale="linear",
        place=4,
    ),
    Descriptor(
        "accuracy",
        "accuracy",
        "share of samples with argmax W h + b = y",
        r"P(\operatorname{argmax}_k (W h + b)_k = y)",
        "share of samples that the classifier gets right",
        "1",
        "share",
        lambda s: s.decisions.accuracy,
        needs=("features", "labels"),
        scale="linear",
    ),
    Descriptor(
        "num_lost",
        "lost classes",
        "number of classes k with P(argmax W h + b = k | y = k) < 1/2",
        r"\#\{k : P(\operatorname{argmax}_j (W h + b)_j = k \mid y = k) < 1/2\}",
        "classes most of whose samples the classifier gets wrong",
        "0",
        "count",
        lambda s: s.decisions.answers.num_lost,
        needs=("classifier", "features", "labels"),
        limits="`classes()` names them",
        scale="linear",
    ),
    Descriptor(
        "nearest_center_accuracy",
        "accuracy of the nearest mean",
        "share of samples with argmin ||h - mu_k|| = y",
        r"P(\operatorname{argmin}_k \lVert h - \mu_k \rVert = y)",
        "share of samples whose nearest centre is their own",
        "1",
        "share",
        lambda s: s.decisions.nearest_center_accuracy,
        needs=("features", "labels"),
        scale="linear",
    ),
    Descriptor(
        "nc5",
        "NC5, out-of-distribution mean to class means",
        "mean of |cos(mu_k - mu, mu_OOD - mu)|",
        r"\langle \lvert \cos(\mu_k - \mu, \mu_{OOD} - \mu) \rvert \rangle_k",
        "how far out-of-distribution samples are from orthogonal to the class means",
        "0",
        "cosine",
        lambda s: _nc5(s.own, s.ood),
        needs=("ood",),
    ),
    Descriptor(
        "certificate_gap",
        "certificate gap",
        "F(W M^T) - lower bound of F",
        r"F(W \bar H) - \underline F",
        "distance of the objective from its minimum",
        "0",
        "difference of objectives",
        lambda s: _certificate_gap(
            s.problem, s.moments, s.weight, s.given_bias, lower_bound=s.lower_bound
        ),
        needs=("problem",),
        limits="an upper bound; loose for a poor network unless `lower_bound=` is given",
    ),
    Descriptor(
        "equinorm",
        "equinorm, variation of norms",
        "std ||x_k|| / mean ||x_k||",
        r"\operatorname{std} \lVert x_k \rVert / \operatorname{mean} \lVert x_k \rVert",
        "spread of the norms of classifier rows or centred means",
        "0 if balanced",
        "ratio",
        lambda v: _equinorm(v.vectors),
        fan="vectors",
        parts=VECTOR_PARTS,
        streaming=True,
    ),
    Descriptor(
        "equiangularity",
        "equiangularity, deviation of cosines",
        "std of cos(x_i, x_j), i != j",
        r"\operatorname{std}_{i \ne j} \cos(x_i, x_j)",
        "spread of the cosines between classifier rows, or centred means",
        "0 if balanced",
        "difference of cosines",
        lambda v: v.cosines.std,
        fan="vectors",
        parts=VECTOR_PARTS,
        streaming=True,
    ),
    Descriptor(
        "cosine_mean",
        "mean cosine",
        "mean of cos(x_i, x_j), i != j",
        r"\langle \cos(x_i, x_j) \rangle_{i \ne j}",
        "mean of those cosines",
        "-1/(K - 1) if balanced",
        "cosine",
        lambda v: v.cosines.mean,
        fan="vectors",
        parts=VECTOR_PARTS,
        scale="linear",
    ),
    Descriptor(
        "etf_deviation",
        "deviation from the simplex ETF's cosine",
        "mean of |cos(x_i, x_j) + 1/(K - 1)|, i != j",
        r"\langle \lvert \cos(x_i, x_j) + 1/(K - 1) \rvert \rangle_{i \ne j}",
        "how far those cosines are from a simplex ETF's",
        "0 if balanced",
        "difference of cosines",
        lambda v: v.cosines.etf_deviation,
        fan="vectors",
        parts=VECTOR_PARTS,
        target="simplex ETF",
    ),
    Descriptor(
        "coherence",
        "mutual coherence",
        "max |cos(x_i, x_j)|, i != j",
        r"\max_{i \ne j} \lvert \cos(x_i, x_j) \rvert",
        "the largest of those cosines, without sign",
        "1/(K - 1) if balanced",
        "cosine",
        lambda v: v.cosines.coherence,
        fan="vectors",
        parts=VECTOR_PARTS,
        scale="linear",
    ),
    Descriptor(
        "uniformity_log_mean",
        "uniformity, mean log kernel",
        "mean of log(1 / ||u_i - u_j||), i != j, u = x / ||x||",
        r"\langle \log \lVert u_i - u_j \rVert^{-1} \rangle_{i \ne j}",
        "how evenly the directions fill the sphere: the smaller, the more",
        "",
        "logarithm",
        lambda v: v.uniformity.mean,
        fan="vectors",
        parts=VECTOR_PARTS,
        scale="linear",
    ),
    Descriptor(
        "uniformity_log_cov",
        "uniformity, variation of the log kernel",
        "std / |mean| of log(1 / ||u_i - u_j||)",
        r"\operatorname{cov} \log \lVert u_i - u_j \rVert^{-1}",
        "variation of that kernel over pairs",
        "0 if balanced",
        "ratio",
        lambda v: v.uniformity.cov,
        fan="vectors",
        parts=VECTOR_PARTS,
    ),
    Descriptor(
        "alignment_mean",
        "alignment, mean over classes",
        "mean of cos(w_k, mu_k - mu)",
        r"\langle \cos(w_k, \mu_k - \mu) \rangle_k",
        "cosine of a classifier row and its class's centred mean",
        "1 if balanced",
        "cosine",
        lambda cosines: cosines.mean(),
        fan="pairs",
        needs=("classifier",),
        scale="linear",
    ),
    Descriptor(
        "alignment_min",
        "alignment, least over classes",
        "min of cos(w_k, mu_k - mu)",
        r"\min_k \cos(w_k, \mu_k - \mu)",
        "the least of those cosines",
        "1 if balanced",
        "cosine",
        lambda cosines: cosines.min(),
        fan="pairs",
        needs=("classifier",),
        scale="linear",
    ),
    Descriptor(
        "distance_norm_mean",
        "distance of classifier and means, mean over classes",
        "mean of ||w_k / ||w_k|| - m_k / ||m_k||||, m_k = mu_k - mu",
        r"\langle \lVert w_k/\lVert w_k\rVert - m_k/\lVert m_k\rVert \rVert \rangle_k,"
        r" \; m_k = \mu_k - \mu",
        "distance of the directions of a classifier row and its class's centred mean",
        "0 if balanced",
        "distance",
        lambda cosines: ((2 - 2 * cosines).clip(0) ** 0.5).mean(),
        fan="pairs",
        needs=("classifier",),
    ),
    Descriptor(
        "group_norm",
        "mean norm of a group",
        "mean of ||x_k|| over a group",
        r"\langle \lVert x_k \rVert \rangle_{k \in g}",
        "norms in groups of equal count",
        "",
        "norm",
        lambda angles, i: angles.norms[i],
        fan="groups",
        parts=VECTOR_PARTS,
        needs=("groups",),
        scale="linear",
    ),
    *(
        Descriptor(
            f"group_cosine_{what}",
            f"{what} cosine of two groups",
            f"{what} of cos(x_i, x_j), i in one group, j in another or the same",
            rf"\operatorname{{{what}}}_{{i \in g, j \in h}} \cos(x_i, x_j)",
            "cosines within and between groups of equal count",
            "",
            "cosine",
            lambda angles, i, j, what=what: getattr(angles, what)[i, j],
            fan="group_pairs",
            parts=VECTOR_PARTS,
            needs=("groups",),
            limits="a group's own of 1: its classes have merged",
            scale="linear",
        )
        for what in ("minimum", "mean", "maximum")
    ),
)

#: By key.
BY_KEY = {metric.key: metric for metric in METRICS}

#: The few of a training history and of ``tightframe measure``, in their order.
LEADING = tuple(sorted((m for m in METRICS if m.place), key=lambda m: m.place))


def of_fan(*fans: str) -> tuple[Descriptor, ...]:
    """Return the metrics that are measured for these."""
    return tuple(metric for metric in METRICS if metric.fan in fans)


#: Distances to a target, which a row names: NC2 and NC3.
TO_TARGET = frozenset(metric.key for metric in of_fan("target"))


def about_classifier(key: str, part: str) -> bool:
    """Return whether a number says something of the classifier, not of the features alone."""
    return part in CLASSIFIER_PARTS or (not part and "classifier" in BY_KEY[key].needs)


def documented() -> str:
    """Return the table of all metrics in Markdown."""
    lines = [
        "| number | what it says | formula | collapsed | needs | limits |",
        "|---|---|---|---|---|---|",
    ]
    for m in METRICS:
        needs = ", ".join(NEEDS[need] for need in m.needs)
        cells = (f"`{m.key}`", m.says, f"${m.latex}$", m.collapsed, needs, m.limits)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
