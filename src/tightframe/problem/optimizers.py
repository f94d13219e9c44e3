"""Which optimisers keep their weight decay out of the loss, by the names they have in libraries.

Decay that is added to the gradient is a penalty of the loss. Decay beside the step, or beside a
gradient that was normalised first (LAMB, NovoGrad, 1-bit Adam), is none: it has other minima.
Known are torch, transformers, timm, DeepSpeed, Apex and bitsandbytes, read in September 2026.
"""

from __future__ import annotations

import re
from typing import Any

#: Flags by which an optimiser that can do either is told to decouple.
FLAGS = (
    "decoupledweightdecay",
    "usedecoupledweightdecay",
    "weightdecouple",
    "adamwmode",
    "decoupleddecay",
    "correctedweightdecay",
)
#: The same, where they stand among an optimiser's settings.
SHORT_FLAGS = ("decoupled", "decouple")

#: Parts of a name without its underscores: "w" for decoupled, as long as no word begins with it.
_PARTS = re.compile(
    r"(adam|sgd|adopt|adan|kron|lamb|madgrad|nesterov|momentum)w(?!ith|arm|eigh)"
    r"|adafactor|adabelief|adahessian|ademamix|adalomo|laprop|novograd|sophia|muon|adamp(?!t)|sgdp"
    r"|schedulefreer?adam|r?adamschedulefree|(onebit|zeroone)adam|bitsandbytes\.(\w+\.)*(paged)?adam"
    r"|(?<!torchao\.optim\.)adam(4|8|32)bit|pagedadam"
)
#: Whole words of a name.
_WORDS = re.compile(
    r"(c|bnb|fused|paged|dadapt|n)*"
    r"((lion|lamb|adan|soap|came|mars|kron|prodigy|tiger|ranger)(c|w|cw|cd|qh)?"
    r"|(adam|adopt|sgd|rmsproptf)c|bnbadam)"
)
#: Decoupled unless a flag says otherwise, with what timm calls "fusedadam" as an exception.
_SWITCHED = re.compile(r"(fused|deepspeedcpu|zenflowcpu|zenflowselective)adam$|adabelief|prodigy")
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


def decouples(name: str, flag: bool | None = None, *, deepspeed: bool = False) -> bool:
    """Tell whether an optimiser's weight decay is no penalty of the loss.

    Parameters
    ----------
    name : str
        Of the class, dotted or not, or as a library's configuration has it: ``"adamw_torch"``.
    flag : bool, optional
        What one of `FLAGS` says; None where there is none.
    deepspeed : bool
        Whether DeepSpeed reads the name, whose ``"Adam"`` is AdamW unless ``adam_w_mode`` is false.

    Examples
    --------
    >>> decouples("torch.optim.AdamW"), decouples("torch.optim.Adam"), decouples("bnblion8bit")
    (True, False, True)
    >>> decouples("FusedAdam"), decouples("FusedAdam", False), decouples("Adam", deepspeed=True)
    (True, False, True)
    """
    if flag:
        return True
    plain = re.sub(r"[_\-\s]", "", name).lower()
    switched = bool(_SWITCHED.search(plain)) and name != "fusedadam"
    if switched or (deepspeed and plain == "adam"):
        return flag is None
    last = re.split(r"[./:]", name)[-1]
    return bool(_PARTS.search(plain)) or any(
        _WORDS.fullmatch(word.lower()) for word in _WORD.findall(last)
    )


def names_of(optimizer: Any) -> list[str]:
    """Return the names of an optimiser's class and of those that it derives from or wraps.

    With their packages, where those are not torch's: several have a class of one name. Lightning,
    accelerate and Lookahead wrap optimisers.
    """
    names: list[str] = []
    seen: set[int] = set()
    while hasattr(optimizer, "param_groups") and id(optimizer) not in seen:
        seen.add(id(optimizer))
        for kind in type(optimizer).__mro__:
            if kind.__name__ in ("Optimizer", "object"):
                break
            package = kind.__module__.partition(".")[0]
            known = package in ("bitsandbytes", "torchao", "deepspeed", "apex", "timm")
            prefix = {"torchao": "torchao.optim."}.get(package, f"{package}.") if known else ""
            names.append(prefix + kind.__name__)
        inner = (getattr(optimizer, name, None) for name in ("optimizer", "base_optimizer"))
        optimizer = next((part for part in inner if part is not None), None)
    return names
