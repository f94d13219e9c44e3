"""What the network of a setting does with its classes, and what helps: where every report ends."""

from __future__ import annotations

import numpy as np

from tightframe.diagnosis.diagnose import Diagnosis, diagnose
from tightframe.metrics.classes import ClassTable
from tightframe.runs.store import SettingRecord
from tightframe.runs.tables import class_history, group_name, predicted_groups

#: More groups than this are not listed.
_MOST_GROUPS = 6


def diagnosis_of(setting: SettingRecord) -> Diagnosis | None:
    """Return the diagnosis of a setting's network; None before it has been trained to the end."""
    layer = setting.last_layer()
    if layer is None or not setting.finished:
        return None
    return diagnose(layer, problem=setting.problem, history=class_history(setting))


def answer(setting: SettingRecord) -> list[str]:
    """Return in a few sentences what a network does, what helps first, and whether theory holds."""
    found = diagnosis_of(setting)
    if found is None:
        return []
    sentences = [found.headline, _recalls(setting, found.classes)]
    sentences.append(found.remedies.first)
    if found.remedies.advised:
        first = found.remedies.advised[0]
        sentences.append(f"What helps first: {first.text} Evidence: {first.evidence.text}.")
    theory = found.theory
    if theory.describes:
        sentences.append(
            "The theory describes this network: with decays fitted to it every margin is within "
            f"{theory.error:.2g} nats of the predicted."
        )
    else:
        sentences.append(f"The theory does not describe this network: {theory.reason}.")
    return [sentence for sentence in sentences if sentence]


def _recalls(setting: SettingRecord, classes: ClassTable) -> str:
    """Say how much of every group's held-out samples is answered right."""
    recalls = {row.label: row.held_out_recall for row in classes}
    parts = []
    for group in predicted_groups(setting):
        known = [recalls.get(label) for label in group.get("members", [])]
        values = [recall for recall in known if recall is not None]
        if values:
            parts.append(f"{np.mean(values):.1%} of {group_name(group)}")
    if not parts:
        return ""
    if len(parts) > _MOST_GROUPS:
        every = [recall for recall in recalls.values() if recall is not None]
        parts = [f"{np.mean(every):.1%} on average, {min(every):.1%} of the worst class"]
    return f"Held-out recall: {', '.join(parts)}."
