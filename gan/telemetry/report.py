"""A run's files as pictures and one page: `gan report RUN`.

Everything is in the page itself, so that it can be sent to somebody, and opened from anywhere.
"""

import base64
import io
import shlex
from collections.abc import Iterable
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import tyro
import yaml

from gan.errors import UsageError, reason
from gan.files import read_json, replace_file
from gan.telemetry import plots
from gan.telemetry.animation import animation, grids_of, open_picture
from gan.telemetry.console import say
from gan.telemetry.history import History, Span, read_history

WIDEST, LARGEST_BYTES = 1024, 500_000
"""A picture of more bytes goes into the page as JPEG, at most so many pixels across."""
ROWS, MORE = 12, 6
"""How many rows of a table, and how many coarser or raw grids of samples, at most."""
CSS = """
:root { color-scheme: light dark; --text: #202124; --faint: #5f6368; --line: #dadce0; --card: #fff; --page: #f6f7f8 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8eaed; --faint: #9aa0a6; --line: #3c4043; --card: #202124; --page: #17181a }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 1100px; padding: 24px 16px 48px; background: var(--page); color: var(--text);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { margin: 0 0 4px; font-size: 26px; overflow-wrap: anywhere }
h2 { margin: 32px 0 10px; font-size: 17px }
h3 { margin: 0 0 6px; font-size: 13px; font-weight: 500; color: var(--faint) }
p { margin: 6px 0 }
.faint { color: var(--faint) }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 16px 0 }
.facts div, figure, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px }
.facts div { padding: 10px 14px }
.facts b { display: block; font-size: 18px; font-weight: 600; overflow-wrap: anywhere }
.facts span { font-size: 13px; color: var(--faint) }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 12px;
            align-items: start }
figure { margin: 0 0 12px; padding: 10px; break-inside: avoid }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: 4px }
.pictures figure { margin: 0 }
.pictures img { width: 100% }
img.pixels { image-rendering: pixelated }
.plot { overflow-x: auto }
.plot img { min-width: 680px }
figcaption { margin-top: 6px; font-size: 13px; color: var(--faint); text-align: center }
.card { overflow-x: auto; padding: 4px 14px; margin-bottom: 12px; break-inside: avoid-page }
.columns { columns: 300px; column-gap: 40px; padding: 10px 14px }
.columns div { display: flex; justify-content: space-between; gap: 16px; break-inside: avoid }
.columns dd { text-align: right; overflow-wrap: anywhere }
dl, dd { margin: 0 }
dt { color: var(--faint) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: 5px 14px 5px 0; text-align: left; white-space: nowrap }
th { font-weight: 500; font-size: 13px; color: var(--faint) }
tr + tr td { border-top: 1px solid var(--line) }
td.number, th.number { text-align: right }
pre { margin: 8px 0; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; white-space: pre-wrap;
      overflow-wrap: anywhere }
.dot { display: inline-block; width: 11px; height: 11px; border-radius: 50%; margin-right: 8px }
@media print {
  body { max-width: none; padding: 0; background: none }
  .plot img { min-width: 0 }
  pre { font-size: 10px }
}
"""
PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
$body
</body>
</html>
""")


def write_report(run: tyro.conf.Positional[Path]) -> None:
    """Draw a run's curves, its samples over time and one page with all there is to know about it.

    Args:
        run: Run folder; plots/, progress.gif and report.html in it are made, or made anew.
    """
    if not run.is_dir():
        raise UsageError(f"there is no run folder {run}.")
    history, config = read_history(run), read_config(run)
    drawn = {
        "losses": plots.losses_plot(history, config),
        "scores": plots.scores_plot(history),
        "health": plots.health_plot(history),
    }
    moving = animation(run / "samples")
    page = PAGE.substitute(title=escape(name_of(run)), css=CSS, body=body(run, history, drawn, moving))
    files = {f"plots/{name}.png": picture for name, picture in drawn.items()}
    try:
        (run / "plots").mkdir(exist_ok=True)
        for name, content in {**files, "progress.gif": moving, "report.html": page.encode()}.items():
            replace_file(run / name, content)
    except OSError as error:
        raise UsageError(f"cannot write the report into {run}: {reason(error)}.") from None
    say(f"{run}/report.html")


def read_config(run: Path) -> dict[str, Any]:
    """The settings in config.yaml; none where it is missing or damaged."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def name_of(run: Path) -> str:
    """The run folder's own name, by whatever path it is given."""
    return run.resolve().name


def body(run: Path, history: History, drawn: dict[str, bytes | None], moving: bytes | None) -> str:
    """The page, part by part; a part with nothing in it is left out."""
    parts = {
        "": header(run, history),
        "Samples": samples(run, moving),
        "Curves": "".join(
            f'<figure class="plot"><img src="{as_url(png, "png")}" alt="{name}"></figure>'
            for name, png in drawn.items()
            if png
        ),
        "Health": health_table(history.spans),
        "Newest values": newest_table(history.last),
        "Evaluations": evaluations(run, history),
        "Going on": commands(run),
        "Settings": text_of(run / "config.yaml"),
        "Environment": environment_table(read_json(run / "environment.json")),
    }
    return "\n".join(f"<section><h2>{title}</h2>{part}</section>" if title else part
                     for title, part in parts.items() if part)  # fmt: skip


def header(run: Path, history: History) -> str:
    """Title, state and the last figures, as HTML."""
    status, last = read_json(run / "status.json"), history.last
    status = status if isinstance(status, dict) else {}
    total, reason = status.get("total"), status.get("reason")
    facts = {
        "state": status.get("state"),
        "iteration": f"{shown(last['iteration'])} / {shown(total)}" if total else shown(last["iteration"]),
        "kimg": f"{history.kimg:.4g}",
        "epoch": shown(last.get("epoch")),
        "verdict": last.get("verdict"),
        "images/s": shown(last.get("perf/images_per_second")),
    }
    boxes = "".join(f"<div><b>{escape(str(value))}</b><span>{name}</span></div>"
                    for name, value in facts.items() if value not in (None, ""))  # fmt: skip
    why = f"<p>{escape(str(reason))}</p>" if reason else ""
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    return (f'<h1>{escape(name_of(run))}</h1><p class="faint">{escape(str(run.resolve()))}, as of {now}</p>'
            f'<div class="facts">{boxes}</div>{why}')  # fmt: skip


def samples(run: Path, moving: bytes | None) -> str:
    """The newest grid beside real images, how the samples got there, and what else was drawn at that iteration."""
    folder = run / "samples"
    pairs = ((path, inline(path)) for path in reversed(grids_of(folder)))
    newest, url = next(((path, url) for path, url in pairs if url), (None, ""))
    number = newest.stem.removeprefix("iteration-") if newest else "none"
    more = sorted(folder.glob(f"iteration-{number}-*.png"))[:MORE]
    figures = [
        figure(url, f"samples at iteration {number.lstrip('0') or '0'}"),
        figure(inline(folder / "reals.png"), "real images"),
        figure(as_url(moving, "gif") if moving else "", "samples over time", pixels=False),
        figure(as_it_is(run / "walk.gif", "gif"), "a walk through the latents", pixels=False),
        *(figure(inline(path), f"samples, {path.stem.removeprefix(f'iteration-{number}-')}") for path in more),
    ]
    return f'<div class="pictures">{"".join(figures)}</div>' if any(figures) else ""


def inline(path: Path) -> str:
    """A picture as an address that contains it; empty where it is missing or damaged."""
    picture = open_picture(path)
    if picture is None:
        return ""
    file = io.BytesIO()
    picture.save(file, format="png")
    if file.tell() <= LARGEST_BYTES:
        return as_url(file.getvalue(), "png")
    picture.thumbnail((WIDEST, WIDEST))
    smaller = io.BytesIO()
    picture.save(smaller, format="jpeg", quality=85)
    return as_url(smaller.getvalue(), "jpeg")


def as_it_is(path: Path, kind: str) -> str:
    """A file as an address that contains it; empty where it is missing."""
    return as_url(path.read_bytes(), kind) if path.is_file() else ""


def as_url(content: bytes, kind: str) -> str:
    """The bytes of a picture inside the page; `kind`: png, gif, …"""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def figure(url: str, caption: str, pixels: bool = True) -> str:
    """A picture with what it is below it, enlarged in whole pixels or not; empty where there is no picture."""
    kind = ' class="pixels"' if pixels else ""
    return f'<figure><img{kind} src="{url}" alt=""><figcaption>{escape(caption)}</figcaption></figure>' if url else ""


def health_table(spans: list[Span]) -> str:
    """When each verdict held, the newest first."""
    rows = [
        (verdict_cell(span.verdict), f"{span.begin_kimg:.4g} – {span.end_kimg:.4g}", f"{span.begin} – {span.end}")
        for span in reversed(spans)
    ]
    more = f'<p class="faint">and {len(rows) - ROWS} earlier ones</p>' if len(rows) > ROWS else ""
    return table(("verdict", "kimg", "iterations"), rows[:ROWS]) + more if rows else ""


def verdict_cell(verdict: str) -> str:
    """A verdict with its colour, as HTML."""
    colour = plots.VERDICTS.get(verdict, plots.OTHER)
    return f'<span class="dot" style="background:{colour}"></span>{escape(verdict)}'


def newest_table(last: dict[str, Any]) -> str:
    """The newest value of everything in the log."""
    return definitions((name, shown(value)) for name, value in sorted(last.items()) if name != "verdict")


def evaluations(run: Path, history: History) -> str:
    """What was measured during training, the newest first, and what gan evaluate has written down."""
    curves = {name: curve for name, curve in history.curves.items() if name.startswith("eval/")}
    at: dict[float, dict[str, float]] = {}
    for name, curve in curves.items():
        for kimg, value in zip(curve.kimg.tolist(), curve.values.tolist(), strict=True):
            at.setdefault(kimg, {})[name] = value
    rows = [[f"{kimg:.4g}", *(shown(at[kimg].get(name)) for name in curves)] for kimg in sorted(at, reverse=True)]
    more = f'<p class="faint">and {len(rows) - ROWS} earlier ones</p>' if len(rows) > ROWS else ""
    during = "<h3>During training</h3>" + table(("kimg", *map(escape, curves)), rows[:ROWS]) + more if rows else ""
    return during + measured(read_json(run / "evaluation.json"))


def measured(entries: Any) -> str:
    """The entries of evaluation.json as a table."""
    rows = []
    for entry in entries if isinstance(entries, list) else []:
        values = entry.get("values") if isinstance(entry, dict) else None
        if isinstance(values, dict):
            protocol = entry.get("protocol") if isinstance(entry.get("protocol"), dict) else {}
            numbers = ", ".join(f"{name} {shown(value)}" for name, value in values.items())
            how = f"{protocol.get('weights', '?')} weights, {protocol.get('fake', '?')} images, {protocol.get('split')}"
            cells = (entry.get("checkpoint"), numbers, entry.get("better"), how)
            rows.append([escape(str(cell)) for cell in cells])
    return "<h3>By gan evaluate</h3>" + table(("checkpoint", "values", "better", "of"), rows) if rows else ""


def commands(run: Path) -> str:
    """What to type next."""
    path = shlex.quote(str(run.resolve()))
    recipe = shlex.quote(str(run.resolve() / "config.yaml"))
    lines = {
        "go on with it, or longer with --kimg": f"accelerate launch train.py --recipe {recipe} --out {path}",
        "draw new images": f"gan sample {path} --out samples.png",
        "measure how good they are": f"gan evaluate {path}",
        "compare it with other runs": f"gan runs {shlex.quote(str(run.resolve().parent))}",
    }
    return '<div class="card"><pre>' + "\n".join(f'<span class="faint"># {what}</span>\n{escape(command)}'
                                                 for what, command in lines.items()) + "</pre></div>"  # fmt: skip


def text_of(path: Path) -> str:
    """A text file as it is."""
    try:
        return f'<div class="card"><pre>{escape(path.read_text("utf-8", errors="replace")[:50_000])}</pre></div>'
    except OSError:
        return ""


def environment_table(facts: Any) -> str:
    """Versions and machine of the run, as HTML."""
    pairs = facts.items() if isinstance(facts, dict) else ()
    return definitions((name, ", ".join(map(str, value)) or "none" if isinstance(value, list) else shown(value))
                       for name, value in pairs)  # fmt: skip


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, in as many columns as there is room for."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="card columns">{rows}</dl>' if rows else ""


def table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells are HTML already."""
    head = "".join(f"<th>{name}</th>" for name in names)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="card"><table><tr>{head}</tr>{lines}</table></div>'


def shown(value: Any) -> str:
    """A value in few digits; what is none, as a dash."""
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return "–" if value is None else str(value)
