import builtins
from collections import Counter

import pytest

import tightframe as tf
from tightframe.data import read_text, text
from tightframe.data.text import Text, is_text
from tightframe.problem.tokens import shown, shown_context


def test_the_text_that_ships_is_licences_or_topics(monkeypatch, tmp_path):
    monkeypatch.setattr(text, "LICENCES", tmp_path)
    topics = read_text()
    assert "pydoc_data.topics" in topics.source
    assert topics.num_characters > 300_000
    for name in text.LICENCE_NAMES:
        (tmp_path / name).write_text(f"Licence {name}\n")
    licences = read_text("text")
    assert "Debian" in licences.source
    assert licences.parts[3] == "Licence GPL-3\n"
    assert licences.digest != topics.digest
    (tmp_path / "GPL-3").unlink()
    assert read_text().digest == topics.digest


def test_kinds_of_tokens():
    parts = Text("a text", ("It's  the\tthe End,\n2 of_Ünit.", "x"))
    letters, other = parts.tokens("letters")
    assert ("".join(letters), "".join(other)) == ("it s the the end of ünit", "x")
    characters = parts.tokens("characters")[0]
    assert Counter(characters) == Counter(parts.parts[0])
    words = ["it's", "the", "the", "end", ",", "2", "of", "_", "ünit", "."]
    assert parts.tokens("words") == [words, ["x"]]


def test_tokens_make_a_problem():
    problem = tf.Problem.from_tokens(
        Text("", ("ab", "ba", "ab ")).tokens("characters"),
        context=1,
        weight_decay=0.1,
        feature_decay=0.1,
    )
    assert problem.class_names == (" ", "a", "b")
    assert problem.counts.tolist() == [2, 2]  # no context reaches into another text


@pytest.mark.parametrize(
    ("token", "name"),
    [(" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("é", "é"), ("\x07", "U+0007"), ("don't", "don't")],
)
def test_tokens_have_names(token, name):
    assert shown(token) == name


def test_contexts_have_names():
    assert shown_context(["t", " "]) == "t␣"
    assert shown_context(["of", "the"]) == "of the"


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_bytes("\ufeffA café".encode())
    (tmp_path / "plain").write_text("A café", encoding="utf-8")
    for name in (path, str(path), f"text:{path}", f"text:{tmp_path}/plain"):
        assert is_text(name)
        assert read_text(name).parts == ("A café",)
    path.with_name("wide.txt").write_bytes("A café".encode("utf-16"))
    assert read_text("wide.txt", root=tmp_path).parts == ("A café",)
    assert read_text("novel.txt", root=tmp_path).digest == read_text(path).digest


def test_names_of_other_data():
    assert not any(map(is_text, ("digits", "texts", "a.npz", 3, b"text", None)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, ": no such file"), (b"", " is empty"), (b"ab\xff", ": not a text in UTF-8 or UTF-16")],
)
def test_bad_files_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data: .*a\.txt{message}"):
        read_text(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["digits", "text:", None])
def test_bad_names(name):
    with pytest.raises(ValueError, match="data: got"):
        read_text(name)


def test_text_without_tokens():
    with pytest.raises(ValueError, match=r"data: notes\.txt has no letters"):
        Text("notes.txt", ("12 34",)).tokens()
    with pytest.raises(ValueError, match="tokens: got 'lines', allowed are letters"):
        Text("notes.txt", ("12 34",)).tokens("lines")


def test_only_the_topics_are_imported(monkeypatch, tmp_path):
    """Nothing of a text is run, and Debian's licences need no import."""
    asked = []
    real = builtins.__import__

    def noted(name, *rest, **named):
        asked.append(name)
        return real(name, *rest, **named)

    for name in text.LICENCE_NAMES:
        (tmp_path / name).write_text("A licence")
    monkeypatch.setattr(text, "LICENCES", tmp_path)
    monkeypatch.setattr(builtins, "__import__", noted)
    read_text()
    assert "pydoc_data.topics" not in asked
