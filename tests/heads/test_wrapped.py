"""Classifiers inside `torch.compile`, DataParallel, DistributedDataParallel: found, replaced."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests import processes
from tightframe.heads import FixedETF, freeze_to_etf, project_features, replace_module
from tightframe.heads.find import find_head, find_module, unwrapped

pytestmark = pytest.mark.filterwarnings("error", "ignore::DeprecationWarning")

INPUTS, LABELS = torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3


def network():
    torch.manual_seed(0)
    model = nn.Sequential()
    for name, layer in (("body", nn.Linear(5, 7)), ("act", nn.ReLU()), ("fc", nn.Linear(7, 3))):
        model.add_module(name, layer)
    return model


class Engine(nn.Module):
    """DeepSpeed's engine, which needs its own launcher, wraps a model so."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


Engine.__name__ = "DeepSpeedEngine"
WRAPPERS = {
    "data parallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "two": lambda model: nn.DataParallel(torch.compile(model, backend="eager")),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", [None, "fc"])
def test_the_inner_model_is_changed(wrapper, name):
    model = network()
    wrapped = WRAPPERS[wrapper](model)
    wrapped(INPUTS)
    inner = unwrapped(wrapped)
    before = [n for n, _ in wrapped.named_modules()]
    head = freeze_to_etf(wrapped, name)
    assert inner.fc is head
    assert find_module(wrapped, "fc") is head
    assert find_head(wrapped).module is head
    assert [n for n, _ in wrapped.named_modules()] == before
    features = inner.act(inner.body(INPUTS))
    assert torch.allclose(wrapped(INPUTS), features @ head.weight.T + head.bias, atol=1e-6)
    project_features(wrapped, "fc")
    assert isinstance(inner.fc[1], FixedETF)


def test_names_of_the_wrapper_itself_and_unknown_ones():
    wrapped = nn.DataParallel(network())
    old = wrapped.module.fc
    assert replace_module(wrapped, "module.fc", nn.Identity()) is old
    assert isinstance(wrapped.module.fc, nn.Identity)
    with pytest.raises(ValueError, match="has no module 'fcc'; near names: fc"):
        replace_module(wrapped, "fcc", nn.Identity())


def test_a_module_of_ones_own_that_is_called_module_is_no_wrapper():
    plain = nn.ModuleDict({"module": network()})
    assert unwrapped(plain) is plain
    assert find_head(plain).name == "module.fc"
    freeze_to_etf(plain)
    assert isinstance(plain["module"].fc, FixedETF)


def test_an_engine_is_looked_into_and_must_be_made_anew():
    engine = Engine(network())
    with pytest.warns(RuntimeWarning, match="'fc' was replaced inside DeepSpeedEngine, which goes"):
        head = freeze_to_etf(engine)
    assert engine.module.fc is head


def _with_ddp(file):
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=0, world_size=1)
    for name in (None, "fc", "module.fc"):
        wrapped = DistributedDataParallel(network())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            head = freeze_to_etf(wrapped, name)
        (said,) = [str(w.message) for w in caught if "replaced" in str(w.message)]
        assert "wrap the model again, DistributedDataParallel(model.module, ...)" in said
        assert wrapped.module.fc is head
        assert len([m for m in wrapped.modules() if isinstance(m, FixedETF)]) == 1
        # Wrapped again it trains, and the frame stays.
        again, frame = DistributedDataParallel(wrapped.module), head.frame.clone()
        optimizer = torch.optim.SGD(again.parameters(), 0.5)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(again(INPUTS), LABELS)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        assert torch.equal(head.frame, frame)
        assert head.bias.grad is not None
    torch.distributed.destroy_process_group()


def test_a_real_group_of_one_process(tmp_path):
    assert processes.run(_with_ddp, tmp_path / "rendezvous") == 0


# -- what is found ---------------------------------------------------------------------------------


def test_a_row_for_a_sigmoid_is_no_rival_of_a_classifier():
    two = nn.ModuleDict({"fc": nn.Linear(4, 3), "score": nn.Linear(4, 1)})
    assert find_head(two).name == "fc"
    for name in (None, "score"):
        with pytest.raises(ValueError, match="'score' is a Linear with one row w, as before a sig"):
            find_head(nn.ModuleDict({"score": nn.Linear(4, 1)}), name)


def test_lists_of_heads_name_their_members():
    several = nn.ModuleDict({"heads": nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])})
    with pytest.raises(ValueError, match=r"several heads; name one of heads\.0, heads\.1"):
        find_head(several, "heads")
    with pytest.raises(ValueError, match=r"the model has 'heads\.0' and 'heads\.1'; name"):
        find_head(several)
    one = nn.ModuleDict({"heads": nn.ModuleList([nn.Linear(4, 3)])})
    assert find_head(one).name == "heads.0"


@pytest.mark.parametrize("packed", ["qweight", "weight_packed"])
def test_packed_weights_are_named(packed):
    class QuantLinear(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_features, self.out_features, self.bias = 4, 3, None
            self.register_buffer(packed, torch.zeros(3, 1, dtype=torch.int32))

    model = nn.ModuleDict({"fc": QuantLinear()})
    said = f"'fc' is a QuantLinear, quantised: it stores codes in '{packed}'"
    with pytest.raises(ValueError, match=said):
        find_head(model)
    with pytest.raises(ValueError, match=said):
        freeze_to_etf(model)
