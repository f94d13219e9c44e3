"""What configurations of common shapes say, and that what is unclear is refused with its places."""

from types import SimpleNamespace

import pytest

from tightframe.problem.settings import TrainingSettings, training_settings


def test_settings_of_a_lightning_config(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "trainer:\n  max_epochs: 3\n  accumulate_grad_batches: 2\n  devices: auto\n"
        "optimizer:\n  class_path: torch.optim.SGD\n  init_args:\n    weight_decay: 0.0005\n"
        "data:\n  init_args:\n    batch_size: 64\n"
    )
    assert training_settings(tmp_path / "config.yaml") == TrainingSettings(5e-4, 128, False)


def test_settings_of_hugging_face(tmp_path):
    transformers = pytest.importorskip("transformers")
    given = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        weight_decay=0.01,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=8,
        optim="sgd",
        report_to="none",
        use_cpu=True,
    )
    expected = TrainingSettings(0.01, 32, False)
    assert training_settings(given) == expected
    (tmp_path / "args.json").write_text(given.to_json_string())
    assert training_settings(tmp_path / "args.json") == expected


def test_settings_of_optimisers():
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 2)
    sgd = torch.optim.SGD(
        [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}],
        lr=0.1,
        weight_decay=5e-4,
    )
    assert training_settings(sgd) == TrainingSettings(5e-4, None, False)
    assert training_settings(torch.optim.AdamW(model.parameters())).decoupled
    assert not training_settings(torch.optim.Adam(model.parameters())).decoupled
    decoupled = SimpleNamespace(param_groups=[{"decoupled_weight_decay": True}])
    assert training_settings(decoupled).decoupled


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # As in pytorch-cifar-like scripts, whose YAML has the number as PyYAML cannot read it.
        ("lr: 1e-1\nweight_decay: 5e-4\nbatch_size: 128\n", (5e-4, 128, False)),
        # timm's args.yaml, Hydra, mmpretrain, detectron2 and pycls, Weights & Biases.
        ("opt: sgd\nweight_decay: 2.0e-05\nbatch_size: 1e2\nwd_x: x\n", (2e-5, 100, False)),
        ("opt: adamw\nweight_decay: 0.05\n", (0.05, None, True)),
        ("optimizer: {_target_: torch.optim.AdamW, weight_decay: 5e-2}\n", (0.05, None, True)),
        ("optimizer: {type: SGD, weight_decay: 0.0001}\n", (1e-4, None, False)),
        ("optimizer: {type: Lion, weight_decay: 0.0001}\n", (1e-4, None, True)),
        ("SOLVER: {WEIGHT_DECAY: 1e-4, WEIGHT_DECAY_NORM: 0.0}\n", (1e-4, None, False)),
        (
            "OPTIM: {WEIGHT_DECAY: 5.0e-5}\nTRAIN: {BATCH_SIZE: 256}\nTEST: {BATCH_SIZE: 200}\n",
            (5e-5, 256, False),
        ),
        (
            "weight_decay:\n  desc: null\n  value: 5e-4\nbatch_size:\n  value: 32\n",
            (5e-4, 32, False),
        ),
        # Two networks that agree, groups of parameters, nothing said.
        ("a: {weight_decay: 5e-4}\nb: {weight_decay: 0.0005}\n", (5e-4, None, False)),
        ("param_groups: [{weight_decay: 0}, {weight_decay: 1e-3}]\n", (1e-3, None, False)),
        ("weight_decay: null\nno_weight_decay: [bias]\n", (None, None, False)),
        # Devices of a Lightning trainer, and accumulated batches.
        (
            "trainer: {devices: 4, num_nodes: 2, accumulate_grad_batches: 3}\nbatch_size: 8\n",
            (None, 192, False),
        ),
        ("trainer: {devices: [0, 3]}\nbatch_size: 8\n", (None, 16, False)),
        ("batch_size: 8\naccumulation_steps: 0\neval_accumulation_steps: 4\n", (None, 8, False)),
    ],
)
def test_settings_of_common_files(tmp_path, text, expected):
    (tmp_path / "c.yaml").write_text(text)
    assert training_settings(tmp_path / "c.yaml") == TrainingSettings(*expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimizer: {weight_decay: 5e-4}\nteacher: {weight_decay: 0.1}\n",
            r"several weight decays, optimizer\.weight_decay 0\.0005, teacher\.weight_decay 0\.1;",
        ),
        (
            "optimizer: {weight_decay: 0}\nmodel: {weight_decay: 0.1}\n",
            r"several weight decays, optimizer\.weight_decay 0, model\.weight_decay 0\.1;",
        ),
        (
            "optimizer: {wd: 5e-4}\nteacher: {weight_decay: 0.1}\n",
            r"several weight decays, teacher\.weight_decay 0\.1, optimizer\.wd 0\.0005;",
        ),
        (
            "weight_decay: 0.04\nweight_decay_end: 0.4\n",
            r"weight_decay 0\.04, weight_decay_end 0\.4;",
        ),
        ("weight_decay: [1e-4, 5e-4]\n", r"weight_decay\[0\] 0\.0001, weight_decay\[1\] 0\.0005;"),
        ("weight_decay: {min: 0, max: 0.1}\n", r"weight_decay\.max 0\.1, which may be a weight"),
        ("optimizer: {decay: 5e-4}\n", r"optimizer\.decay 0\.0005, which may be a weight decay"),
        ("optimizer_weight_decay: 5e-4\n", "optimizer_weight_decay 0.0005, which may be"),
        *(
            (f"weight_decay: {value}\n", "weight_decay .*, need a finite number, at least 0")
            for value in ('"5e-4"', "${wd}", "true", "-1", ".nan", ".inf", "1e400", "9" * 400)
        ),
        (
            "a: {batch_size: 64}\nb: {batch_size: 100}\n",
            r"several batch sizes, a\.batch_size 64, b\.batch_size 100; give batch_size",
        ),
        ("batch_size: 8\na_accum: 2\nb_accum: 4\n", "several numbers of accumulated batches"),
        ("batch_size: 8\naccumulate_grad_batches: {0: 4}\n", "need a whole number"),
        ("trainer: {devices: '0,1'}\nbatch_size: 8\n", "trainer.devices '0,1', need a whole"),
        *(
            (f"batch_size: {value}\n", "batch_size .*, need a whole number, at least 1")
            for value in ("auto", "0", "-3", "1.5", "1_000")
        ),
    ],
)
def test_what_is_unclear_is_refused_with_its_places(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"^config: .*c\.yaml has .*{message}") as caught:
        training_settings(tmp_path / "c.yaml")
    assert len(str(caught.value)) < 500


def test_sizes_that_no_computer_holds_are_refused_with_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("weight_decay: 5e-4\nbatch_size: " + "9" * 400)
    with pytest.raises(ValueError, match=r"config\.yaml has batch_size 9+\.\.\., need .* 2\*\*63"):
        training_settings(file)


def test_aliases_written_out_are_limited(tmp_path):
    pairs = zip("abcdef", "bcdefg", strict=True)
    lines = [f"{c}: &{c} [{','.join(['*' + b] * 9)}]\n" for b, c in pairs]
    (tmp_path / "c.yaml").write_text("a: &a [x]\n" + "".join(lines))
    with pytest.raises(ValueError, match=r"config: .*c\.yaml has more than 100000 entries"):
        training_settings(tmp_path / "c.yaml")


def test_mappings_that_contain_themselves_are_refused():
    config = {"weight_decay": 1e-3}
    config["self"] = config
    with pytest.raises(ValueError, match="config: dict is nested more than 100 deep"):
        training_settings(config)


def test_other_sources_are_refused():
    with pytest.raises(ValueError, match="config: got int"):
        training_settings(3)
    with pytest.raises(ValueError, match=r"config: dict has weight_decay 1000.*\.\.\., need a fin"):
        training_settings({"weight_decay": 10**400})


# -- optimisers ------------------------------------------------------------------------------------


def is_penalty(make):
    """Tell whether an optimiser steps with its decay as it does with the penalty in the loss."""
    torch = pytest.importorskip("torch")
    ends = []
    for decay, penalty in ((0.3, 0.0), (0.0, 0.3)):
        weight = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
        optimizer = make([weight], decay)
        for _ in range(20):
            optimizer.zero_grad()
            loss = (weight - 1).pow(4).sum() + penalty / 2 * weight.square().sum()
            loss.backward()
            optimizer.step()
        ends.append(weight.detach())
    return bool(torch.allclose(*ends, rtol=1e-9))


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize("name", ["Adam", "NAdam", "RAdam"])
def test_flags_of_torch_decide_as_the_steps_do(name, flag):
    optim = pytest.importorskip("torch.optim")

    def make(parameters, decay):
        kind = getattr(optim, name)
        return kind(parameters, 1e-2, weight_decay=decay, decoupled_weight_decay=flag)

    assert is_penalty(make) == (not flag)
    optimizer = make([parameter()], 0.1)
    assert training_settings(optimizer).decoupled == flag
    arguments = {"class_path": f"torch.optim.{name}", "init_args": {"decoupled_weight_decay": flag}}
    assert training_settings({"optimizer": arguments}).decoupled == flag


def parameter():
    torch = pytest.importorskip("torch")
    return torch.nn.Parameter(torch.zeros(2))


@pytest.mark.parametrize("name", ["AdamW", "Adamax", "Adagrad", "Adafactor", "SGD", "RMSprop"])
def test_names_of_torch_decide_as_the_steps_do(name):
    optim = pytest.importorskip("torch.optim")
    kind = getattr(optim, name)
    penalty = is_penalty(lambda parameters, decay: kind(parameters, 1e-2, weight_decay=decay))
    optimizer = kind([parameter()], 1e-2)
    assert training_settings(optimizer).decoupled == (not penalty)


def test_optimisers_that_derive_or_wrap_are_seen_through():
    torch = pytest.importorskip("torch")

    class Own(torch.optim.AdamW):
        pass

    class Lion(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "weight_decay": 0.2})

    class Wrapper:  # as of Lightning and accelerate
        def __init__(self, optimizer):
            self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    class FusedAdam(torch.optim.Optimizer):  # Apex and DeepSpeed keep their mode beside the groups
        def __init__(self, parameters, adam_w_mode):
            super().__init__(parameters, {"lr": 0.1, "weight_decay": 0.2})
            self.adam_w_mode = int(adam_w_mode)

    parameters = [torch.nn.Parameter(torch.zeros(2))]
    assert training_settings(Own(parameters)).decoupled
    assert training_settings(Wrapper(Lion(parameters))) == TrainingSettings(0.2, None, True)
    assert not training_settings(Wrapper(torch.optim.SGD(parameters))).decoupled
    for mode in (True, False):
        assert training_settings(FusedAdam(parameters, mode)).decoupled == mode


#: Of transformers, timm, DeepSpeed, Apex and bitsandbytes, as their sources have them.
DECOUPLED = """
adamw_torch adamw_torch_fused adamw_torch_xla adamw_torch_npu_fused adamw_anyprecision
adamw_torch_4bit adamw_torch_8bit adafactor ademamix adamw_bnb_8bit adamw_8bit ademamix_8bit
lion_8bit lion_32bit paged_adamw_32bit paged_lion_8bit paged_ademamix_8bit galore_adamw_8bit
galore_adafactor_layerwise adalomo grokadamw schedule_free_radam schedule_free_adamw
apollo_adamw stable_adamw sgdw sgdp adamwlegacy adamp nadamw radamw adafactorbv adoptw lamb
lambc lambw lambcw adamc nadamc sgdc adoptc lambcd kronc lionc lapropc rmsproptfc adafactorbvc
cadamc csgdc clionc cadafactor cadamw cadan cadanw clamb claprop clion cmars cnadamw csgdw
cadamp adabelief radabelief adan adanw adahessian kronw laprop lion madgradw mars muon nmuon
adamuon nadamuon novograd fusedadamw fusedlamb fusednovograd bnbadam bnbadam8bit bnbadamw8bit
bnblion bnblion8bit bnbademamix nesterovw lookahead_adamw DeepSpeedCPUAdam DeepSpeedCPULion
FusedAdam FusedLion FusedLamb OneBitAdam OnebitAdam ZeroOneAdam OneBitLamb MuAdamW
bitsandbytes.optim.Adam bitsandbytes.optim.Adam8bit PagedAdam32bit timm.optim.NAdamW
"""
PENALTIES = """
sgd momentum nesterov adam nadam nadamlegacy radam radamlegacy adamax adopt lars larc nlars
adadelta adagrad madgrad rmsprop rmsproptf fusedsgd fusedadam bnbsgd bnbsgd8bit lomo
rmsprop_bnb_8bit schedule_free_sgd Adam torch.optim.Adam sgd_with_momentum adam_warmup MuAdam
torchao.optim.Adam8bit stallion million
"""


def test_names_of_libraries():
    def decoupled(name):
        return training_settings({"optimizer": {"type": name, "weight_decay": 0.1}}).decoupled

    assert [name for name in DECOUPLED.split() if not decoupled(name)] == []
    assert [name for name in PENALTIES.split() if decoupled(name)] == []


@pytest.mark.parametrize(
    ("config", "decoupled"),
    [
        # DeepSpeed's Adam is AdamW, unless it is told otherwise.
        ({"optimizer": {"type": "Adam"}, "zero_optimization": {"stage": 1}}, True),
        (
            {
                "optimizer": {"type": "Adam", "params": {"adam_w_mode": False}},
                "train_micro_batch_size_per_gpu": 2,
            },
            False,
        ),
        ({"optimizer": {"type": "Adam"}}, False),
        ({"optim": {"name": "FusedAdam", "adam_w_mode": False}}, False),
        ({"optim": {"name": "FusedAdam"}}, True),
        ({"opt": "adabelief", "weight_decouple": False}, False),
        ({"optimizer": {"value": "adamw"}}, True),  # Weights & Biases
        ({"decoupled_weight_decay": {"value": True}}, True),
        ({"opt": "adopt", "opt_kwargs": {"decoupled": True}}, True),
        ({"model": {"head": {"decoupled": True}}, "opt": "sgd"}, False),
    ],
)
def test_flags_beside_a_name(config, decoupled):
    assert training_settings(config).decoupled == decoupled


# -- devices ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"trainer": {"init_args": {"devices": 4, "num_nodes": 2}}, "batch_size": 8}, 64),
        ({"trainer": {"devices": {"value": 2}}, "batch_size": {"value": 8}}, 16),
        ({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 8, "world_size": 3}, 96),
        ({"per_device_train_batch_size": 4, "world_size": 1, "n_gpu": 2}, 8),
        ({"per_device_train_batch_size": 4, "world_size": 1, "n_gpu": 0}, 4),
        ({"per_gpu_train_batch_size": 4, "num_processes": 2}, 8),
        ({"samples_per_gpu": 32, "world_size": 8}, 256),
        ({"micro_batch_size": 2, "global_batch_size": 64, "trainer": {"devices": 8}}, 64),
        # DeepSpeed: the batch of a step, and what it consists of.
        (
            {
                "train_batch_size": 64,
                "train_micro_batch_size_per_gpu": 2,
                "gradient_accumulation_steps": 4,
            },
            64,
        ),
        (
            {
                "train_batch_size": "auto",
                "train_micro_batch_size_per_gpu": 2,
                "gradient_accumulation_steps": 4,
                "world_size": 2,
            },
            16,
        ),
        ({"batch_size": 8, "world_size": 1}, 8),
        ({"batch_size": 8, "eval_accumulation_steps": 3}, 8),
    ],
)
def test_devices_nodes_and_accumulation_enter_the_batch(config, size):
    assert training_settings(config).batch_size == size


@pytest.mark.parametrize(
    "config",
    [
        {"trainer": {"devices": "auto", "accumulate_grad_batches": 2}, "batch_size": 8},
        {"trainer": {"devices": -1, "accumulate_grad_batches": 2}, "batch_size": 8},
        {"trainer": {"max_epochs": 3, "accumulate_grad_batches": 2}, "batch_size": 8},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        {"train_micro_batch_size_per_gpu": 16, "zero_optimization": {}},
    ],
)
def test_unknown_devices_are_told(config):
    with pytest.warns(RuntimeWarning, match="on how many devices .* size, 16, is that of one"):
        assert training_settings(config).batch_size == 16


def test_a_batch_of_one_device_or_of_all_is_refused():
    with pytest.raises(ValueError, match="batch_size 8 and world_size 4: is the batch that of one"):
        training_settings({"batch_size": 8, "world_size": 4})


def test_training_arguments_know_their_processes(tmp_path):
    transformers = pytest.importorskip("transformers")

    class InTwo(transformers.TrainingArguments):
        @property
        def world_size(self):
            return 2

    given = InTwo(str(tmp_path), per_device_train_batch_size=4, gradient_accumulation_steps=8)
    assert training_settings(given).batch_size == 64


@pytest.mark.parametrize(
    ("config", "share"),
    [
        ({"label_smoothing_factor": 0.1}, 0.1),  # Hugging Face
        ({"smoothing": 0.1, "mixup": 0.0, "mixup_prob": 1.0}, 0.1),  # timm
        ({"label-smoothing": 0.2}, 0.2),  # torchvision's references
        ({"model": {"init_args": {"label_smoothing": 0.05}}}, 0.05),
        ({"model": {"head": {"loss": {"type": "L", "label_smooth_val": 0.1}}}}, 0.1),
        ({"criterion": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1}}, 0.1),
        ({"MODEL": {"LABEL_SMOOTHING": {"value": 0.1}}}, 0.1),
        ({"val": {"smoothing": 0.3}, "smoothing": 0}, 0.0),
        ({"ema_smoothing": 0.9, "smooth_curve": True}, 0.0),
    ],
)
def test_label_smoothing_is_read_by_its_names(config, share):
    assert training_settings(config).label_smoothing == share


@pytest.mark.parametrize(("mode", "share"), [("original", 0.1), ("classy_vision", 0.1 / 1.1)])
def test_modes_of_mmpretrain_mean_other_shares(mode, share):
    """As its source computes them; sigmoids are no smoothed softmax."""
    loss = {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "mode": mode}
    config = {"model": {"head": {"loss": loss}}}
    assert training_settings(config).label_smoothing == pytest.approx(share)
    loss["mode"] = "multi_label"
    with pytest.raises(ValueError, match=r"loss\.mode 'multi_label', which is no label smoothing"):
        training_settings(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"smoothing": 1.0},
            "smoothing 1.0, need a number from 0 to below 1; give label_smoothing",
        ),
        ({"label_smoothing": "0.1"}, "'0.1', need a number from 0"),
        ({"smooth_eps": 0.1}, "smooth_eps 0.1, which may be label smoothing; give label_smoothing"),
        ({"a": {"smoothing": 0.1}, "label_smoothing": 0.2}, "several label smoothings, "),
    ],
)
def test_unclear_label_smoothing_is_refused(config, message):
    with pytest.raises(ValueError, match=f"config: dict has .*{message}"):
        training_settings(config)


@pytest.mark.parametrize("name", ["mixup", "cutmix_alpha", "mixup-alpha"])
def test_mixed_samples_are_warned_of(name):
    with pytest.warns(RuntimeWarning, match="samples are mixed, which no problem here has"):
        training_settings({name: 0.8})
