"""The page of a report: what it shows of one run or two, put into ``page.html``.

The template escapes everything but the charts, which escape their own texts.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tasks.roles.report.charts import Series, line_chart, speed_gradient
from tasks.roles.report.curves import Curve
from tasks.roles.report.laps_section import STYLES, comparisons, maps
from tasks.roles.report.run_facts import Play, RunFacts, number

MAX_VIDEO_BYTES = 8 * 10**6
"""A larger video is linked instead of embedded."""
MAX_PICTURE_BYTES = 4 * 10**6

_NONE = "-"


class _Wanted(NamedTuple):
    """A chart of learning curves: every curve whose name it has is drawn."""

    title: str
    unit: str
    names: tuple[tuple[str, str], ...]
    """Each curve with what the legend calls it; evaluations first."""
    factor: float = 1.0


_RETURN = _Wanted("Return", "return", (("evaluation/return", "evaluation"), ("rollout/return", "training")))
_DRIVING = (
    _RETURN,
    _Wanted("Finished episodes", "finished [%]",
            (("evaluation/finish_rate", "evaluation"), ("rollout/finish_rate", "training")), 100.0),
    _Wanted("Lap time", "lap [s]", (("evaluation/lap_time_s", "evaluation, mean"), ("rollout/lap_time_s", "training"))),
    _Wanted("Best lap of each evaluation", "lap [s]", (("evaluation/best_lap_time_s", "evaluation"),)),
    _Wanted("Progress along the track", "progress [%]",
            (("evaluation/progress", "evaluation"), ("rollout/progress", "training")), 100.0),
    _Wanted("Episode length", "steps", (("rollout/episode_length", "training"),)),
)  # fmt: skip
_SPEED = (
    _Wanted("Updates per second", "updates/s", (("time/updates_per_second", "training"),)),
    _Wanted("Environment steps per second", "steps/s", (("time/env_steps_per_second", "training"),)),
    _Wanted("Updates per environment step", "updates/step", (("time/update_ratio", "training"),)),
)

_RESULT_NAMES = {
    "finish_rate": "finished [%]",
    "mean_lap_time_s": "mean lap [s]",
    "std_lap_time_s": "standard deviation of the laps [s]",
    "reference_lap_time_s": "reference lap [s]",
    "scripted_lap_time_s": "scripted lap [s]",
    "scripted_lap_ratio": "mean lap / scripted lap",
    "human_lap_time_s": "human lap [s]",
    "human_lap_ratio": "mean lap / human lap",
    "mean_return": "mean return",
    "std_return": "standard deviation of the returns",
}


def render(runs: Sequence[RunFacts], folder: Path, now: datetime) -> str:
    """The page.

    Args:
        runs: One run, or two.
        folder: Where the page will lie; links are relative to it.
        now: The time, for its last line.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = [run.name for run in runs]
    return environment.get_template("page.html").render(
        title=" and ".join(names),
        subtitle="A training run" if len(runs) == 1 else "Two training runs beside each other",
        gradient=speed_gradient(),
        runs=[_run_card(run, style) for run, style in zip(runs, STYLES, strict=False)],
        driving=_curve_group(runs, "Learning curves", _DRIVING),
        learning=[
            _curve_group(runs, "Losses", _losses(runs)),
            _curve_group(runs, "Speed of training", _SPEED),
        ],
        maps=maps(runs),
        comparisons=comparisons(runs),
        plays=[_play_card(run, run.play, folder) for run in runs if run.play is not None],
        differences=_differences(runs),
        settings=_settings(runs),
        versions=_versions(runs),
        written=f"{now:%Y-%m-%d %H:%M}",
    )


def _run_card(run: RunFacts, style: str) -> dict[str, Any]:
    config = run.config
    parts = [config.get("choices.task") or config.get("task.name"), config.get("choices.train")]
    parts += [f"{label} {config[key]}" for key, label in (("task.track", "track"), ("task.id", "id"), ("seed", "seed"))
              if config.get(key) not in (None, "null")]  # fmt: skip
    return {
        "name": run.name,
        "style": style,
        "what": ", ".join(part for part in parts if part),
        "tiles": [{"name": name, "value": value} for name, value in _tiles(run)],
        "notes": run.notes,
    }


def _tiles(run: RunFacts) -> Iterable[tuple[str, str]]:
    """The figures that sum a run up."""
    play, curves = run.play, run.curves
    if play is not None:
        results = play.results
        if (rate := number(results.get("finish_rate"))) is not None:
            yield "finished when played", f"{100 * rate:.0f} %"
        if (lap := number(results.get("mean_lap_time_s"))) is not None:
            yield "mean lap when played", f"{lap:.2f} s"
        if play.laps is not None and play.laps.driven.lap_time_s is not None:
            yield "best lap when played", f"{play.laps.driven.lap_time_s:.2f} s"
        for driver in ("reference", "human", "scripted"):
            ratio = number(results.get("lap_ratio" if driver == "reference" else f"{driver}_lap_ratio"))
            if ratio is not None and f"{driver}_lap_time_s" in results:
                yield f"mean lap / {driver} lap", f"{ratio:.3f}"
                break
        if (mean := number(results.get("mean_return"))) is not None and "finish_rate" not in results:
            yield "mean return when played", f"{mean:.1f}"
    best = curves.get("evaluation/best_lap_time_s")
    if best is not None:
        index = int(best.values.argmin())
        yield f"best lap of an evaluation, at {best.steps[index]:,.0f} steps", f"{best.values[index]:.2f} s"
    if curves:
        yield "environment steps", f"{_last_step([run]):,.0f}"
    elapsed = curves.get("time/elapsed_s")
    if elapsed is not None:
        yield "training time", _duration(float(elapsed.values[-1]))
    updates = curves.get("time/updates")
    if updates is not None:
        yield "updates", f"{updates.values[-1]:,.0f}"


def _losses(runs: Sequence[RunFacts]) -> list[_Wanted]:
    """A chart for each curve that an algorithm logged of its learning."""
    names = sorted({name for run in runs for name in run.curves if name.startswith(("losses/", "train/"))})
    return [_Wanted(_title(name), name.partition("/")[2], ((name, "training"),)) for name in names]


def _curve_group(runs: Sequence[RunFacts], title: str, wanted: Iterable[_Wanted]) -> dict[str, Any]:
    return {"title": title, "charts": [chart for one in wanted if (chart := _curve_chart(runs, one))]}


def _curve_chart(runs: Sequence[RunFacts], wanted: _Wanted) -> dict[str, Any] | None:
    """A chart of both runs; None when neither logged it."""
    series, legend = [], []
    for run, style in zip(runs, STYLES, strict=False):
        for name, label in wanted.names:
            curve = run.curves.get(name)
            if curve is None:
                continue
            is_evaluation = name.startswith("evaluation/")
            drawn: Curve = curve.thinned()
            is_faint = not is_evaluation and len(wanted.names) > 1
            title = label if len(runs) == 1 else f"{run.name}: {label}"
            values = drawn.values * wanted.factor
            series.append(Series(title, drawn.steps, values, f"{style} faint" if is_faint else style,
                                 is_dotted=is_evaluation and len(drawn.steps) <= 60))  # fmt: skip
            legend.append((f"{label} (faint)" if is_faint else label, style))
    if len(runs) > 1:  # who is who says more; evaluations are marked, training is faint
        legend = [
            (run.name, style)
            for run, style in zip(runs, STYLES, strict=False)
            if (run.curves.keys() & dict(wanted.names))
        ]
    if not series:
        return None
    return {
        "title": wanted.title,
        "svg": line_chart(series, "environment steps", wanted.unit, x_range=(0.0, _last_step(runs))),
        "legend": legend if len(legend) > 1 else [],
    }


def _last_step(runs: Sequence[RunFacts]) -> float:
    return max(1.0, *(float(curve.steps.max()) for run in runs for curve in run.curves.values()))


def _play_card(run: RunFacts, play: Play, folder: Path) -> dict[str, Any]:
    results = play.results
    episodes = [episode for episode in _list(results.get("episodes")) if isinstance(episode, Mapping)][:200]
    columns = list(dict.fromkeys(str(key) for episode in episodes for key in episode))[:12]
    video, video_link, video_size = None, None, ""
    if play.video is not None:
        size = play.video.stat().st_size
        video_size = f"{size / 1e6:.1f} MB"
        if size < MAX_VIDEO_BYTES:
            video = _data_url(play.video, "video/mp4")
        else:
            video_link = quote(Path(os.path.relpath(play.video, folder)).as_posix())
    is_small = play.driven_line is not None and play.driven_line.stat().st_size < MAX_PICTURE_BYTES
    return {
        "title": f"{run.name}, played {play.folder.name}",
        "video": video,
        "video_link": video_link,
        "video_size": video_size,
        "picture": _data_url(play.driven_line, "image/png") if play.driven_line is not None and is_small else None,
        "summary": list(_result_rows(results)),
        "columns": [name.replace("_time_s", " [s]").replace("_", " ") for name in columns],
        "episodes": [[_cell(episode.get(name)) for name in columns] for episode in episodes],
    }


def _result_rows(results: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Every single value of results.json, the known ones by their names."""
    for key, value in results.items():
        if isinstance(value, (list, Mapping)) or value is None:
            continue
        if key == "finish_rate" and (rate := number(value)) is not None:
            value = 100.0 * rate
        yield _RESULT_NAMES.get(key, str(key).replace("_", " ")), _cell(value)


def _cell(value: object) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    rounded = number(value)
    return str(value)[:300] if rounded is None else f"{rounded:.3f}".rstrip("0").rstrip(".")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _differences(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    """Entries that two runs do not share, with the value of each."""
    if len(runs) == 1:
        return []
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [(key, [run.config.get(key, _NONE) for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _settings(runs: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """The configuration of one run, or what two share."""
    different = {key for key, _ in _differences(runs)}
    return [(key, value) for key, value in runs[0].config.items() if key not in different]


def _versions(runs: Sequence[RunFacts]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for run in runs for name in run.versions)
    return [(name, [run.versions.get(name, _NONE) for run in runs]) for name in names]


def _title(name: str) -> str:
    """A curve's name for people: losses/critic becomes Loss: critic."""
    group, _, rest = name.partition("/")
    words = rest.replace("_", " ")
    return f"Loss: {words}" if group == "losses" else words[:1].upper() + words[1:]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"
