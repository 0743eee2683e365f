"""The report: nothing is read as markup, nothing is loaded, pictures say what they should."""

import base64
import io
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.image import imread

from training.errors import TrainingError
from training.report import figures
from training.report.comparison import comparison
from training.report.figures import Heat
from training.report.page import (
    Column,
    Measured,
    Picture,
    Section,
    Table,
    Text,
    markdown,
    page,
)
from training.tables import steps

EVIL = "</td><script>alert('1')</script> & \"q\" [a](b) *x* _y_ `z` | # ~ $"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>'
VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """A page taken apart: balanced tags, attributes, text, and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        self.bold: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open or not data.strip():
            return
        self.text.append(data)
        if "td" in self.open:
            self.cells.append(data)
            if self.open[-1] == "b":
                self.bold.append(data)


def table(**given: object) -> Table:
    fields = {
        "caption": "Macro F1",
        "columns": (Column("method"), Column("loss", "lowest", 2), Column("F1", "highest")),
        "rows": (
            ("KD", 0.25, Measured(0.4383, 0.007)),
            ("MVKT", 0.201, Measured(0.4376, 0.0064)),
            ("LiteHeart", 0.204, None),
        ),
        "references": (("teacher", 0.1, Measured(0.6, None)),),
    }
    return Table(**{**fields, **given})


def test_whatever_is_given_is_text() -> None:
    sections = [
        Section(
            EVIL,
            [
                Text(EVIL),
                table(caption=EVIL, columns=(Column(EVIL),), rows=((EVIL,),), references=()),
                Picture("one", SVG, EVIL),
            ],
        )
    ]
    seen = Page(page(EVIL, sections))
    # Title twice, heading in the contents and in its place, prose, caption, column, cell, picture.
    assert sum(text == EVIL for text in seen.text) == 9
    assert ("img", "alt", EVIL) in seen.attributes
    assert not any(key.startswith("on") for _, key, _ in seen.attributes)


def test_nothing_is_loaded() -> None:
    picture = Picture("strips", b"\x89PNG\r\n\x1a\n123", "Strips")
    text = page("Run", [Section("A", [picture, table()]), Section("B", [Text("b")])])
    seen = Page(text)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    sources = [value for _, key, value in seen.attributes if key in {"src", "href", "srcset"}]
    assert sorted(s[:5] for s in sources) == ["#s0", "#s1", "data:"]
    (data,) = (s for s in sources if s.startswith("data:image/png;base64,"))
    assert base64.b64decode(data.partition(",")[2]) == picture.data
    assert {("section", "id", "s0"), ("section", "id", "s1")} <= set(seen.attributes)


def test_best_values_are_bold_and_references_do_not_compete() -> None:
    seen = Page(page("Run", [Section("A", [table()])]))
    # 0.201 and 0.204 look the same at two digits; the teacher is better in both columns.
    assert seen.bold == ["0.438 ± 0.007", "0.20", "0.438 ± 0.006", "0.20"]
    assert seen.cells == [
        *("KD", "0.25", "0.438 ± 0.007"),
        *("MVKT", "0.20", "0.438 ± 0.006"),
        *("LiteHeart", "0.20", "–"),
        *("teacher", "0.10", "0.600"),
    ]


def test_whole_numbers_and_what_is_missing() -> None:
    columns = (Column("records", "highest"), Column("AUC", "highest"))
    seen = Page(
        page(
            "Run",
            [
                Section(
                    "A",
                    [
                        table(
                            columns=columns,
                            rows=((2178, float("nan")), (300, None)),
                            references=(),
                        )
                    ],
                )
            ],
        )
    )
    assert seen.cells == ["2178", "–", "300", "–"]
    assert seen.bold == ["2178"]


def test_markdown_is_the_same_with_files_beside_it() -> None:
    png = b"\x89PNG\r\n\x1a\n123"
    text, files = markdown(
        "Run 1",
        [
            Section("A", [Text("One\nline.\n\n1. no list\n\n- none *either*"), table()]),
            Section("B", [Picture("strips", png, "Strips"), Picture("loss", SVG, "Loss")]),
        ],
    )
    assert files == {"strips.png": png, "loss.svg": SVG}
    assert text.split("\n\n") == [
        "# Run 1",
        "## A",
        "One line.",
        "1\\. no list",
        "\\- none \\*either\\*",
        "Macro F1",
        "\n".join(
            (
                "| method | loss | F1 |",
                "| :-- | --: | --: |",
                "| KD | 0.25 | **0.438 ± 0.007** |",
                "| MVKT | **0.20** | **0.438 ± 0.006** |",
                "| LiteHeart | **0.20** | – |",
                "| teacher | 0.10 | 0.600 |",
            )
        ),
        "## B",
        "![Strips](strips.png)",
        "Strips",
        "![Loss](loss.svg)",
        "Loss\n",
    ]


def test_markdown_escapes_what_it_would_read() -> None:
    text, _ = markdown(EVIL, [Section("A", [table(rows=((EVIL, 1, 2),), references=())])])
    title, *_, row = text.rstrip().split("\n")
    assert "<" not in title.replace("\\<", "")
    assert "`" not in title.replace("\\`", "")
    assert row.replace("\\|", "").count("|") == 4, "the row keeps its three cells"


def test_what_does_not_fit_is_said_in_a_line() -> None:
    with pytest.raises(TrainingError, match="table 'Macro F1': expected 3 values a row, got 2"):
        table(rows=(("KD", 1),))
    with pytest.raises(TrainingError, match=r"picture 'a/b': expected a name"):
        Picture("a/b", SVG, "")
    with pytest.raises(TrainingError, match="picture a: expected an SVG or a PNG file"):
        Picture("a", b"GIF89a", "")
    twice = Section("A", [Picture("a", SVG, "one"), Picture("a", SVG, "two")])
    with pytest.raises(TrainingError, match=r"picture a\.svg: expected a name of its own"):
        markdown("Run", [twice])


# -- pictures ------------------------------------------------------------------------------------


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(png)))[..., :3]


def near(image: np.ndarray, colour: str) -> int:
    """How many pixels have a colour, within what blending at edges leaves."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=-1) < 0.02).sum())


def marks(svg: bytes, colour: str) -> int:
    """How many markers of an SVG are filled with a colour."""
    root = ET.fromstring(svg)
    return sum(
        f"fill: {colour.lower()}" in use.get("style", "").lower()
        for use in root.iter("{http://www.w3.org/2000/svg}use")
    )


BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def test_class_auc_has_a_dot_for_every_value() -> None:
    nan = float("nan")
    models = {"baseline": [0.7, 0.9, nan, nan], "teacher": [0.8, 0.95, 0.6, nan]}
    svg = figures.class_auc(("A", "B", "C", "D"), models)
    # One more of each in the legend.
    assert (marks(svg, BLUE), marks(svg, ORANGE)) == (2 + 1, 3 + 1)
    assert svg == figures.class_auc(("A", "B", "C", "D"), models), "the same bytes every time"
    with pytest.raises(TrainingError, match="teacher: expected 1 values, got 2"):
        figures.class_auc(("A",), {"baseline": [0.5], "teacher": [0.5, 0.6]})
    with pytest.raises(TrainingError, match="expected 1 to 7 colours, got 8"):
        figures.class_auc(("A",), {str(i): [0.5] for i in range(8)})


def test_tsne_shows_every_group_in_every_panel() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([-1, 0, 1], 12)
    features = rng.normal(size=(36, 5)) + 20 * groups[:, None]
    png = figures.tsne({"teacher": features, "student": features[:, :3]}, groups, ("AF", "N"), 0)
    image = pixels(png)
    half = image.shape[1] // 2
    for side in (image[:, :half], image[:, half:]):
        assert near(side[: int(0.85 * len(image))], BLUE) > 50
        assert near(side[: int(0.85 * len(image))], ORANGE) > 50
    with pytest.raises(TrainingError, match="teacher: expected features of 36 records, got 35"):
        figures.tsne({"teacher": features[1:]}, groups, ("AF", "N"), 0)


def test_strips_show_where_restored_leaves_real() -> None:
    real = np.tile(np.sin(np.arange(1000) / 5), (12, 1))
    leads = [str(i) for i in range(12)]
    same = pixels(figures.strips(real, real, 100.0, leads))
    other = pixels(figures.strips(real, -real, 100.0, leads))
    legend = 60
    assert near(other[legend:], "#222222") > 5 * near(same[legend:], "#222222")
    assert near(other, BLUE) > 10_000
    with pytest.raises(TrainingError, match=r"\[11, time\] twice, got \[12, 1000\]"):
        figures.strips(real, real, 100.0, leads[:11])


def test_heat_lies_behind_its_own_part_of_the_trace() -> None:
    heat = np.zeros(500)
    heat[:250] = 0.01
    strip = Heat("V1", np.sin(np.arange(500) / 9), heat)
    image = pixels(figures.heat_strips([strip, strip], 100.0))
    # Blue is what a warm colour lacks.
    height, width = image.shape[:2]
    left = image[: height // 3, int(0.1 * width) : int(0.4 * width), 2].mean()
    right = image[: height // 3, int(0.55 * width) : int(0.85 * width), 2].mean()
    assert left < right - 0.3
    with pytest.raises(TrainingError, match=r"one length, got \[499, 500\]"):
        figures.heat_strips([Heat("V1", heat, heat[1:])], 100.0)


def test_curves_are_drawings() -> None:
    svg = figures.curves({"training": ([1, 2], [3, 1]), "validation": ([1, 2], [3, 2])}, "x", "y")
    text = svg.decode().lower()
    assert text.count(f"stroke: {BLUE.lower()}") == text.count(f"stroke: {ORANGE.lower()}") == 2
    with pytest.raises(TrainingError, match="training: got 2 x and 1 y"):
        figures.curves({"training": ([1, 2], [3])}, "x", "y")


def test_a_comparison_worked_by_hand(tmp_path: Path) -> None:
    """F1 0.2 and 0.4 by labels alone, 0.1 and then 0.3 more by LiteHeart, teacher 0.3 more."""
    more = {"baseline": (0.0, 0.0), "liteheart": (0.1, 0.3), "teacher (12 leads)": (0.3, 0.3)}
    wanted = steps(1, tmp_path, tmp_path / "cache", [1, 2])
    for step in wanted:
        f1 = 0.2 * step.seed + more.get(step.label, (0.05, 0.05))[step.seed - 1]
        scores = {
            "figures": {"macro_auc": f1 + 0.4, "mean_average_precision": f1, "macro_f1": f1},
            "per_class": [{"name": "AF", "auc": 0.3 + f1}, {"name": "SB", "auc": 0.75}],
        }
        (tmp_path / step.run).mkdir(parents=True)
        (tmp_path / step.run / "scores.json").write_text(json.dumps(scores))
    title, sections = comparison(1, wanted, tmp_path)
    text, pictures = markdown(title, sections)
    assert "| baseline | 30.00 ± 14.14 | 70.00 ± 14.14 | 30.00 ± 14.14 |" in text
    assert "| **50.00 ± 28.28** |" in text
    assert "baseline (30.00 %) and teacher (60.00 %)" in text
    assert "kd: 17 %" in text
    assert "liteheart: 67 %" in text
    # Differences 0.1 and 0.3: mean 0.2, standard error 0.1, t of one degree of freedom 12.706.
    assert "| baseline | +20.00 (-107.06 to +147.06) |" in text
    assert "| AF | 90.0 | 60.0 |" in text
    assert list(pictures) == ["table-1-auc.svg"]


def test_pictures_go_onto_the_page() -> None:
    picture = Picture("loss", figures.curves({"training": ([1, 2], [3, 1])}, "x", "y"), "Loss")
    assert picture.suffix == "svg"
    assert "data:image/svg+xml;base64," in page("Run", [Section("A", [picture])])
