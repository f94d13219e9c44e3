import pytest

from tightframe.problem.tokens import next_tokens
from tightframe.runs.config import RunConfig
from tightframe.runs.text_config import TextConfig, configuration


def test_stored_and_made_again():
    config = TextConfig(
        data="text:novel.md", tokens="words", context=1, settings=[[0.1, 0.2], (0.3, 0.4)],
        bias="decayed", bias_decay=0.5, hidden=[8, 4], schedule="milestones", milestones=[3],
        data_root="/data",
    )  # fmt: skip
    assert TextConfig.from_dict(config.to_dict()) == config
    assert "data_root" not in config.identity()
    assert config.setting_names == ("w0.1-h0.2", "w0.3-h0.4")
    assert config == config.replace(data_root=None)
    assert config != config.replace(context=2)


def test_decays_by_default_follow_whose_features_decay():
    assert TextConfig().settings == ((3e-3, 3e-7),)
    assert TextConfig(feature_weights="contexts").settings == ((3e-2, 3e-5),)


def test_problems_are_those_of_the_text():
    found = next_tokens("abcabdabc", 1)
    config = TextConfig(
        settings=[(0.1, 0.2), (0.3, 0.4)], bias="free", feature_weights="contexts", feature_dim=9
    )
    first, second = config.problems_of(found)
    assert first.counts.tolist() == [3, 3, 1, 1]
    assert first.targets.by_context.toarray()[1].tolist() == [0, 0, 2 / 3, 1 / 3]
    assert first.class_names == ("a", "b", "c", "d")
    assert (first.bias, first.dim, first.feature_weights.tolist()) == ("free", 9, [1] * 4)
    assert second == first.replace(weight_decay=0.3, feature_decay=0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "digits"}, "data: got 'digits', need 'text'"),
        ({"tokens": "lines"}, "tokens: got 'lines', allowed are letters, characters, words"),
        ({"context": 0}, "context: got 0"),
        ({"context": 33}, "context: got 33, need at most 32"),
        ({"min_count": 1.5}, "min_count: got 1.5"),
        ({"settings": []}, r"settings: got \[\], need at least one pair"),
        ({"settings": [(0.1,)]}, r"settings: got \(0.1,\), need a pair"),
        ({"settings": [(0.1, 0.2)] * 2}, "settings: w0.1-h0.2 is given twice"),
        ({"settings": [(-1, 0.2)]}, "weight_decay: got -1"),
        ({"settings": [((0.1, 0.2), 0.2)]}, "weight_decay: got 2 numbers for depth 1"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"feature_weights": "2,3"}, "feature_weights: got '2,3', allowed are samples, contexts"),
        ({"embedding_dim": 0}, "embedding_dim: got 0"),
        ({"hidden": 7}, "hidden: got 7, need a sequence"),
        ({"feature_dim": 0}, "feature_dim: got 0"),
        ({"lr": 0}, "lr: got 0"),
        ({"optimizer": "adamw"}, "optimizer: got 'adamw'"),
        ({"milestones": [3]}, r"milestones: got \[3\], but the schedule is 'cosine'"),
        ({"epochs": 2, "schedule": "milestones", "milestones": [2]}, "milestones: got 2, need"),
        ({"seed": -1}, "seed: got -1"),
        ({"device": "tpu"}, "device: got 'tpu'"),
        ({"max_seconds": 0}, "max_seconds: got 0"),
        ({"counts": "1,2"}, "counts: not for text, whose runs have data, tokens, context"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TextConfig.from_dict(changes)


def test_which_configuration_arguments_are_of():
    assert configuration({}) == RunConfig()
    assert configuration({"data": "novel.txt", "epochs": 3}).epochs == 3
    assert configuration(TextConfig().to_dict()) == TextConfig()
    assert configuration(RunConfig().to_dict()) == RunConfig()
    with pytest.raises(ValueError, match="min_count: for text only, and data is 'mnist'"):
        configuration({"data": "mnist", "min_count": 3})
    with pytest.raises(ValueError, match=r"data: got 'txt', allowed are digits, .* for text"):
        configuration({"data": "txt"})
    with pytest.raises(ValueError, match="data: got 'text', which is text without classes"):
        RunConfig(data="text")
