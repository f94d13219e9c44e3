"""Configuration files: YAML 1.2's own examples, and what must be one line instead of a value."""

import math

import pytest

from tightframe.problem.config_files import read_config

yaml_core = pytest.importorskip("tightframe.problem.yaml_core")


def read(tmp_path, text, name="c.yaml"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return read_config(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Section 10.3.2 of the specification.
        *((text, None) for text in ("null", "Null", "NULL", "~", "")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        ("0", 0),
        ("-19", -19),
        ("0o7", 7),
        ("0x3A", 58),
        ("0.", 0.0),
        ("-0.0", -0.0),
        (".5", 0.5),
        ("+12e03", 12000.0),
        ("-2E+05", -200000.0),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("+.INF", math.inf),
        # Numbers to version 1.2 that PyYAML takes for text, and the other way round.
        ("5e-4", 5e-4),
        ("1e3", 1000.0),
        ("0o17", 15),
        ("0100", 100),
        *(
            (text, text)
            for text in ("yes", "No", "on", "OFF", "y", "1:30", "190:20:30", "1_000", "0b11")
        ),
        *((text, text) for text in ("2001-12-14", "0x", "+0x1", ".", "e5", "=", "1e", "+", "-")),
        ('"5e-4"', "5e-4"),
        ("!!str 12", "12"),
        ("!!float 12", 12.0),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(tmp_path, text, value):
    if text == "-":
        text = value = "-x"  # alone it begins a list
    found = read(tmp_path, f"a: {text}\n")["a"]
    assert type(found) is type(value)
    assert found == value


def test_nan_is_read(tmp_path):
    assert math.isnan(read(tmp_path, "a: .NaN\n")["a"])


def test_aliases_and_merges(tmp_path):
    text = "a: &a {x: 1, y: 2}\nb: &b {x: 3, z: 4}\nc: {<<: [*a, *b], y: 5}\nd: *a\n"
    found = read(tmp_path, text)
    assert found["c"] == {"x": 1, "y": 5, "z": 4}
    assert found["d"] == {"x": 1, "y": 2}


BOMB = "a: &a [x]\n" + "".join(
    f"{c}: &{c} [{','.join(['*' + b] * 9)}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = BOMB.replace("[x]", "{k: 1}").replace(" [*", " {<<: [*").replace("]\n", "]}\n")


def test_aliases_and_merges_are_not_copied(tmp_path):
    """Nine to the eighth copies would not fit into memory."""
    found = read(tmp_path, BOMB)
    assert found["i"][0] is found["i"][8] is found["h"]
    assert read(tmp_path, MERGES)["i"] == {"k": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1: "),
        ("a: 1\nb:\n  c: 2\n  d: 3\n  c: 2\n", "line 5: the key 'c' is given twice, .*line 3"),
        ("a: {<<: {x: 1}, <<: {x: 2}}", "line 1: the key '<<' is given twice"),
        ("&a [*a]", "line 1: .*recursive"),
        ("x: &a {y: [1, *a]}", "line 1: .*recursive"),
        ("x: &a\n  <<: *a\n", "line [12]: .*recursive"),
        ("x: *a", "undefined alias"),
        ("<<: 3", "line 1: << of what is no mapping"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("? [1]\n: 2\n", "line 1: a key is no plain value"),
        ("a: " + "9" * 5000, "line 1: a number of 5000 digits"),
        ("a: " + "[" * 101 + "]" * 101, "line 1: nested more than 100 deep"),
        ("a: " + "[" * 100_000, "nested more than 100 deep"),
        ("a: [" + "1," * 20_000 + "]", "more than 20000 values"),
        ("\n\na: !!timestamp x", "line 3: the tag !!timestamp is not read"),
        ("a: !!python/tuple [1, 2]", "the tag !!python/tuple is not read"),
        ("a: !!python/object/apply:os.system ['true']", "is not read"),
        ("a: !mine x", "the tag !mine is not read"),
        ("a: !!set {x}", "the tag !!set is not read"),
        ("a: !!bool x", "line 1: 'x' is no !!bool"),
        ("a: !!int 0b11", "'0b11' is no !!int"),
        ("a: !!float .", "'.' is no !!float"),
        ("a: !!null x", "'x' is no !!null"),
        ("a: !!str [x]", "!!str of what is no plain value"),
        ("a: !!map x", "!!map of what is no mapping"),
        ("a: !!seq {x: 1}", "!!seq of what is no list"),
        ("a: \x01", "special characters are not allowed"),
        ("a:\n\t- b\n", "line 2: "),
    ],
)
def test_what_is_not_yaml_is_one_line_with_the_file(tmp_path, text, message):
    expected = rf"^config: .*c\.yaml is neither JSON nor YAML as it is read here \(.*{message}.*\)$"
    with pytest.raises(ValueError, match=expected) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": 1,\n"c": 2,\n"b": 3}}', 'gives the key "b" twice .* on the lines 1, 3'),
        ('{"a": NaN}', "has NaN, which JSON does not know"),
        ('{"a": [-Infinity]}', "has -Infinity, which JSON"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "has a number of 5000 digits"),
        ("[1, 2]", "holds list, need names and values"),
        ("", "holds NoneType"),
        ("Namespace(lr=0.1, weight_decay=0.0005)", "holds str"),
    ],
)
@pytest.mark.parametrize("name", ["c.json", "c.yaml"])
def test_what_is_not_json_is_one_line_with_the_file(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=rf"^config: .*{name} .*{message}") as caught:
        read(tmp_path, text, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a = 1\na = 2\n", "a = " + "9" * 5000, "a = [", "[a]\n[a]\n", "a: 1\n"]
)
def test_what_is_not_toml_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"^config: .*c\.toml is no TOML"):
        read(tmp_path, text, "c.toml")
    with pytest.raises(ValueError, match="nested too deeply"):
        read(tmp_path, "a = " + "[" * 10**5, "c.toml")


def test_other_files_are_read(tmp_path):
    assert read(tmp_path, "[o]\nwd = 5e-4\n", "c.toml") == {"o": {"wd": 5e-4}}
    assert read(tmp_path, '\ufeff{"a":\t5e-4}', "c.json") == {"a": 5e-4}


def test_files_that_are_no_configuration_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no file"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="is no file"):
        read_config(tmp_path)
    (tmp_path / "large.yaml").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than a configuration"):
        read_config(tmp_path / "large.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ValueError, match=r"latin\.yaml is no UTF-8 text"):
        read_config(tmp_path / "latin.yaml")
