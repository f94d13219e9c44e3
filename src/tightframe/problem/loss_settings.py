"""What a configuration says of its loss beside label smoothing: read if known, else said.

Knows the loss names of the codes for imbalanced data (LDAM-DRW, VS-Loss) and of common libraries.
Nothing that may change the loss is passed over without a word.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Container
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tightframe.problem.config_entries import NOT_TRAINING, Entry, listed_entries, own_name
from tightframe.problem.counts import PerClass

if TYPE_CHECKING:
    from tightframe.problem.settings import Configuration

#: Where the name of a loss stands: under such a name, or as the type of such a part.
_NAMES_LOSS = re.compile(r"(cls|classification|train)?(loss|criterion)(type|name|fn|func(tion)?)?")
_TYPE = ("type", "name", "target", "classpath")

#: Names of plain cross-entropy; that of soft targets is mixup's, of which is warned elsewhere.
_PLAIN = re.compile(
    r"ce|softmax|nll|(softmax|standard|base|label|multiclass)?(cross|x)entropy(2d)?|"
    r"(label)?smooth(ing|ed)?(ce|(cross|x)entropy)?|labelsmooth(ing)?|softtarget(cross|x)entropy|"
    r"(cross|x)entropylabelsmooth(ing)?|none|default"
)
#: ``log(n_k / N)`` added to the logits.
_BALANCED = re.compile(r"balanced?(d)?softmax(ce|(cross|x)entropy)?|bsce|balsoftmax")
_ADJUSTED = re.compile(r"la|logitadj(ust(ed|ment)?)?(ce|(cross|x)entropy)?")


class _Kind(NamedTuple):
    """Settings that change the loss and are not read, by their names or values.

    Attributes
    ----------
    argument : str or None
        Of `Problem`, which says the same; None where no problem has it.
    neutral : str
        What to give if there was nothing of the kind.
    names : pattern
        Of settings that are neither off nor empty.
    of_a_name : bool
        Whether only a loss of another name than cross-entropy has such settings.
    """

    argument: str | None
    neutral: str
    names: re.Pattern[str]
    of_a_name: bool = False


_UNREAD = (
    _Kind(
        "class_margins",
        "0",
        re.compile(r"(use)?ldam|maxm|(ldam|max)(max)?margin|marginlist|mlist|ldam(max)?m"),
        of_a_name=True,
    ),
    _Kind(
        "class_weights",
        "1",
        re.compile(
            r"(cls|class|classification|ce|loss|label|balanced)weights?(strategy|mode|type|ing)?|"
            r"lossweights|posweight|trainrule|(use)?drw|(use)?reweight(ing)?|classbalanced|cbbeta|"
            r"(use)?(cb|classbalanced)loss|effectivenum(ber)?"
        ),
    ),
    _Kind("logit_adjustment", "0", re.compile(r"(use)?logitadj(ust(ed|ment)?)?(tau)?")),
    _Kind("logit_scale", "1", re.compile(r"(use)?(cdt|vsloss)(gamma)?")),
    _Kind(None, "", re.compile(r"(use)?bce(loss)?|usesigmoid")),
    _Kind(None, "", re.compile(r"(use)?focal(loss)?(gamma|alpha)?"), of_a_name=True),
)
#: Values that say that there is nothing of the kind.
_OFF = ("", "none", "null", "no", "off", "false", "ce", "uniform", "equal", "erm", "0", "1")

#: What names of losses mean that no problem here has, where a hint helps.
_HINTS = {
    "ldam": (
        "; its published code has features and weights of unit length, which no problem here has, "
        "and 30 times the margins; of plain logits give class_margins"
    ),
    "mse": "; give loss",
}


def loss_settings(
    config: Configuration, counts: np.ndarray | None, given: Container[str]
) -> tuple[dict[str, PerClass], list[str]]:
    """Return the loss's terms that a configuration names, and a sentence's part for each.

    Parameters
    ----------
    config : Configuration
    counts : ndarray, shape (K,), or None
        Samples of every class, by which scales go; None where they are not known.
    given : container of str
        Arguments that are told otherwise: nothing is read or said of them.

    Warns
    -----
    RuntimeWarning
        If settings that may change the loss are not read.
    """
    entries = [
        entry
        for entry in config.entries
        if entry.names and not any(NOT_TRAINING.fullmatch(name) for name in entry.names)
    ]
    terms: dict[str, PerClass] = {}
    said: list[str] = []
    losses = [entry for entry in entries if _is_loss(entry)]
    for loss in losses:
        found = _terms_of(loss, entries)
        if found is None:
            _warn_of_loss(config, loss, given)
            continue
        for name, (text, factor) in found.items():
            if name in given or not factor:
                continue
            if counts is None:
                _warn(config, [loss], f"its {text} is not read here", "")
                continue
            terms[name] = _numbers(name, factor, counts)
            said.append(f"{name} {text}")
    is_plain = bool(losses) and all(_terms_of(loss, entries) is not None for loss in losses)
    for kind in _UNREAD:
        if kind.argument in given or (is_plain and kind.of_a_name):
            continue
        unread = [e for e in entries if _is_of(e, kind) and not _is_off(e)]
        if unread and kind.argument not in terms:
            tell = f"; give {kind.argument}, '{kind.neutral}' if there was none"
            _warn(config, unread, "not read", tell if kind.argument else "; no problem here has it")
    return terms, said


def _is_loss(entry: Entry) -> bool:
    if not isinstance(entry.value, str):
        return False
    *sections, own = [name for name in entry.names if name not in ("value", "initargs")] or [""]
    return bool(_NAMES_LOSS.fullmatch(own)) or (
        own in _TYPE and bool(sections) and bool(_NAMES_LOSS.fullmatch(sections[-1]))
    )


def _name_of(loss: Entry) -> str:
    """Return a loss's name as one word, without what says that it is one."""
    word = re.sub(r"[^a-z0-9]", "", loss.value.rpartition(".")[2].lower())
    return re.sub(r"(?<=.)(with)?(logits?)?(loss)?$", "", word) or word


def _terms_of(loss: Entry, entries: list[Entry]) -> dict[str, tuple[str, float]] | None:
    """Return what a known loss does to the logits, in words and as a factor; None if unknown."""
    name = _name_of(loss)
    beside = {
        own_name(e): float(e.value)
        for e in entries
        if e.is_number and (e.path[:-1] == loss.path[:-1] or e.path[:-2] == loss.path[:-1])
    }
    tau, gamma = beside.get("tau"), beside.get("gamma")
    if _PLAIN.fullmatch(name):
        return {}
    if _BALANCED.fullmatch(name):
        return {"logit_adjustment": ("prior", 1.0)}
    if _ADJUSTED.fullmatch(name) and tau is not None:
        return {"logit_adjustment": (f"{tau:g}*prior", tau)}
    if name in ("cdt", "vs") and gamma is not None and (tau is not None or name == "cdt"):
        found = {"logit_scale": (f"(n / n_max)^{gamma:g}", gamma)}
        if name == "vs" and tau is not None:
            found["logit_adjustment"] = (f"{tau:g}*prior", tau)
        return found
    return None


def _numbers(name: str, factor: float, counts: Any) -> PerClass:
    """Return a term as `Problem` takes it."""
    if name == "logit_adjustment":
        return f"{factor!r}*prior"
    scales: list[float] = ((counts / counts.max()) ** factor).tolist()
    return scales


def _is_of(entry: Entry, kind: _Kind) -> bool:
    *sections, own = entry.names
    if kind.argument == "class_weights" and own in ("weight", "weights"):
        return any(_NAMES_LOSS.fullmatch(name) for name in sections)
    return bool(kind.names.fullmatch(own_name(entry)))


def _is_off(entry: Entry) -> bool:
    """Tell whether a setting says that there is nothing of its kind."""
    if entry.value is None or isinstance(entry.value, bool):
        return not entry.value
    if entry.is_number:
        return bool(entry.value == 0 or (entry.value == 1 and "weight" in own_name(entry)))
    return str(entry.value).strip().lower() in _OFF


def _warn_of_loss(config: Configuration, loss: Entry, given: Container[str]) -> None:
    name = _name_of(loss)
    if name in ("mse", "l2") and "loss" in given:
        return
    if name == "ldam" and "class_margins" in given:
        return
    if name in ("vs", "cdt") and "logit_scale" in given:
        return
    if _ADJUSTED.fullmatch(name) and "logit_adjustment" in given:
        return
    hint = _HINTS.get(name, "; if it is not cross-entropy, say what it is")
    _warn(config, [loss], "not read", hint)


def _warn(config: Configuration, entries: list[Entry], what: str, hint: str) -> None:
    warnings.warn(
        f"config: {config.title} has {listed_entries(entries)}: {what}{hint}",
        RuntimeWarning,
        stacklevel=5,
    )
