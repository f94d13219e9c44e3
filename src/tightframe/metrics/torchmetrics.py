"""`CollapseMetric`: collapse metrics as a torchmetrics ``Metric``, synchronised over processes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from tightframe.checks import choice
from tightframe.data.batches import as_tensor
from tightframe.heads.affine import applied_map
from tightframe.heads.find import codes_of
from tightframe.metrics.class_moments import ClassMoments, float64_device
from tightframe.metrics.inputs import classifier, usable
from tightframe.metrics.moments import WEIGHTINGS, Moments
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import describe_classes
from tightframe.metrics.registry import METRICS, Descriptor, about_classifier
from tightframe.metrics.source import Source
from tightframe.metrics.targets import HeadKind, Target, as_target

#: State tensors of the metric.
_STATES = Moments._fields


def _state(name: str) -> Any:
    """Return a property that reads and replaces one tensor of what was gathered.

    Rows that wait are summed before anything is read: what torchmetrics copies, sends, saves or
    shares with other metrics of a collection is complete.
    """

    def get(metric: CollapseMetric) -> Tensor:
        tensor: Tensor = getattr(metric._gathered.tensors(), name)
        return tensor

    @plain_tensors()
    def replace(metric: CollapseMetric, tensor: Tensor) -> None:
        metric._gathered.adopt(metric._gathered.tensors()._replace(**{name: tensor}))

    return property(get, replace)


class CollapseMetric(Metric):
    """Neural-collapse metrics of a stream of features, for any loop that uses torchmetrics.

    ``update(features, labels)`` as for `ClassMoments`; ``compute()`` returns a dictionary of
    scalars. Small is collapsed, for all of them. They are the metrics of
    `tightframe.metrics.registry` that moments determine, such as ``nc1`` (with ``scatter``),
    ``nc1_quotient``, ``nc2`` of the class means to the target and ``equinorm``; with a classifier
    ``nc3``, ``self_duality``, ``bias_alignment`` too, and under ``nc2_classifier``,
    ``equinorm_classifier`` and so on what is measured of the classifier alone.

    NC4 is not among them: it compares samples with class means that are known only at the end
    (see `CollapseReport.from_loader`).

    Parameters
    ----------
    num_classes : int
        Number of classes K.
    dim : int, optional
        Width D of the features; ``None`` takes it from the first batch.
    classifier : tensor, array_like, nn.Module, pair or callable, optional
        The last layer: its weight (K, D), a module with ``weight`` and possibly ``bias``
        (``nn.Linear``), a pair (weight, bias), or a function without arguments that returns one of
        these. Of a module that computes something else of its parameters (low-rank updates,
        scales, norms of the weight) weight and bias are those that it applies; what a model does to
        the logits afterwards is not seen here, see `collapse_report`. It is read anew by every
        ``compute``, so a module that is trained need not be given again. It stays outside the
        metric: its parameters are not the metric's, and a copy of the metric reads the same
        classifier, unless that was copied before by the same ``deepcopy``.
    target : str, Geometry, GroupedGeometry or Solution
        What NC2 and NC3 are compared with, see `nc2`: the simplex ETF by default, or a prediction
        for imbalanced classes.
    centered : bool
        Whether NC2 and NC3 centre the class means, as they should unless the target is a
        prediction for a network without bias, or an orthogonal frame.
    center : {"class", "sample"}
        The global mean that class means are less: that of the classes, or, as the code of Papyan
        et al. (2020) and Zhu et al. (2021) has it, of all samples; `CollapseReport.measure`.
    scatter, dtype, ignore_index, nonfinite
        As for `ClassMoments`.
    **kwargs
        Those of ``torchmetrics.Metric``: ``sync_on_compute``, ``process_group`` and so on.
        ``compute_with_cache`` is False here.

    Raises
    ------
    ValueError
        If an option is none of those allowed.

    Notes
    -----
    Every value is a 0-d tensor, float64 (float32 on devices without). A value that does not exist
    is NaN with a RuntimeWarning: all where fewer than two classes have samples. Classes without
    samples are left out with a RuntimeWarning, as in the functions.

    Anchors differ between processes, so states cannot be reduced one by one: synchronisation
    gathers them and merges the moments (`ClassMoments.merge`), and so do ``merge_state`` and
    ``forward``. A process without samples takes part, whether it knows D or not. Gathering takes
    8 D^2 bytes a process in every process; ``scatter=False`` does without.

    State is float64 and int64 for good: ``half()``, ``to(torch.bfloat16)`` and ``set_dtype``
    change nothing of it. Rows wait until there are enough for one large product, as in
    `ClassMoments`; whatever reads the state sums them first. ``forward`` does so, and computes
    everything, for every batch: where only the epoch's values are wanted, call ``update``. So does
    a ``MetricCollection`` that shares the state between several of these.

    Examples
    --------
    >>> import torch
    >>> metric = CollapseMetric(num_classes=2)
    >>> metric.update(torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1]))
    >>> round(float(metric.compute()["nc1_quotient"]), 4)
    0.092

    In Lightning, ``metric.update(...)`` in ``validation_step`` and
    ``self.log_dict(metric.compute())``, then ``metric.reset()``, in ``on_validation_epoch_end``.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    plot_lower_bound = 0.0

    counts = _state("counts")
    anchors = _state("anchors")
    sums = _state("sums")
    squares = _state("squares")
    products = _state("products")
    ignored = _state("ignored")
    dropped = _state("dropped")

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        *,
        classifier: Any = None,
        target: Target = "etf",
        centered: bool = True,
        center: str = "class",
        scatter: bool = True,
        dtype: torch.dtype = torch.float64,
        ignore_index: int | None = None,
        nonfinite: str = "raise",
        **kwargs: Any,
    ) -> None:
        # A value kept would outlive changes of the classifier, and a process that got no samples
        # would skip the synchronisation that the others wait in.
        super().__init__(**({"compute_with_cache": False} | kwargs))
        self._options: dict[str, Any] = {
            "num_classes": num_classes,
            "dim": dim,
            "scatter": scatter,
            "dtype": dtype,
            "ignore_index": ignore_index,
            "nonfinite": nonfinite,
        }
        self._gathered = self._empty()
        # SELI is known when all counts are, from a classifier on that has a bias or none.
        late = isinstance(target, str) and target == "seli" and classifier is not None
        if not late and isinstance(as_target(target, num_classes), str) and centered:
            raise ValueError(
                f"target: got {target!r}, of which there is none for centred means; "
                "give centered=False"
            )
        self._target, self._centered = target, bool(centered)
        self._center = choice("center", center, WEIGHTINGS)
        if isinstance(classifier, nn.Module):
            _weight_and_bias(classifier)
        # In a tuple, so that torch does not make it a submodule.
        self._classifier = (classifier,)
        for name, default in self._gathered.tensors()._asdict().items():
            self.add_state(name, default, dist_reduce_fx=None)

    @property
    @plain_tensors()
    def moments(self) -> ClassMoments:
        """A copy of what was gathered; of all processes inside ``metric.sync_context()``."""
        return copy.deepcopy(self._gathered)

    def update(self, features: Any, labels: Any) -> None:
        """Add a batch of samples.

        Parameters
        ----------
        features, labels
            As for `ClassMoments.update`, which moves them to the metric's device.

        Raises
        ------
        ValueError
            As `ClassMoments.update`.
        """
        self._gathered.update(features, labels)

    @plain_tensors()
    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all samples since the last ``reset``, over all processes.

        Returns
        -------
        dict of str to Tensor
            0-d tensors; the names are listed above.

        Raises
        ------
        ValueError
            If the classifier does not fit the features or is not finite, or is a module that gives
            no ``W h + b``, such as one that brings features to unit length.

        Warns
        -----
        RuntimeWarning
            If classes have no samples, or the classifier is a module that does not run on rows of
            features, so that what it computes is not known.
        """
        # A shell of its own: the tensors may be shared with another metric that went on.
        moments = self._empty().adopt(self._gathered.tensors())
        given = self._classifier[0]
        layer = None if given is None else _weight_and_bias(given)
        head = None if layer is None else classifier(moments, *layer)
        names = self._names(head is not None)
        present = moments.num_classes - len(moments.missing)
        if present < 2:
            message = (
                f"CollapseMetric: {present} of {moments.num_classes} classes have samples; "
                "with fewer than 2 every metric is NaN"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)
            values = dict.fromkeys(names, math.nan)
        else:
            if moments.missing:
                message = f"{describe_classes(moments.missing)} without samples and left out"
                warnings.warn(f"CollapseMetric: {message}", RuntimeWarning, stacklevel=4)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* without samples and left out", RuntimeWarning)
                own = usable(moments, "CollapseMetric")
                weight, bias = head or (None, None)
                has_bias = layer is not None and layer[1] is not None
                source = Source(
                    moments,
                    own,
                    weight,
                    bias,
                    with_bias=has_bias,
                    ranked=False,
                    center=self._center,
                )
                values = {name: self._value(source, *names[name]) for name in names}
        device = self.device
        dtype = torch.float64 if float64_device(device) == device else torch.float32
        return {
            name: torch.tensor(value, dtype=dtype, device=device) for name, value in values.items()
        }

    def _names(self, with_classifier: bool) -> dict[str, tuple[Descriptor, str]]:
        """Return metrics and their parts by name, those about the classifier last."""
        alone: dict[str, tuple[Descriptor, str]] = {}
        about: dict[str, tuple[Descriptor, str]] = {}
        for metric in METRICS:
            if not metric.streaming or ("scatter" in metric.needs and not self._options["scatter"]):
                continue
            for part in metric.parts or ("",):
                name = metric.key
                if part == "classifier":
                    name = f"{name}_classifier"
                elif metric.fan == "target" and part.startswith("centered") != self._centered:
                    continue
                names = about if about_classifier(metric.key, part) else alone
                names[name] = metric, part
        return alone | about if with_classifier else alone

    def _value(self, source: Source, metric: Descriptor, part: str) -> float:
        if metric.fan == "target":
            kind = HeadKind(source.moments.counts.cpu().numpy(), source.with_bias)
            target = as_target(self._target, source.moments.num_classes, head=kind)
            return float(metric.measure(source, part, target))
        return float(metric.measure(source.vectors.directed(part) if part else source))

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot values, one or a sequence of them.

        Parameters
        ----------
        val : dict, or sequence of dict, optional
            What ``compute`` or ``forward`` returned; a sequence is drawn over its steps. By
            default ``compute()``.
        ax : matplotlib Axes, optional
            Where to draw.

        Returns
        -------
        Figure, Axes

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        return self._plot(val, ax)

    # -- what torchmetrics does with states --------------------------------------------------------

    def reset(self) -> None:
        """Forget what was gathered, rows that wait without summing them."""
        self._gathered = self._empty()
        super().reset()

    @plain_tensors()
    def _reduce_states(self, incoming_state: Mapping[str, Any]) -> None:
        """Merge another state into this one, for ``forward`` and ``merge_state``."""
        missing = [name for name in _STATES if name not in incoming_state]
        if missing:
            raise ValueError(f"incoming_state: has no entry {missing[0]!r}")
        classes, own = len(incoming_state["counts"]), self._gathered.num_classes
        if classes != own:
            raise ValueError(f"incoming_state: its num_classes is {classes}, need {own} as here")
        # Into a copy: the incoming tensors stay what they are.
        self._gathered = self._empty().merge(self._of(incoming_state)).merge(self._gathered)
        self._computed = None
        self._update_count = max(self._update_count, int(self._gathered.num_samples > 0))

    @plain_tensors()
    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., Sequence[Tensor]] = gather_all_tensors,
        process_group: Any = None,
    ) -> None:
        group = process_group or self.process_group
        gathered = {name: dist_sync_fn(getattr(self, name), group=group) for name in _STATES}
        self._gathered = self._empty()
        for tensors in zip(*gathered.values(), strict=True):
            self._gathered.merge(self._of(dict(zip(_STATES, tensors, strict=True))))

    def _apply(
        self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = ""
    ) -> nn.Module:
        """Follow a module's moves between devices, not its changes of type."""
        self._computed = self._forward_cache = None
        moved = super()._apply(fn, exclude_state=_STATES)
        device = float64_device(self.device)
        for name in _STATES:
            self._defaults[name] = torch.as_tensor(self._defaults[name], device=device)
        self._gathered = self._of(self._gathered.tensors()._asdict())
        return moved

    def set_dtype(self, dst_type: str | torch.dtype) -> CollapseMetric:
        """Do nothing: the state is float64 for good."""
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        given = {n: state_dict.pop(prefix + n) for n in _STATES if prefix + n in state_dict}
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not given:
            return
        fitting = self._empty()
        entries: dict[str, Any] = dict(fitting.state_dict())
        if "anchors" in given:
            entries["dim"] = given["anchors"].shape[-1]
        entries |= {n: int(t) if n in ("ignored", "dropped") else t for n, t in given.items()}
        try:
            loaded = fitting.load_state_dict(entries)
        except ValueError as error:
            error_msgs.append(str(error))
            return
        self._gathered = self._of(loaded.tensors()._asdict())
        self._computed = None
        self._update_count = max(self._update_count, int(loaded.num_samples > 0))

    def __deepcopy__(self, memo: dict[int, Any]) -> CollapseMetric:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        state = self.__getstate__()
        (classifier,) = state.pop("_classifier")
        twin.__setstate__(copy.deepcopy(state, memo))
        twin._classifier = (memo.get(id(classifier), classifier),)
        return twin

    # -- inside ------------------------------------------------------------------------------------

    def _empty(self) -> ClassMoments:
        moments = ClassMoments(**self._options, device=float64_device(self.device))
        moments._narrow = False  # the state of every process has the same types
        return moments

    @plain_tensors()
    def _of(self, state: Mapping[str, Tensor]) -> ClassMoments:
        """Return moments of a state's own tensors, on the metric's device."""
        device = float64_device(self.device)
        return self._empty().adopt(Moments(*(state[name].to(device) for name in _STATES)))


def _weight_and_bias(classifier: Any) -> tuple[Tensor, Any]:
    if callable(classifier) and not isinstance(classifier, nn.Module):
        classifier = classifier()
    weight, bias = classifier, None
    if isinstance(classifier, tuple) and len(classifier) == 2:
        weight, bias = classifier
    elif isinstance(classifier, nn.Module):
        if codes := codes_of(classifier):
            raise ValueError(
                f"classifier: got a {type(classifier).__name__}, quantised: it stores {codes}, not "
                "its weight; pass a pair (weight, bias) of real numbers (dequantised)"
            )
        weight, bias = getattr(classifier, "weight", None), getattr(classifier, "bias", None)
        if not isinstance(weight, Tensor):
            raise ValueError(
                f"classifier: got a {type(classifier).__name__} without a weight, need a module "
                "with a weight, a tensor (K, D), a pair (weight, bias), or a function of no "
                "arguments that returns one of these"
            )
        if weight.ndim == 2 and (bias is None or isinstance(bias, Tensor)):
            applied = applied_map(classifier, weight.detach(), bias)
            if applied is not None:
                return applied.weight, applied.bias
            warnings.warn(
                f"classifier: the {type(classifier).__name__} does not run on rows of features, so "
                "whether it gives W h + b of its weight and bias was not checked",
                RuntimeWarning,
                stacklevel=4,
            )
    return as_tensor("classifier", weight), bias
