"""A question of the study: the runs that it needs, the answer that follows from them, and how the answer is shown.

A `Question` is a function: called with the options by name, it trains what is missing and returns a `Result`, which has
flat rows, a table, a figure and a summary. The command of the same name writes them.
"""

from __future__ import annotations

import base64
import contextlib
import inspect
import io
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from transferlens.compare import tuning
from transferlens.measures.classes import shown
from transferlens.measures.scoring import ONE, SCORINGS
from transferlens.plots import style
from transferlens.store.rows import levels_text
from transferlens.store.run import Run, load_config
from transferlens.training import forecast
from transferlens.training.sweep import Arm, gather, planned
from transferlens.util.errors import CheckpointError, ParameterError, TransferLensError
from transferlens.util.fields import build, checked, described, names, signature
from transferlens.util.files import check_writable, write_csv, write_text
from transferlens.util.lazy import pandas
from transferlens.util.text import some

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


Options = TypeVar("Options")
# Columns of blocks and folds, which are text in the csv files.
NUMBERS = ("block", "change_from", "pretrained_through", "frozen_through", "fold", "inner_fold")
# What has an answer where clips have several labels, besides the questions asked block by block.
ANSWERING = ("train", "pretraining", "freeze", "classes", "ensemble", "predict", "saliency", "selection", "tables")
# Options that only commands have, and what to use in Python instead.
OF_COMMANDS = {
    "figures": "result.write(folder) writes figures and tables",
    "figure_width": "result.write(folder, width='8cm') sets the width of figures",
    "titles": "result.write(folder, titles=False) leaves titles out",
    "out": "result.table() has the rows",
    "dry_run": "tl.Study(...).points(plan) names the runs of a plan and trains none",
}


class Result:
    """The answer to a question; subclasses are frozen dataclasses.

    Attributes
    ----------
    rows : tuple of dataclass
        The numbers, as flat rows.
    """

    stem: ClassVar[str] = ""
    # Type of the rows, if there may be none.
    row_type: ClassVar[type | None] = None
    # The errors that the command prints.
    problems: Sequence[str] = ()
    rows: Sequence[Any]

    @property
    def score(self) -> str:
        """Name of the held-out score of the rows: "accuracy", or "mAP" where clips have several labels."""
        return next((row.score for row in self.scored if hasattr(row, "score")), ONE.name)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 2 if there are problems."""
        return TransferLensError.exit_code if self.problems else 0

    @property
    def scored(self) -> Sequence[Any]:
        """The rows that have accuracies, and say what these are compared with."""
        return self.rows

    def plot(self) -> Figure:
        """Draw the figure: ``draw(result)`` of the question's module; raise ParameterError if it has none."""
        module = sys.modules[type(self).__module__]
        if not hasattr(module, "draw"):
            raise ParameterError(f"{self.stem} has no figure: result.table() and result.summary() show the answer")
        with style.scored(self.score):
            return style.fitted(module.draw(self))

    def summary(self) -> str:
        """Return the answer in words, ``summary(result)`` of the question's module, and what to compare it with."""
        words = sys.modules[type(self).__module__].summary(self)
        mean = "" if self.score == ONE.name else "scores are mAP: average precision, the mean over classes"
        return "\n".join(filter(None, [words, levels_text(self.scored), mean]))

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the rows of every table that is written, by the stem of its file."""
        return {self.stem: self.rows}

    def figures(self) -> dict[str, Figure]:
        """Return every figure that is written, by the stem of its files."""
        return {self.stem: self.plot()} if hasattr(sys.modules[type(self).__module__], "draw") else {}

    def texts(self) -> dict[str, str]:
        """Return every text that is written, by the name of its file."""
        return {}

    def table(self) -> DataFrame:
        """Return the rows as a DataFrame, one column per field.

        Blocks are whole numbers, and folds too if all are named by numbers; "none", and none, are missing values.
        """
        table = pandas.DataFrame(shown(self.rows))
        for name in table.columns.intersection(NUMBERS):
            words = [None if word in ("", "none") else word for word in table[name]]
            if all(word is None or str(word).isdecimal() and str(int(word)) == str(word) for word in words):
                table[name] = pandas.array([None if word is None else int(word) for word in words], dtype="Int64")
        return table

    @checked
    def write(
        self, folder: Path | str, *, width: Annotated[str | None, style.WIDTH] = None, titles: bool = True
    ) -> list[Path]:
        """Write tables (.csv) and figures (.png, .pdf) to a folder, which is made; return their paths.

        Figures have a width such as "8cm", by default that of each, and titles or none.
        """
        folder, written = Path(folder), []
        check_writable("folder", folder)
        with style.look(width=width, titles=titles):
            for stem, figure in self.figures().items():
                written += style.save_figure(figure, folder / stem)
        for stem, rows in self.tables().items():
            written.append(folder / f"{stem}.csv")
            write_csv(shown(rows), written[-1], kind=None if rows else self.row_type)
        for name, text in self.texts().items():
            written.append(folder / name)
            write_text(text, written[-1])
        return written

    def save(self, path: Path | None) -> None:
        """Write the rows to a new file (.csv), or to stdout."""
        write_csv(self.rows, path)

    def __init_subclass__(cls) -> None:
        cls.__repr__ = Result.__repr__  # type: ignore[method-assign]  # a dataclass does not replace it

    def __repr__(self) -> str:
        return f"{self.stem}: {len(self.rows)} rows\n{self.summary()}"

    def _repr_html_(self) -> str:
        images = []
        for figure in self.figures().values():
            image = io.BytesIO()
            figure.savefig(image, format="png", dpi=110)
            data = base64.b64encode(image.getvalue()).decode()
            images.append(f'<img src="data:image/png;base64,{data}" style="max-width:100%">')
        return f"{''.join(images)}{self.table().to_html(max_rows=12)}"


def check_labels(question: str, labels_per_clip: Mapping[str, str]) -> None:
    """Raise ParameterError if clips, by the name of their data set or run file, have several labels."""
    if several := [name for name, labels in labels_per_clip.items() if SCORINGS[labels] is not ONE]:
        raise ParameterError(
            f"{some(several)} has several labels per clip, for which `{question}` has no answer: "
            f"{', '.join(ANSWERING)} have one"
        )


Answer = TypeVar("Answer", bound=Result)


@dataclass(frozen=True, eq=False)
class Question(Generic[Options, Answer]):
    """A question of the study, which is called as a function.

    Parameters
    ----------
    name : str
        Name of the command.
    options : type
        A dataclass of all options.
    analyse : callable
        Takes the runs by arm and the options, and returns the Result; trains nothing.
    points : callable
        Takes the options, and returns the arms by name: the runs that are needed. Default: none, as options name files.
    first : str
        The option that may be given by position.
    of_command : collection of str
        Options that the command alone has.
    several : bool
        Whether it has an answer where clips have several labels.
    """

    name: str
    options: type[Options]
    analyse: Callable[[Mapping[Any, list[Run]], Options], Answer]
    points: Callable[[Options], Mapping[Any, Arm]] = field(default=lambda options: {})
    first: str = "clips"
    of_command: Collection[str] = tuple(OF_COMMANDS)
    several: bool = False

    def __call__(self, *first: Any, **options: Any) -> Answer:
        """Train what is missing, and return the answer; see `describe` for the options."""
        if len(first) > 1:
            remedy = f"give a list, {self.name}([a, b])" if self.first == "ckpt" else "name the others"
            raise ParameterError(f"{self.name} takes one argument by position, {self.first}: {remedy}")
        takes = names(self.options)
        for word in {"run", "runs"} & options.keys() if "ckpt" in takes else ():
            if "runs" not in takes or not isinstance(options[word], (str, Path)):
                raise ParameterError(f"{word} is not for run files here: did you mean ckpt?")
        if first and self.first in options:
            raise ParameterError(f"{self.first} is given twice")
        options |= dict(zip((self.first,), first, strict=False))
        if self.first == "ckpt" and options.get("ckpt", ()) is None:
            raise ParameterError("ckpt=None must be run files, or left out")
        if wrong := [name for name in self.of_command if name in options]:
            raise ParameterError(f"{wrong[0]} is an option of the command: in Python, {OF_COMMANDS[wrong[0]]}")
        return self.answer(build(self.options, options))

    def answer(self, options: Options) -> Answer:
        """Return the answer for options that are already composed."""
        arms = self._arms(options)
        runs = gather(arms)
        if chosen := tuning.tuned(arms, runs):
            runs |= gather(chosen)
        return self.analyse(runs, options)

    def needed(self, options: Options) -> dict[Any, Arm]:
        """Return the arms by name, with those that follow from the runs of others (`compare.tuning`)."""
        arms = self._arms(options)
        return {**arms, **tuning.expected(arms)}

    def _arms(self, options: Options) -> Mapping[Any, Arm]:
        """Return the arms by name; raise if clips, or those of run files, have several labels and it has no answer."""
        arms, paths = self.points(options), getattr(options, "ckpt", ())
        if not self.several:
            check_labels(
                self.name, {arm.study.dataset.name: arm.study.dataset.labels_per_clip for arm in arms.values()}
            )
            for path in [paths] if isinstance(paths, Path) else paths:
                with contextlib.suppress(CheckpointError):  # files that do not open are named all at once
                    check_labels(self.name, {str(path): load_config(path).labels_per_clip})
        return arms

    def planned(self, options: Options) -> list[forecast.Planned]:
        """Return the estimate for each run that the question needs; none is trained."""
        return planned(self.needed(options))

    def signature(self) -> inspect.Signature:
        """Return the signature of the question as a function."""
        return signature(self.options, positional=self.first, hidden=self.of_command)

    def describe(self) -> str:
        """Return the options, what is returned and an example as sections of a docstring."""
        example = {"clips": "clips.csv", "runs": "runs"}.get(self.first, "runs/synth/RUN.h5")
        return f"""\
{described(self.options, hidden=self.of_command)}

Returns
-------
Result
    With ``.rows``, ``.table()``, ``.plot()``, ``.summary()`` and ``.write(folder)``.

Examples
--------
::

    result = tl.{self.name}("{example}")
    print(result.summary())
    result.write("figures")"""
