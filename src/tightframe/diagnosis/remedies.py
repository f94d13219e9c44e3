"""Remedies: what helps a network, ranked by what became of its classes, with the evidence.

Networks with a lost class need other features, so that the head alone does not suffice; where no
class is lost, the prior that the loss saw is what is in the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tightframe.diagnosis.evidence import DRAWN_ALIKE, NONE_LOST, SOME_LOST, Evidence, evidence
from tightframe.diagnosis.head import ADJUSTED, BALANCED, LOWER, NEARLY, POST_HOC, HeadAnswer
from tightframe.diagnosis.training import Training
from tightframe.saved import kept
from tightframe.shown import record

#: In the order in which they are advised.
RANKED = {
    SOME_LOST: (
        "smaller decay + logit adjustment",
        "smaller decay + balanced weights",
        "oversampling",
        "balanced weights",
        "smaller decay",
        BALANCED,
        "logit adjustment",
        ADJUSTED,
    ),
    NONE_LOST: (
        POST_HOC,
        "smaller decay + logit adjustment",
        "logit adjustment",
        ADJUSTED,
        "balanced weights",
        BALANCED,
        "smaller decay",
    ),
    DRAWN_ALIKE: ("smaller decay + logit adjustment", ADJUSTED),
}

#: What is not advised, and is said so.
ADVISED_AGAINST = {
    SOME_LOST: (POST_HOC,),
    NONE_LOST: ("LDAM-DRW",),
    DRAWN_ALIKE: ("logit adjustment",),
}

#: How many times the decay's pull inwards the loss's pull outwards is, of a head that still grows:
#: trained to the end it was up to 1.05 times on SGD, below 1 on AdamW.
GROWING = 1.25

_OF_THE_FINISHED = "What follows is known of networks that were trained to the end."

#: Remedies that make up for unequal counts: without those they change nothing.
_OF_THE_PRIOR = (
    POST_HOC,
    ADJUSTED,
    BALANCED,
    "logit adjustment",
    "balanced weights",
    "oversampling",
    "LDAM-DRW",
)


@kept
@record
@dataclass(frozen=True)
class Remedy:
    """One thing to do.

    Attributes
    ----------
    name : str
        Of the benchmark.
    text : str
        What to do, in a sentence with numbers.
    evidence : Evidence
        What it did to other networks of the same state.
    note : str
        What it does to this network where that is known without training, or why not to do it.
    """

    name: str
    text: str
    evidence: Evidence
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "name": self.name,
            "text": self.text,
            "note": self.note,
            "evidence": self.evidence.to_dict(),
        }


@kept
@record
@dataclass(frozen=True)
class Remedies:
    """What to do, the best first, and what not to do.

    Attributes
    ----------
    state : {"some lost", "none lost", "none lost, drawn alike"}
    advised : tuple of Remedy
    against : tuple of Remedy
    first : str
        What comes before all of them where training has not ended, or may not have; else empty.
    """

    state: str
    advised: tuple[Remedy, ...]
    against: tuple[Remedy, ...]
    first: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "state": self.state,
            "first": self.first,
            "advised": [remedy.to_dict() for remedy in self.advised],
            "against": [remedy.to_dict() for remedy in self.against],
        }


def remedies(any_lost: bool, equal_counts: bool, training: Training, head: HeadAnswer) -> Remedies:
    """Rank the remedies of a network.

    Parameters
    ----------
    any_lost : bool
        Whether a class is lost by its training accuracy.
    equal_counts : bool
        Whether all classes have as many samples.
    training : Training
    head : HeadAnswer
    """
    drawn_alike = training.is_flat and not (training.natural or equal_counts)
    state = SOME_LOST if any_lost else DRAWN_ALIKE if drawn_alike else NONE_LOST
    table = evidence()
    # What the training already does is not advised again.
    done = _done(training)

    def remedy_of(name: str) -> Remedy:
        return Remedy(name, _text(name, training, head), table[state, name], _seen(name, head))

    advised: list[Remedy] = []
    against: list[Remedy] = []
    for name in RANKED[state]:
        if name in done or (equal_counts and _is_of_the_prior(name)):
            continue
        row = head.row(name)
        (against if row is not None and row.harmful else advised).append(remedy_of(name))
    against += [
        remedy_of(name) for name in ADVISED_AGAINST[state] if not equal_counts and name not in done
    ]
    return Remedies(state, tuple(advised), tuple(against), _unfinished(training, head))


def _unfinished(training: Training, head: HeadAnswer) -> str:
    """Say that training has not ended, where the head is far from any optimum.

    The evidence is of networks that were trained to the end, and one that was not has other needs.
    """
    if head.suboptimality is None or head.suboptimality <= NEARLY:
        return ""
    off = f"head's objective could be {head.suboptimality:.0%} lower on the same features"
    pull = (head.fitted_ridge or 0.0) / (training.weight_decay or math.inf)
    if pull > GROWING:
        return (
            "First train to the end, then ask again: training is not finished"
            f"{'' if head.smoothed else ', unless the loss had label smoothing'}. Its {off}, and "
            f"the loss still pulls the head outwards {pull:.2g} times as hard as the weight decay "
            f"holds it. {_OF_THE_FINISHED}"
        )
    if training.ridge is None:  # of AdamW, and of decays that are not known, a head is so anyhow
        return ""
    return (
        f"First see whether training has ended (does its loss still fall?): its {off}. "
        f"{'Augmentation' if head.smoothed else 'Label smoothing, augmentation'} and batch norm do "
        f"that too. {_OF_THE_FINISHED}"
    )


def _is_of_the_prior(name: str) -> bool:
    return any(part in _OF_THE_PRIOR for part in name.split(" + "))


def _done(training: Training) -> set[str]:
    """Return the remedies that change nothing, and what holds another one that does."""
    done: set[str] = set()
    if training.is_flat:  # the loss saw all classes alike already
        by = "logit adjustment" if training.natural else "balanced weights"
        done |= {POST_HOC, by, f"smaller decay + {by}"}
        done |= set() if training.natural else {"oversampling"}
    if training.weight_decay == 0:
        done |= {name for names in RANKED.values() for name in names if "smaller decay" in name}
    return done


def _text(name: str, training: Training, head: HeadAnswer) -> str:
    """Say what to do."""
    present = [] if training.natural else ["sampler or class weights"]
    present += ["present logit adjustment"] if training.adjustment.any() else []
    instead = f" in place of the {' and the '.join(present)}" if present else ""
    lower = f"a tenth of the weight decay{_tenth(training)}"
    adjusting = f"log(n_k / N) added to the logits inside the loss only{instead}"
    weights = f"class weights N / (K n_k){instead}"
    frozen = "tf.heads.fit_head(features, labels, weight_decay="
    return {
        "smaller decay + logit adjustment": f"Train again with {lower} and {adjusting}.",
        "smaller decay + balanced weights": f"Train again with {lower} and {weights}.",
        "balanced weights": f"Train again with {weights}.",
        "oversampling": f"Train again with every class drawn as often as the largest{instead}.",
        "smaller decay": f"Train again with {lower}.",
        "logit adjustment": f"Train again with {adjusting}.",
        "LDAM-DRW": "LDAM-DRW: margins n_k^(-1/4) and late class weights, as published.",
        POST_HOC: (
            "Without training: subtract the logarithm of the share of each class that the loss saw "
            "from its logit at test time."
        ),
        ADJUSTED: (
            f"Without training the network: fit its head with logit adjustment, {frozen}"
            f"{head.ridge:.3g}, logit_adjustment='prior')."
        ),
        BALANCED: (
            f"Without training the network: fit its head with balanced weights, {frozen}"
            f"{LOWER * head.ridge:.3g}, class_weights='balanced')."
        ),
    }[name]


def _tenth(training: Training) -> str:
    if training.weight_decay is None:
        return ""
    return f" ({training.weight_decay / 10:.3g})"


def _seen(name: str, head: HeadAnswer) -> str:
    """Say what a remedy of the head does to this network."""
    row, now = head.row(name), head.rows[0]
    if row is None:
        return ""
    before, after = now.held_out or now.training, row.held_out or row.training
    where = "training" if row.held_out is None else "held-out"
    text = f"here: {where} balanced accuracy {before.balanced:.3f} -> {after.balanced:.3f}"
    if row.large is not None and now.large is not None:
        text += f", recall of the large classes {row.large - now.large:+.3f}"
    if not row.harmful:
        return text
    if row.held_out is None:
        return f"{text}, harmful"
    # Held-out samples may say otherwise: which ones say so belongs to the word.
    fall = f"{now.training.balanced:.3f} -> {row.training.balanced:.3f}"
    return f"{text}; harmful on training samples, balanced accuracy {fall}"
