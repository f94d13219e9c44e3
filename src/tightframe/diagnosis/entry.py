"""`advise`: of a problem what the theory says of it, of a model what it does and what helps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, overload

from tightframe.advice.advise import Advice
from tightframe.advice.advise import advise as of_problem
from tightframe.advice.contexts import ContextAdvice, advise_contexts
from tightframe.problem.problem import Problem
from tightframe.progress import told, watched

if TYPE_CHECKING:
    from torch import nn

    from tightframe.diagnosis.diagnose import Diagnosis


@overload
def advise(
    problem: Problem,
    loader: None = None,
    *,
    margin: float | None = None,
    angle: float | None = None,
    feature_decay_of: str = "sample",
    tol: float = 1e-8,
) -> Advice | ContextAdvice: ...
@overload
def advise(problem: nn.Module, loader: Iterable[Any], **options: Any) -> Diagnosis: ...
def advise(problem: Any, loader: Any = None, **options: Any) -> Advice | ContextAdvice | Diagnosis:
    """Tell what becomes of the classes, and what helps: of a problem, or of a trained network.

    ``advise(problem)`` asks the theory alone, see below; of a problem with targets what collapses,
    what is one, and the width that its data need. ``advise(model, loader)`` runs a trained
    network once over its training samples and says, in this order: what it does with every class;
    what its head alone can do; what to do, with evidence from other networks; and what the theory
    says, if it describes the network.

    Parameters
    ----------
    problem : Problem or nn.Module
    loader : iterable of batches, optional
        With a model: its training samples, without augmentation.
    **options
        With a problem: ``margin``, ``angle``, ``feature_decay_of`` and ``tol`` of
        `tightframe.advice.advise.advise`. With a model: ``held_out`` (a loader of samples that were
        not trained on), ``class_names``, ``head``, ``weight``, ``reduce``, ``labels``,
        ``forward``, ``ignore_index`` of `tightframe.capture.last_layer.last_layer`, and what is
        known of the training, as in `tightframe.diagnosis.diagnose.diagnose`: ``weight_decay``,
        ``class_weights``, ``logit_adjustment``, ``label_smoothing``, ``class_margins``,
        ``logit_scale``, ``sampler``, ``config``, ``bias``, ... Beside a ``weight``, a
        ``bias`` of numbers and the name of a module as ``features`` are the classifier's, as there.

    Returns
    -------
    Advice, ContextAdvice or Diagnosis

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> problem = Problem("500x5,100x5", weight_decay=1e-2, feature_decay=2e-3)
    >>> advise(problem).warnings
    ['5 classes of 100 samples merge: they share one prediction (safety factor 0.745)']

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> batches = [(torch.eye(2).repeat(20, 1), torch.tensor([0, 1]).repeat(20))]
    >>> advise(model, batches, head="2").classes.num_classes
    2
    """
    if isinstance(problem, Problem):
        if loader is not None:
            raise ValueError("loader: given with a Problem, which has no samples")
        return (of_problem if problem.targets is None else advise_contexts)(problem, **options)
    if not callable(getattr(problem, "named_modules", None)):
        raise ValueError(
            f"problem: got {type(problem).__name__}, need a tightframe.Problem, or a model and its "
            "loader"
        )
    if loader is None:
        raise ValueError("loader: missing; a model is judged by its training samples")
    from tightframe.capture.last_layer import last_layer, taken_options
    from tightframe.diagnosis.diagnose import diagnose

    held_out = options.pop("held_out", None)
    layer = last_layer(problem, loader, held_out=held_out, **taken_options(options))
    progress = options.pop("progress", None)
    if progress is not None and not isinstance(progress, bool):
        return diagnose(layer, progress=progress, **options)
    with watched(progress, "asking") as tell:
        return diagnose(layer, progress=lambda what: told(tell, 0, 0, f"({what})"), **options)
