"""One page with everything on it: an HTML file that needs no other, or Markdown and its pictures.

Whatever is given is text: nothing of it is read as HTML or Markdown.
"""

import base64
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean over seeds with its standard deviation, None of a single run."""

    mean: float
    deviation: float | None


Cell = str | int | float | Measured | None


@dataclass(frozen=True, slots=True)
class Text:
    """Prose; an empty line starts a new paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: its header, with the unit if there is one.
        best: which of its values is set in bold, None for none.
        digits: after the decimal point.
    """

    name: str
    best: Literal["highest", "lowest"] | None = None
    digits: int = 3


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under a header.

    Attributes:
        caption: one line on what it shows.
        columns: the header.
        rows: a value a column; None is written as a dash.
        references: rows set apart below that do not compete for the best value, such as a teacher.

    Raises:
        TrainingError: if a row has another number of values than there are columns.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    references: Sequence[Sequence[Cell]] = ()

    def __post_init__(self) -> None:
        for row in (*self.rows, *self.references):
            if len(row) != len(self.columns):
                raise TrainingError(
                    f"table {self.caption!r}: expected {len(self.columns)} values a row, "
                    f"got {len(row)}"
                )


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture under its caption.

    Attributes:
        name: of its file beside a Markdown page, without suffix: a-z, 0-9 and hyphens.
        data: the bytes of an SVG or a PNG file.
        caption: what it shows, which also stands for it where it cannot be seen.

    Raises:
        TrainingError: if the name or the data is something else.
    """

    name: str
    data: bytes
    caption: str

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9-]+", self.name):
            raise TrainingError(f"picture {self.name!r}: expected a name of a-z, 0-9 and hyphens")
        if self.suffix is None:
            raise TrainingError(f"picture {self.name}: expected an SVG or a PNG file")

    @property
    def suffix(self) -> Literal["svg", "png"] | None:
        """What kind of file it is."""
        if self.data.startswith(b"\x89PNG\r\n\x1a\n"):
            return "png"
        return "svg" if b"<svg" in self.data[:1000] else None


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it."""

    heading: str
    parts: Sequence[Text | Table | Picture]


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole report as one HTML file; no part of it is loaded from anywhere."""
    contents = "\n".join(
        f'<li><a href="#s{i}">{_text(s.heading)}</a></li>' for i, s in enumerate(sections)
    )
    body = "\n".join(_section(i, section) for i, section in enumerate(sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{_text(title)}</h1>
<nav aria-label="Contents"><ul>
{contents}
</ul></nav>
{body}
</main>
</body>
</html>
"""


def markdown(title: str, sections: Sequence[Section]) -> tuple[str, dict[str, bytes]]:
    """The report as Markdown, with the files of its pictures by name.

    Raises:
        TrainingError: if two pictures have the same name.
    """
    blocks = [f"# {_mark(title)}"]
    files: dict[str, bytes] = {}
    for section in sections:
        blocks.append(f"## {_mark(section.heading)}")
        for part in section.parts:
            if isinstance(part, Text):
                blocks += [_mark(p) for p in _paragraphs(part.text)]
            elif isinstance(part, Table):
                blocks += [_mark(part.caption), _mark_table(part)]
            else:
                name = f"{part.name}.{part.suffix}"
                if name in files:
                    raise TrainingError(f"picture {name}: expected a name of its own")
                files[name] = part.data
                blocks.append(f"![{_mark(part.caption)}]({name})")
                blocks.append(_mark(part.caption))
    return "\n\n".join(blocks) + "\n", files


def _section(place: int, section: Section) -> str:
    parts = "\n".join(_part(part) for part in section.parts)
    return f'<section id="s{place}">\n<h2>{_text(section.heading)}</h2>\n{parts}\n</section>'


def _part(part: Text | Table | Picture) -> str:
    if isinstance(part, Text):
        return "\n".join(f"<p>{_text(p)}</p>" for p in _paragraphs(part.text))
    if isinstance(part, Table):
        return _table(part)
    kind = {"svg": "image/svg+xml", "png": "image/png", None: ""}[part.suffix]
    data = base64.b64encode(part.data).decode("ascii")
    caption = _text(part.caption)
    return (
        f'<figure>\n<img src="data:{kind};base64,{data}" alt="{caption}">\n'
        f"<figcaption>{caption}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    numeric = [_is_numeric(table, i) for i in range(len(table.columns))]
    head = "".join(
        f'<th scope="col"{_NUMBER if n else ""}>{_text(c.name)}</th>'
        for c, n in zip(table.columns, numeric, strict=True)
    )

    def line(row: Sequence[tuple[str, bool]]) -> str:
        cells = (
            f"<td{_NUMBER if n else ''}>{f'<b>{_text(t)}</b>' if best else _text(t)}</td>"
            for (t, best), n in zip(row, numeric, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    rows, references = _written(table)
    bodies = "".join(
        "<tbody>\n" + "\n".join(map(line, part)) + "\n</tbody>\n"
        for part in (rows, references)
        if part
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(table.caption)}">\n'
        f"<table>\n<caption>{_text(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"{bodies}</table>\n</div>"
    )


def _mark_table(table: Table) -> str:
    rows, references = _written(table)
    lines = [
        [_mark(c.name) for c in table.columns],
        ["--:" if _is_numeric(table, i) else ":--" for i in range(len(table.columns))],
        *([f"**{_mark(t)}**" if best else _mark(t) for t, best in row] for row in rows),
        *([_mark(t) for t, _ in row] for row in references),
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _written(table: Table) -> tuple[list[list[tuple[str, bool]]], list[list[tuple[str, bool]]]]:
    """Rows and references as text, each cell with whether it is the best of its column.

    All that look like the best are: digits that are not shown decide nothing.
    """
    best = [_best(table, i) for i in range(len(table.columns))]
    rows = [
        [
            (_cell(cell, column), b is not None and _shown(cell, column) == b)
            for cell, column, b in zip(row, table.columns, best, strict=True)
        ]
        for row in table.rows
    ]
    references = [
        [(_cell(cell, column), False) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.references
    ]
    return rows, references


def _best(table: Table, place: int) -> str | None:
    column = table.columns[place]
    values = [v for row in table.rows if (v := _value(row[place])) is not None]
    if column.best is None or not values:
        return None
    return f"{max(values) if column.best == 'highest' else min(values):.{column.digits}f}"


def _shown(cell: Cell, column: Column) -> str | None:
    value = _value(cell)
    return None if value is None else f"{value:.{column.digits}f}"


def _value(cell: Cell) -> float | None:
    value = cell.mean if isinstance(cell, Measured) else cell
    return None if value is None or isinstance(value, str) or math.isnan(value) else value


def _is_numeric(table: Table, place: int) -> bool:
    cells = [row[place] for row in (*table.rows, *table.references)]
    return any(c is not None for c in cells) and not any(isinstance(c, str) for c in cells)


def _cell(cell: Cell, column: Column) -> str:
    if isinstance(cell, str):
        return cell
    if _value(cell) is None:
        return "–"
    if isinstance(cell, int):
        return str(cell)
    text = str(_shown(cell, column))
    if isinstance(cell, Measured) and cell.deviation is not None:
        text += f" ± {cell.deviation:.{column.digits}f}"
    return text


def _paragraphs(text: str) -> list[str]:
    return [" ".join(p.split()) for p in re.split(r"\n\s*\n", text) if p.strip()]


def _text(text: str) -> str:
    return html.escape(" ".join(text.split()))


def _mark(text: str) -> str:
    """Text on one line in which Markdown sees nothing but text."""
    line = re.sub(r"([\\`*_{}\[\]<>#|~$!])", r"\\\1", " ".join(text.split()))
    line = line.replace("&", "&amp;")
    # At its start a line could be an item of a list.
    return re.sub(r"^([-+]|\d+(?=[.)]))(?=[.)]?(?: |$))", _escape_item, line)


def _escape_item(match: re.Match[str]) -> str:
    return f"\\{match[1]}" if match[1] in "-+" else f"{match[1]}\\"


_NUMBER = ' class="n"'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --dim: #57606a; --line: #d0d7de;
  --paper: #ffffff; --shade: #f6f8fa; --link: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9da7b3; --line: #3d444d;
  --paper: #0d1117; --shade: #161b22; --link: #6cb6ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .75rem; padding-top: .5rem;
  border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .75rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0; padding: 0;
  list-style: none; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--dim); padding-bottom: .4rem; }
th, td { padding: .3rem .75rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--shade); border-bottom-width: 2px; }
tbody + tbody td { color: var(--dim); }
tbody + tbody tr:first-child td { border-top: 2px solid var(--line); }
.n { text-align: right; }
figure { margin: 1.25rem 0; }
img { display: block; max-width: 100%; height: auto; background: #ffffff; border-radius: 6px;
  padding: .5rem; }
figcaption { color: var(--dim); font-size: .9rem; margin-top: .4rem; max-width: 46rem; }
@media print {
  :root { color-scheme: light; --ink: #000000; --dim: #444444; --line: #bbbbbb;
    --paper: #ffffff; --shade: #ffffff; --link: #000000; }
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  nav { display: none; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  th, td { padding: .15rem .4rem; white-space: normal; }
  thead { display: table-header-group; }
  img { max-height: 22cm; padding: 0; }
  tr, figure { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
