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
