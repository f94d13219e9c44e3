"""Several processes measure one classifier, whichever of them had batches."""

import numpy as np
import pytest
import torch

from tests import processes
from tests.capture.nets import BATCHES, INPUTS, OFFSET, Behind, Projected, mean_logits
from tightframe.capture.layers import collapse_report
from tightframe.capture.watch import watch


def _process(rank, folder):
    file = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", file, rank=rank, world_size=2)
    found = {}
    shares = {"uneven": [BATCHES[:1], BATCHES[1:]], "empty": [[], BATCHES]}
    for name, share in shares.items():
        for kind, model in (("offset", Behind(2.0, OFFSET)), ("found", Projected())):
            options = {"synchronize": True, "targets": "etf"}
            reports = collapse_report(model, share[rank], **options)
            with watch(model.eval(), nc4=True, targets="etf") as watched, torch.no_grad():
                for x, y in share[rank]:
                    model(x)
                    watched.labels(y)
            (head,), (seen,) = reports.values(), watched.reports(synchronize=True).values()
            found[f"{name} {kind}"] = [torch.tensor(r.logits) for r in (head, seen)]
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_agree_on_the_head_and_its_factor(tmp_path):
    calls = [(_process, rank, str(tmp_path)) for rank in range(2)]
    assert processes.run_all(calls) == [0, 0]
    both_found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for key, parts in both_found[0].items():
        model = Behind(2.0, OFFSET) if "offset" in key else Projected()
        expected = mean_logits(model(INPUTS))
        for part, other in zip(parts, both_found[1][key], strict=True):
            assert part.numpy() == pytest.approx(expected, abs=1e-5), key
            assert np.array_equal(part, other)
