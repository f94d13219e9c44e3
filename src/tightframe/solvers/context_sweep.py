"""Sweeps of decays with label distributions: every solve starts where the last ones lead to."""

from __future__ import annotations

import math

from tightframe.solvers.contexts import Found, State, minimise_contexts
from tightframe.theory.contexts.form import ContextForm

#: An extrapolation reaches no further than so many times the last step, in logarithms.
MAX_REACH = 2.0


class ContextSweep:
    """The last two points of a sweep over forms that differ in their decays only.

    As a function of the logarithm of the decay, the governing matrix is nearly linear between two
    changes of the rank, where it has a kink that the solver soon takes.
    """

    def __init__(self) -> None:
        self.states: list[State] = []

    def minimise(self, form: ContextForm, tol: float, max_iterations: int) -> Found:
        """Minimise the next form, from a prediction where there is one, and remember where."""
        found = minimise_contexts(form, tol, max_iterations, self._start(form.decay))
        self.states = [*self.states[-1:], found.state] if found.state is not None else []
        return found

    def _start(self, decay: float) -> State | None:
        """Return the last state at another decay; from two, on the line through both."""
        if not self.states:
            return None
        last = self.states[-1]
        # The dual point grows with the decay, and the penalty that suits it does.
        start = last._replace(penalty=last.penalty * decay / last.decay, decay=decay)
        if len(self.states) == 1 or last.decay == (before := self.states[0]).decay:
            return start
        reach = math.log(decay / last.decay) / math.log(last.decay / before.decay)
        if abs(reach) > MAX_REACH:
            return start
        return start._replace(
            governing=last.governing + reach * (last.governing - before.governing),
            bias=last.bias + reach * (last.bias - before.bias),
        )
