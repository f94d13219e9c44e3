"""Options of the command as data: one description each, from which Typer's signatures are made.

A command function names the options it takes (`with_options`), whole tables of them (`PROBLEM`)
among them, and gets their values by keyword. What an option fills in the library stands in its
description, so that a test can tell which argument has no option, and an error of the library
can name the option as it was typed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from tightframe.problem.layers import parse_layers
from tightframe.problem.problem import BIASES, FEATURES, LOSSES, SMOOTHING_WEIGHTS

# -- how the text of an option is read -------------------------------------------------------------


def _number(text: str | float) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a number") from None


def _numbers(text: str | float) -> Any:
    """Read one number, or several with commas between (one a layer)."""
    return parse_layers(text, _number) if isinstance(text, str) else text


def _whole(text: str | int) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"got {text!r}, need a whole number") from None


def _layer_wholes(text: str | int) -> Any:
    """Read one whole number, or several with commas between (one a layer)."""
    return parse_layers(text, _whole) if isinstance(text, str) else text


def _wholes(text: str | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_whole(part) for part in text.split(",")) if isinstance(text, str) else text


def _assignment(text: str | tuple[str, Any]) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is JSON, or else text."""
    if not isinstance(text, str):
        return text
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"got {text!r}, need NAME=VALUE")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


class Kind(NamedTuple):
    """What an option takes: its type, the word for it in the help, and how its text is read."""

    type: Any
    metavar: str | None = None
    parser: Callable[[Any], Any] | None = None
    is_list: bool = False

    @property
    def repeated(self) -> Kind:
        """The same for an option that may be given several times, and gives a list."""
        return self._replace(is_list=True)


TEXT = Kind(str)
PATH = Kind(Path)
FLAG = Kind(bool)
NUMBER = Kind(Any, "NUMBER", _number)
NUMBERS = Kind(Any, "NUMBER", _numbers)
WHOLE = Kind(Any, "INTEGER", _whole)
WHOLES = Kind(Any, "INTEGERS", _wholes)
LAYER_WHOLES = Kind(Any, "INTEGER", _layer_wholes)
ASSIGNMENT = Kind(Any, "NAME=VALUE", _assignment)


def text(metavar: str) -> Kind:
    """Return the kind of an option whose text the library reads."""
    return Kind(str, metavar)


def one_of(*words: str) -> Kind:
    """Return the kind of an option that takes one of some words, which the library checks."""
    return Kind(str, "|".join(words))


# -- what an option is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One option of the command.

    Parameters
    ----------
    name : str
        Of the keyword under which a command function gets the value.
    kind : Kind
    help : str, optional
    default
        None if it need not be given, or is asked for where it is used, with all others that are.
    flag : str, optional
        How it is typed, where that is not ``--name``.
    fills : tuple of str
        The arguments of the library that it sets, where that is not ``name``.
    panel : str, optional
        Of the help.
    unset : str
        What holds where it is not given and has no default; the help shows it as one.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    flag: str | None = None
    fills: tuple[str, ...] = ()
    panel: str | None = None
    unset: str = ""

    def but(self, **changes: Any) -> Option:
        """Return the option with some of its description changed, for another command."""
        return replace(self, **changes)

    @property
    def typed(self) -> str:
        """How it is typed, ``--weight-decay``."""
        return (self.flag or f"--{self.name.replace('_', '-')}").partition("/")[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the library that it sets."""
        return self.fills or (self.name,)

    @property
    def parameter(self) -> inspect.Parameter:
        """What Typer makes the option from."""
        flags = [self.flag or self.typed] if self.flag or self.kind is FLAG else []
        details = typer.Option(
            *flags,
            help=self.help,
            metavar=self.kind.metavar,
            parser=self.kind.parser,
            rich_help_panel=self.panel,
            show_default=self.unset if self.default is None and self.unset else True,
        )
        annotation = list[self.kind.type] if self.kind.is_list else self.kind.type  # type: ignore[name-defined]
        if self.default is None:
            annotation = annotation | None if annotation is not Any else Any
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=self.default,
            annotation=Annotated[annotation, details],
        )


def changed(table: tuple[Option, ...], **changes: dict[str, Any] | None) -> tuple[Option, ...]:
    """Return a table of options with some of them changed, or without them (None)."""
    options = []
    for option in table:
        change = changes.pop(option.name, {})
        if change is not None:
            options.append(option.but(**change))
    if changes:
        raise KeyError(f"no such options: {', '.join(changes)}")
    return tuple(options)


#: Both decays at once, `with_options` splits it.
LAMBDA = Option(
    "logit_decay",
    NUMBER,
    "Sets lambda_W = lambda_H = lambda.",
    flag="--lambda",
    fills=("weight_decay", "feature_decay"),
    unset="the two decays",
)

# -- commands that take options --------------------------------------------------------------------


def with_options(*options: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command that takes these options, in the order of the help.

    The function gets their values by keyword; of `LAMBDA` it gets the two decays, unless it has a
    parameter of that name. Parameters that it annotates for Typer itself (a file to read, the
    context) stay. A ValueError that begins with the name of an argument which an
    option fills names the option instead.
    """
    parameters = [option.parameter for option in options]
    names = {option.name for option in options}

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        kept = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in own.values()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
            and parameter.name not in {*names, "context"}
        ]

        arguments = {p.name: _shown(p) for p in kept}

        @functools.wraps(function)
        def command(context: typer.Context, **values: Any) -> None:
            if "context" in own:
                values["context"] = context
            try:
                if LAMBDA.name in values and LAMBDA.name not in own:
                    _split_lambda(values)
                function(**values)
            except ValueError as error:
                message = _as_typed(str(error), options, given(context))
                raise ValueError(_as_shown(message, arguments)) from error

        context = inspect.Parameter(
            "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
        )
        every = [context, *kept, *parameters]
        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
        command.options = options  # type: ignore[attr-defined]
        return command

    return decorated


def _split_lambda(values: dict[str, Any]) -> None:
    """Put the two decays in the place of ``--lambda``."""
    value = values.pop(LAMBDA.name)
    nothing: tuple[Any, ...] = (None, [])  # an option that may be given several times
    if value in nothing:
        return
    for name in LAMBDA.fills:
        if values[name] not in nothing:
            raise ValueError(f"{name}: given with --lambda, which sets both decays")
        values[name] = value


def require_decays(
    values: Mapping[str, Any],
    *,
    also: Sequence[str] = (),
    hint: str = "give both decays, or --lambda",
) -> None:
    """Name all that is missing at once.

    Parameters
    ----------
    values : mapping
        With ``weight_decay`` and ``feature_decay``.
    also : sequence of str
        What else is missing.
    hint : str, optional
        What can be done about the decays.

    Raises
    ------
    ValueError
        If anything is missing.
    """
    decays = [name for name in LAMBDA.fills if values[name] is None]
    if also or decays:
        advice = f"; {hint}" if decays else ""
        raise ValueError(f"{', '.join([*also, *decays])}: missing{advice}")


def given(context: typer.Context) -> list[str]:
    """Return the names of the options that are on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [
        name
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    ]


def _shown(parameter: inspect.Parameter) -> str:
    """Return how the usage line has an argument: ``PAPER[/FIGURE]|all``, or ``FILE``."""
    (details,) = getattr(parameter.annotation, "__metadata__", (None,))
    return getattr(details, "metavar", None) or parameter.name.upper()


def _as_shown(message: str, arguments: Mapping[str, str]) -> str:
    """Return ``"names: got ..."`` as ``"PAPER[/FIGURE]|all: got ..."``."""
    name, colon, rest = message.partition(":")
    return arguments.get(name, name) + colon + rest


def _as_typed(message: str, options: tuple[Option, ...], typed: list[str]) -> str:
    """Return ``"weight_decay: got ..."`` as ``"--weight-decay: got ..."``."""
    names, colon, rest = message.partition(":")
    first, space, part = names.partition(" ")
    if space and any(first == option.name for option in options):  # "held_out labels: got ..."
        return f"{_as_typed(first, options, typed)} {part}{colon}{rest}"
    found: list[str] = []
    for name in names.split(", "):
        own = [o for o in options if name in (o.name, o.typed[2:], *o.arguments)]
        if not own:
            return message
        # Its own option, or else those that were typed.
        own.sort(key=lambda option: option.name != name)
        there = [o.typed for o in own if o.name in typed]
        found += there[:1] if name in typed else there or [own[0].typed]
    return ", ".join(dict.fromkeys(found)) + colon + rest


#: What a file of features holds, see `about`.
ARRAYS = ("features", "labels", "weight", "bias")


@contextlib.contextmanager
def about(file: Path, arrays: Container[str], **options: Any) -> Iterator[None]:
    """Put a file's name before an error about one of its arrays.

    Otherwise ``"bias: got shape (2,)"`` would be taken for the option of that name. An error that
    quotes the option's value is about the option.
    """
    try:
        yield
    except ValueError as error:
        name = str(error).partition(":")[0]
        if name not in arrays or repr(options.get(name)) in str(error):
            raise
        raise ValueError(f"{file}: {error}") from error


# -- options that several commands share -----------------------------------------------------------

#: What the help has where a command cannot do without, and may get it from elsewhere.
NEEDED = "needed"
COUNTS = Option(
    "counts", TEXT, "Samples per class: 500,100,100 or, compactly, 500x5,100x5.", unset=NEEDED
)
CLASS_NAMES = Option(
    "class_names",
    text("NAMES|FILE"),
    "In class order: cat,dog,.., or a .txt or .json file.",
    unset="numbers",
)
#: What else changes the loss or the decay cost of classes and labels.
SOFTENED = (
    Option("label_smoothing", NUMBER, "Share of every label spread over all classes.", 0.0),
    Option(
        "smoothing_weights",
        one_of(*SMOOTHING_WEIGHTS),
        "What weighs that share: the class of the sample, or every label (PyTorch).",
        "own",
    ),
    Option(
        "class_margins",
        text("NUMBERS"),
        "Taken off the own logit in the loss: 0.2x5,0.5x5.",
        unset="none",
    ),
    Option(
        "logit_scale",
        text("NUMBERS"),
        "Factor of each logit in the loss: 1x5,0.6x5.",
        unset="1",
    ),
    Option(
        "feature_weights",
        text("samples|contexts|NUMBERS"),
        "Factor of each squared class mean in the decay cost.",
        "samples",
    ),
)
#: All arguments of `Problem`.
PROBLEM = (
    COUNTS,
    Option(
        "weight_decay",
        NUMBERS,
        "lambda_W in (lambda_W/2)||W||^2; W1/W2/.. gives one a layer.",
        unset=NEEDED,
    ),
    Option("feature_decay", NUMBER, "lambda_H in (lambda_H/2) sum_i ||h_i||^2.", unset=NEEDED),
    LAMBDA,
    Option("loss", one_of(*LOSSES), "Averaged over the samples.", "cross_entropy"),
    Option("bias", one_of(*BIASES), "Bias of the classifier.", "none"),
    Option("bias_decay", NUMBER, "lambda_b of --bias decayed.", unset="needed with it"),
    Option("features", one_of(*FEATURES), "nonnegative: ReLU features.", "real"),
    Option("depth", WHOLE, "Linear layers after the features.", 1),
    Option("dim", LAYER_WHOLES, "Width of the features; 20/10: one a layer.", unset="wide enough"),
    Option(
        "class_weights",
        text("WEIGHTS|balanced"),
        "Factor of each class's loss: 1x5,10x5.",
        unset="1",
    ),
    Option(
        "logit_adjustment",
        text("NUMBERS|prior"),
        "Added to the logits inside the loss only; also 0.5*prior.",
        unset="none",
    ),
    *SOFTENED,
    CLASS_NAMES,
)

IGNORE_INDEX = Option("ignore_index", WHOLE, "Label of samples that are left out.", -100)
#: How a file of a network is read, see `tightframe.runs.network_files`; beside --class-names.
NETWORK = (
    Option(
        "keys",
        text("ARRAY=NAME,..."),
        "Where its arrays are: features=X,labels=y.csv,weight=model.pt:fc.weight.",
        unset="found by their names",
    ),
    Option(
        "held_out", PATH, "File with features and labels of samples not trained on.", unset="none"
    ),
    IGNORE_INDEX,
    Option("setting", TEXT, "Which setting of a run.", unset="the only one"),
)
TOL = Option("tol", NUMBER, "Certified relative gap wanted.", 1e-8)
JSON = Option("json", FLAG, "Print one JSON object and nothing else.", False)
JOBS = Option("jobs", WHOLE, "Processes here; -1: one for every core.", 1)
SCHEDULER = Option(
    "scheduler", text("tcp://HOST:PORT"), "Run on the Dask cluster there instead.", unset="none"
)
DATA_ROOT = Option("data_root", PATH, "Folder with data sets.", unset="where they are kept here")
DEVICES = Option("devices", WHOLE, "Processes (DDP), one a device.", unset="1")
