import numpy as np
import pytest
import torch
from torch.nn import functional

from tightframe.heads import FixedETF
from tightframe.problem.problem import Problem
from tightframe.theory.certificate import factored_objective
from tightframe.training import ProblemLoss, UFMLoss, head_bias, head_layers, linear_head

COUNTS = (5, 3, 2)


def objective(problem, features, labels, head):
    """The UFM's objective, written out in NumPy."""
    h = features.detach().numpy()
    layers = [layer.weight.detach().numpy() for layer in head_layers(head)]
    bias = head_bias(head)
    b = np.zeros(3) if bias is None else bias.detach().numpy()
    total = 0.0
    for row, y in zip(h, labels.tolist(), strict=True):
        z = row
        for w in layers:
            z = w @ z
        z = z + b
        if problem.loss == "cross_entropy":
            z = problem.logit_scale * z + problem.logit_adjustment
            z[y] -= problem.class_margins[y]
            losses = np.log(np.exp(z).sum()) - z
            own, smoothed, w = problem.class_weights[y], problem.label_smoothing, np.ones(3)
            w *= problem.class_weights if problem.smoothing_weights == "labels" else own
            total += (1 - smoothed) * own * losses[y] + smoothed * (w @ losses) / 3
        else:
            total += 0.5 * ((z - np.eye(3)[y]) ** 2).sum()
    total /= len(h)
    h = h * np.sqrt(problem.feature_weights / problem.counts)[labels.numpy(), None]
    for decay, w in zip(problem.weight_decays, layers, strict=True):
        total += decay / 2 * (w**2).sum()
    return total + problem.feature_decay / 2 * (h**2).sum() + problem.bias_decay / 2 * (b**2).sum()


def make(seed=0, **kwargs):
    problem = Problem(COUNTS, feature_decay=0.03, **({"weight_decay": 0.07} | kwargs))
    torch.manual_seed(seed)
    head = linear_head(4, 3, depth=problem.depth, bias=problem.bias != "none").double()
    features = torch.randn(10, 4, dtype=torch.float64)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    return problem, features, labels, head


PROBLEMS = [
    {},
    {"loss": "mse"},
    {"bias": "free"},
    {"bias": "decayed", "bias_decay": 0.5},
    {"depth": 3, "weight_decay": (0.1, 0.2, 0.3)},
    {"loss": "mse", "bias": "decayed", "bias_decay": 0.5, "depth": 2},
    {"class_weights": [1, 0.3, 7]},
    {"logit_adjustment": "prior", "depth": 2},
    {"class_weights": "balanced", "logit_adjustment": [-1, 0, 2.5], "bias": "free"},
    {"label_smoothing": 0.1},
    {"class_margins": [0.1, -0.2, 0.5]},
    {"logit_scale": [1, 0.6, 2], "bias": "free"},
    {"feature_weights": "contexts"},
    {"label_smoothing": 0.2, "class_weights": [1, 0.3, 7], "smoothing_weights": "labels"},
    {
        "label_smoothing": 0.1,
        "class_margins": [0, 0.2, 0.5],
        "logit_scale": [1, 0.8, 0.6],
        "feature_weights": [5, 1.5, 9],
        "class_weights": [1, 0.3, 7],
        "logit_adjustment": "prior",
        "bias": "decayed",
        "bias_decay": 0.5,
    },
]


@pytest.mark.parametrize("kwargs", PROBLEMS)
def test_full_batch_is_the_objective(kwargs):
    problem, features, labels, head = make(**kwargs)
    loss = UFMLoss(problem)(features, labels, head)
    assert loss.item() == pytest.approx(objective(problem, features, labels, head), rel=1e-13)


@pytest.mark.parametrize("kwargs", PROBLEMS)
@pytest.mark.parametrize("batch_size", [1, 4, 9])
def test_batches_of_an_epoch_average_to_the_objective(kwargs, batch_size):
    problem, features, labels, head = make(**kwargs)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for index in order.split(batch_size):  # the last batch is smaller: it weighs less
        batch = UFMLoss(problem)(features[index], labels[index], head)
        total += len(index) / 10 * batch.item()
    assert total == pytest.approx(objective(problem, features, labels, head), rel=1e-13)


@pytest.mark.parametrize("kwargs", PROBLEMS)
@pytest.mark.parametrize("factor", [0.0, 0.1, 1.0])
def test_decay_factor_is_on_all_decays(kwargs, factor):
    problem, features, labels, head = make(**kwargs)
    decayed = problem.replace(
        weight_decay=tuple(max(factor, 1e-90) * w for w in problem.weight_decays)
        if problem.depth > 1
        else max(factor, 1e-90) * problem.weight_decays[0],
        feature_decay=max(factor, 1e-90) * problem.feature_decay,
        bias_decay=max(factor, 1e-90) * problem.bias_decay if problem.bias_decay > 0 else None,
    )
    loss = UFMLoss(problem)(features, labels, head, factor)
    assert loss.item() == pytest.approx(objective(decayed, features, labels, head), rel=1e-13)


@pytest.mark.parametrize("bias", ["none", "decayed"])
def test_fixed_head_keeps_its_decay_as_a_constant(bias):
    problem, features, labels, _ = make(bias=bias, bias_decay=0.5 if bias != "none" else None)
    head = FixedETF(4, 3, bias=bias != "none", scale=2.0).double()
    features.requires_grad_()
    loss = UFMLoss(problem)(features, labels, head)
    assert loss.item() == pytest.approx(objective(problem, features, labels, head), rel=1e-13)
    assert UFMLoss(problem).head_penalty(head).item() == pytest.approx(0.07 / 2 * 3 * 4)
    loss.backward()
    assert head.frame.grad is None
    assert features.grad.abs().max() > 0


def test_learnable_scale_is_decayed():
    problem = make()[0]
    head = FixedETF(4, 3, scale=2.0, learnable_scale=True).double()
    UFMLoss(problem).head_penalty(head).backward()
    assert head.scale.grad.item() == pytest.approx(0.07 * 3 * 2.0)  # d/ds of 0.07/2 * 3 s^2


def test_gradients_reach_features_and_head():
    problem, features, labels, head = make()
    features.requires_grad_()
    UFMLoss(problem)(features, labels, head).backward()
    weight = head_layers(head)[0].weight
    for tensor in (features, weight):
        entry = (0, 1)
        step = torch.zeros_like(tensor)
        step[entry] = 1e-6
        with torch.no_grad():
            tensor += step
            up = objective(problem, features, labels, head)
            tensor -= 2 * step
            down = objective(problem, features, labels, head)
            tensor += step
        assert tensor.grad[entry].item() == pytest.approx((up - down) / 2e-6, rel=1e-5)


def test_features_summed_per_batch_are_converted_by_the_problem():
    # The step of a script that sums the features over batches of 5 and halves the loss.
    script = {"weight_decay": 0.02, "feature_decay": 0.01}
    _, features, labels, head = make()
    problem = Problem.from_batch_features(COUNTS, batch_size=5, loss_scale=0.5, **script)
    index = torch.arange(5)
    logits, weight = head(features[index]), head_layers(head)[0].weight
    step = (
        0.5 * torch.nn.functional.cross_entropy(logits, labels[index])
        + script["weight_decay"] / 2 * weight.square().sum()
        + script["feature_decay"] / 2 * features[index].square().sum()
    )
    ours = UFMLoss(problem)(features[index], labels[index], head)
    assert ours.item() == pytest.approx(step.item() / 0.5, rel=1e-13)


# -- class weights and logit adjustment ------------------------------------------------------------

REWEIGHTED = {"class_weights": [1, 0.3, 7], "logit_adjustment": [-1, 0, 2.5]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_data_loss_is_pytorchs_weighted_sum_over_the_batch(dtype):
    problem, features, labels, head = make(**REWEIGHTED)
    weights = torch.tensor(REWEIGHTED["class_weights"], dtype=dtype)
    adjustment = torch.tensor(REWEIGHTED["logit_adjustment"], dtype=dtype)
    index = torch.tensor([9, 0, 4, 8])
    logits, y = head(features[index]).to(dtype), labels[index]
    loss = UFMLoss(problem)
    ours = loss.data_loss(logits, y)
    total = functional.cross_entropy(logits + adjustment, y, weights, reduction="sum")
    assert ours.dtype == dtype
    assert ours.item() == pytest.approx(total.item() / 4, rel=1e-6 if dtype.itemsize < 8 else 1e-14)
    # PyTorch's own mean divides by the weights of those in the batch.
    mean = functional.cross_entropy(logits + adjustment, y, weights)
    assert ours.item() == pytest.approx(mean.item() * weights[y].sum().item() / 4, rel=1e-6)


def test_batches_average_to_the_factored_objective():
    problem, features, labels, head = make(**REWEIGHTED, bias="decayed", bias_decay=0.5)
    with torch.no_grad():
        values = [
            len(index) / 10 * UFMLoss(problem)(features[index], labels[index], head).item()
            for index in torch.randperm(10).split(3)
        ]
    layers = [layer.weight.detach().numpy() for layer in head_layers(head)]
    bias = head_bias(head).detach().numpy()
    expected = factored_objective(problem, layers, features.numpy(), labels.numpy(), bias)
    assert sum(values) == pytest.approx(expected, rel=1e-13)


def test_a_weighted_mean_over_the_training_set_is_converted_by_the_problem():
    _, features, labels, head = make()
    problem = Problem.from_weighted_mean(
        COUNTS, class_weights=[1, 0.3, 7], weight_decay=0.07, feature_decay=0.03
    )
    weights = torch.tensor([1, 0.3, 7], dtype=torch.float64)
    theirs = torch.nn.CrossEntropyLoss(weights)(head(features), labels)
    ours = UFMLoss(problem).data_loss(head(features), labels)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-13)


def test_numbers_per_class_follow_the_module_and_stay_out_of_checkpoints():
    problem, features, labels, head = make(**REWEIGHTED)
    loss = UFMLoss(problem)
    assert not loss.state_dict()
    loss.load_state_dict(UFMLoss(make()[0]).state_dict())  # of a time before them
    before = loss.data_loss(head(features), labels)
    moved = loss.to("meta")
    assert [buffer.device.type for buffer in moved.buffers()] == ["meta"] * 2
    # What is measured in float64 on the CPU is so wherever the module trains.
    assert moved.data_loss(head(features), labels) == before
    assert not list(UFMLoss(make()[0]).buffers())


def test_half_precision_logits():
    problem, features, labels, head = make(**REWEIGHTED)
    logits = head(features)
    for changes in ({}, {"logit_adjustment": None}):
        part = UFMLoss(problem.replace(**changes))
        exact = part.data_loss(logits, labels).item()
        assert part.data_loss(logits.bfloat16(), labels).item() == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize("kwargs", PROBLEMS)
def test_gradients_of_the_criterion_are_its_differences(kwargs):
    problem, features, labels, head = make(**kwargs)
    logits = head(features).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ProblemLoss(problem)(z, labels), logits)


def test_label_smoothing_is_that_of_torch():
    _, _, labels, _ = make()
    logits = torch.randn(10, 3, dtype=torch.float64)
    problem = Problem(COUNTS, weight_decay=1e-2, feature_decay=1e-2, label_smoothing=0.1)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, labels)
    assert ProblemLoss(problem)(logits, labels).item() == pytest.approx(theirs.item(), rel=1e-14)


def test_weighted_label_smoothing_is_that_of_torch():
    _, _, labels, _ = make()
    logits = torch.randn(10, 3, dtype=torch.float64)
    weights = [1.0, 0.3, 7.0]
    problem = Problem.from_weighted_mean(
        COUNTS, class_weights=weights, label_smoothing=0.1, weight_decay=1e-2, feature_decay=1e-2
    )
    loss = torch.nn.CrossEntropyLoss(
        torch.tensor(weights, dtype=torch.float64), label_smoothing=0.1
    )
    ours = ProblemLoss(problem)(logits, labels).item()
    assert ours == pytest.approx(loss(logits, labels).item(), rel=1e-14)


def test_penalty_by_the_class_needs_labels():
    problem, features, _, _ = make(feature_weights="contexts")
    with pytest.raises(ValueError, match="labels: missing"):
        UFMLoss(problem).feature_penalty(features)


# -- label distributions -----------------------------------------------------------------------


TOKENS = np.array([[30, 0, 4], [6, 9, 4], [4, 21, 0], [0, 0, 2]])  # of 4 tokens after 3 contexts


def contexts(**rest):
    counts = TOKENS.sum(axis=0)
    decays = {"weight_decay": 0.07, "feature_decay": 0.03}
    return Problem(counts, targets=TOKENS / counts, **decays | rest)


@torch.no_grad()
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"feature_weights": "contexts"},
        {"class_weights": [1, 2, 0.5], "bias": "decayed", "bias_decay": 0.5},
    ],
)
def test_contexts_with_repeats_cost_what_their_samples_cost_one_by_one(kwargs):
    """Written out by PyTorch's cross-entropy of every occurrence with its own next token."""
    problem, loss = contexts(**kwargs), UFMLoss(contexts(**kwargs))
    torch.manual_seed(3)
    head = linear_head(5, 4, bias=problem.bias != "none").double()
    features = torch.randn(3, 5, dtype=torch.float64)
    own = torch.from_numpy(np.concatenate([np.repeat(np.arange(4), n) for n in TOKENS.T]))
    every = torch.from_numpy(np.repeat(np.arange(3), problem.counts))
    each = functional.cross_entropy(head(features)[every], own, reduction="none")
    weights = torch.from_numpy(problem.class_weights)[every]
    decays = torch.from_numpy(problem.feature_weights) @ features.square().sum(dim=1)
    want = (weights * each).mean() + 0.03 / 2 * decays + loss.head_penalty(head)
    repeats = torch.from_numpy(problem.counts)
    together = loss(features, torch.arange(3), head, repeats=repeats)
    assert float(together) == pytest.approx(float(want), rel=1e-12)
    assert float(loss(features[every], every, head)) == pytest.approx(float(want), rel=1e-12)


def test_repeats_need_targets():
    problem, features, labels, head = make()
    with pytest.raises(ValueError, match="repeats: got some, and the problem has no targets"):
        UFMLoss(problem)(features, labels, head, repeats=torch.ones(10))
    with pytest.raises(ValueError, match="repeats: got some"):
        UFMLoss(problem).feature_penalty(features, labels, torch.ones(10))


def test_targets_too_many_to_be_written_out_are_refused():
    from scipy.sparse import csc_array

    size = 6000
    eye = csc_array((np.ones(size), (np.arange(size), np.arange(size))))
    problem = Problem(np.ones(size, int), targets=eye, weight_decay=0.1, feature_decay=0.1)
    with pytest.raises(ValueError, match="targets: 6000 x 6000 entries are too many"):
        ProblemLoss(problem)
