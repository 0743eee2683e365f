"""YAML read strictly, and merges that mean the same with every PyYAML."""

import pytest
import yaml

from models.yaml_text import RefusedError, parse

NO_VALUE = "looks like a number, a date or a tag but is none; put text in quotes"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("", None),
        ("[1, a, null]", [1, "a", None]),
        ("a: {<<: {k: 0, l: 1}, k: 2}", {"a": {"l": 1, "k": 2}}),
        ("a: {k: 2, <<: {k: 0, l: 1}}", {"a": {"l": 1, "k": 2}}),
        # Of several, the one named first.
        ("<<: [{k: 0}, {k: 1, l: 1}, {l: 2, m: 2}]", {"k": 0, "l": 1, "m": 2}),
        # PyYAML writes what it merges into the very node, which then has k twice; merged again,
        # 6.0.4 takes the wrong one.
        (
            "a: &a {k: 0}\nx: [[[&b {<<: *a, k: 1}]]]\nc: {<<: *b}\n",
            {"a": {"k": 0}, "x": [[[{"k": 1}]]], "c": {"k": 1}},
        ),
        (
            "a: &a {k: 0, l: 0}\nb: &b {<<: *a, k: 1}\nc: &c {<<: *b, l: 2}\nd: {<<: [*c, *a]}\n",
            {
                "a": {"k": 0, "l": 0},
                "b": {"k": 1, "l": 0},
                "c": {"k": 1, "l": 2},
                "d": {"k": 1, "l": 2},
            },
        ),
        ("- &a {k: 0}\n- {<<: *a}\n- {<<: *a, k: 1}", [{"k": 0}, {"k": 0}, {"k": 1}]),
        ("'<<': {k: 0}", {"<<": {"k": 0}}),
    ],
)
def test_a_text_and_what_it_means(text: str, means: object) -> None:
    assert parse(text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given twice"),
        ("16: a\n0x10: b", "line 2, column 1: the key '0x10' is given twice"),
        ("<<: {k: 0}\n<<: {l: 0}", "line 2, column 1: the key '<<' is given twice"),
        ("k:\n  <<: 3", "line 2, column 7: << merges a mapping or a list of them"),
        ("<<: [{k: 0}, 3]", "line 1, column 5: << merges a mapping or a list of them"),
        ("? [1]\n: 2", "line 1, column 3: a list or a mapping cannot be a key"),
        ("a: !!map b", "line 1, column 4: is no mapping"),
        ("[x, 2024-13-45]", f"line 1, column 5: {NO_VALUE}"),
    ],
)
def test_what_is_yaml_and_refused(text: str, says: str) -> None:
    with pytest.raises(RefusedError) as error:
        parse(text)
    assert str(error.value) == says


@pytest.mark.parametrize(
    "text", ["a: [", "a: &a {b: *a}", "a: *b", "[" * 5000, r'"\UFFFFFFFF"', "!!python/none x"]
)
def test_what_is_no_document_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse(text)
