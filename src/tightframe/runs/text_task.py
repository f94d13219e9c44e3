"""What a run on text trains on, records and judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from tightframe.context_solution import ContextSolution
from tightframe.data.text import read_text
from tightframe.problem.problem import Problem
from tightframe.problem.tokens import next_tokens
from tightframe.runs.batches import loader
from tightframe.runs.store import split_targets
from tightframe.runs.task import Arrays
from tightframe.runs.text_config import SPARE, TextConfig
from tightframe.runs.text_limit import limit_facts
from tightframe.runs.text_verdicts import text_verdicts
from tightframe.training.context_measures import predicted_row
from tightframe.training.contexts import ContextCallback, MeasuredContexts, TokenMLP
from tightframe.training.measuring import Row
from tightframe.training.module import CollapseModule
from tightframe.training.networks import linear_head


class TextTask:
    """A text's contexts and next tokens, and their problems; see `tightframe.runs.task.Task`.

    Raises
    ------
    ValueError
        If the text cannot be read, is another than that of the configuration's digest, or has too
        few contexts.
    """

    def __init__(self, config: TextConfig) -> None:
        text = read_text(config.data, root=config.data_root)
        if config.digest not in (None, text.digest):
            raise ValueError(
                f"data: {text.source} has changed: its digest is {text.digest}, that of the run "
                f"{config.digest}"
            )
        self.config = config.replace(digest=text.digest)
        tokens = text.tokens(config.tokens)
        found = next_tokens(tokens, config.context, config.min_count)
        labels, contexts = found.counts.shape
        if min(labels, contexts) < 2:
            raise ValueError(
                f"min_count: got {config.min_count}, which leaves {contexts} contexts and {labels} "
                "next tokens of this text; need at least 2 of both"
            )
        self.problems: tuple[Problem, ...] = config.problems_of(found)
        known = sorted({token for context in found.contexts for token in context})
        place = {token: number for number, token in enumerate(known)}
        self._inputs = torch.tensor(
            [[place[token] for token in context] for context in found.contexts]
        )
        self._num_tokens = len(known)
        self._about = {
            "text": {
                "source": text.source,
                "kind": config.tokens,
                "context": config.context,
                "min_count": config.min_count,
                "characters": text.num_characters,
                "tokens": sum(map(len, tokens)),
                "occurrences": int(found.occurrences.sum()),
                "left_out": found.left_out,
            },
            "contexts": [list(context) for context in found.contexts],
        }

    def module(self, solution: ContextSolution) -> CollapseModule:
        """Return a new network with the loss of the problem."""
        config, problem = self.config, solution.problem
        torch.manual_seed(config.seed)
        width = config.feature_dim or solution.rank + SPARE
        backbone = TokenMLP(
            self._num_tokens, config.context, width, config.hidden, config.embedding_dim
        )
        return CollapseModule(
            backbone,
            linear_head(width, problem.num_classes, bias=problem.bias != "none"),
            problem,
            optimizer=config.optimizer,
            lr=config.lr,
            momentum=config.momentum,
            schedule=config.schedule,
            backbone_weight_decay=config.backbone_weight_decay,
            milestones=config.milestones,
        )

    def callback(
        self, solution: ContextSolution, on_measure: Callable[[list[Row]], None] | None
    ) -> ContextCallback:
        """Return what measures the network against the solution."""
        return ContextCallback(
            solution, self._inputs, every=self.config.measure_every, on_measure=on_measure
        )

    def loader(self) -> torch_data.DataLoader[tuple[Tensor, ...]]:
        """Return the training batches."""
        repeats = torch.from_numpy(self.problems[0].counts)
        contexts = torch.arange(len(self._inputs))
        return loader((self._inputs, contexts, repeats), None, self.config.seed)

    def prediction(self, solution: ContextSolution) -> tuple[dict[str, Any], Arrays]:
        """Return what ``prediction.json`` and ``prediction.npz`` hold."""
        problem, arrays = split_targets(solution.problem)
        arrays |= {
            "weight": solution.weights[0],
            "features": solution.class_means,
            "bias": solution.bias,
            "label_of": solution.label_of,
            "context_of": solution.context_of,
        }
        own = {"problem": problem, "row": predicted_row(solution), "limit": limit_facts(solution)}
        return solution.to_dict() | self._about | own, arrays

    def class_arrays(self, kept: Sequence[Arrays], final: MeasuredContexts) -> None:
        """Return None: contexts have laws of next tokens, and no class."""

    def final_arrays(self, final: MeasuredContexts) -> Arrays:
        """Return what ``final.npz`` holds."""
        weight, bias = final.weight.numpy(), final.bias
        return {
            "features": final.features.numpy(),
            "weight": weight,
            "bias": np.zeros(len(weight), np.float32) if bias is None else bias.numpy(),
        }

    def judged(
        self, solution: ContextSolution, final: MeasuredContexts
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """Return what keeps the training from being that of the problem, and the verdicts."""
        return [], text_verdicts(solution.rank, final.row)
