"""Save the features of any network, measure them later with the command line."""

import json
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from tightframe.cli import run_command


def main() -> None:
    """Write features.safetensors and run ``tightframe measure`` on it."""
    torch.manual_seed(0)
    labels = torch.arange(300) % 3
    inputs = torch.randn(300, 6) + 3 * torch.eye(6)[labels]
    backbone, head = nn.Sequential(nn.Linear(6, 32), nn.ReLU()), nn.Linear(32, 3)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(backbone(inputs)), labels).backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.safetensors"
        with torch.no_grad():
            arrays = {
                "features": backbone(inputs),  # (N, D): what goes into the classifier
                "labels": labels,
                "weight": head.weight,
                "bias": head.bias,
            }
            save_file({name: t.detach().contiguous() for name, t in arrays.items()}, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")
        decays = ["--weight-decay", "1e-3", "--feature-decay", "1e-5", "--bias", "free"]
        if run_command(["measure", str(path), *decays]):
            sys.exit("tightframe measure failed")
        with redirect_stdout(StringIO()) as printed:
            run_command(["measure", str(path), *decays, "--json"])
        result = json.loads(printed.getvalue())
        print(f"NC1 {result['nc1']:.4f}, NC4 {result['nc4']:.3f}")


if __name__ == "__main__":
    main()
