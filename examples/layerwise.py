"""Where in a network do classes collapse? Every layer from one pass over the data."""

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from tightframe.metrics import collapse_report


def patterns(count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noisy 8 x 8 images of stripes in five orientations."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 5
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    angles = labels[:, None, None] * torch.pi / 5
    waves = torch.sin(1.5 * (rows * torch.cos(angles) + columns * torch.sin(angles)))
    return (waves + 0.8 * torch.randn(count, 8, 8, generator=generator))[:, None], labels


def main() -> None:
    """Train a small convolutional network and measure four of its layers."""
    torch.manual_seed(0)
    inputs, labels = patterns()
    model = nn.Sequential()
    model.add_module("conv1", nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU()))
    model.add_module("conv2", nn.Sequential(nn.Conv2d(12, 24, 3), nn.BatchNorm2d(24), nn.ReLU()))
    model.add_module("hidden", nn.Sequential(nn.Flatten(), nn.Linear(24 * 16, 32), nn.ReLU()))
    model.add_module("fc", nn.Linear(32, 5))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, labels), batch_size=64
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    for _ in range(40):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    # Feature maps are pooled unless another reduction is named; the head's own features, its
    # input, come last.
    reports = collapse_report(
        model, loader, layers=["conv1", "conv2", "hidden.1"], head="fc", reduce={"conv1": "flatten"}
    )
    table = Table(title="One pass over the data (and one more for NC4)")
    for column in ("layer", "D", "tr/tr (NC1)", "CDNV", "nearest centre right", "NC4"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    widths = {"conv1": 12 * 36, "conv2": 24, "hidden.1": 32, "fc": 32}
    for name, report in reports.items():
        table.add_row(
            name,
            str(widths[name]),
            f"{report.nc1_quotient:.4f}",
            f"{report.cdnv:.4f}",
            f"{report.nearest_center_accuracy:.3f}",
            f"{report.nc4:.3f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
