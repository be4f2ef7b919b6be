"""What can be done from the command line? The same words as in Python; every error is one line and says what to do."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from modscope import __version__
from modscope.errors import ModscopeError, StudyError

app = App(
    name="modscope",
    help="Is a trained neural network made of parts, what do the parts do, and is that more than chance?",
    version=__version__,
    suppress_keyboard_interrupt=False,  # `main` says a word about it
)

Quiet = Annotated[bool, Parameter(help="Print no progress, only the result.", negative="")]


@app.command
def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for the report, the record and the masks.")] = Path("runs/demo"),
    seed: Annotated[int, Parameter(help="Everything random starts from this number.")] = 0,
    jobs: Annotated[int, Parameter(help="Worker processes; results do not depend on it.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Train three networks on real digits, take them apart, and write a report: about a minute on two cores.

    The networks name two digits that are shown side by side; the sides have nothing to do with each other, so the
    right answer is known: a trained network can use separate weights for left and right, an untrained one cannot.
    """
    from modscope.studies.demo import Demo, run_demo

    if seed < 0:
        raise StudyError(f"--seed must be 0 or a larger number, got {seed}")
    with _progress(quiet):
        finished = run_demo(Demo(seed=seed), out, n_jobs=jobs)
    print(finished.summary())
    print(f"\nreport: {finished.folder / 'report.html'}")


@app.command
def units(
    model: Annotated[
        str,
        Parameter(
            help="`module.path:factory` (gives a model, or a model and inputs), the name of a published network, or a "
            "model folder."
        ),
    ],
    *,
    shape: Annotated[str | None, Parameter(help="Shape of a float example input, as 1,3,224,224.")] = None,
    csv: Annotated[Path | None, Parameter(help="Also write the table to this file.")] = None,
    quiet: Quiet = False,
) -> None:
    """Show the units of a model: groups, sizes, the parameters that write them, and warnings.

    A model folder holds a Hugging Face `config.json`; its weights are not read. Published networks are looked for in
    the folder that MODSCOPE_DATA names.
    """
    from modscope.models.sources import read_model
    from modscope.records import write_whole
    from modscope.wiring.trace import read_wiring

    with _progress(quiet):
        wiring = read_wiring(*read_model(model, shape=_shape(shape)))
    print(wiring)
    if csv is not None:
        write_whole(csv, wiring.to_frame().write_csv().encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 stopped by Ctrl-C.

    `--debug`, anywhere, shows the traceback of an error.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_debugging = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(words, exit_on_error=False, print_error=False)
    except (ModscopeError, CycloptsError) as error:
        if is_debugging:
            raise
        sys.exit(_refuse(error))
    except KeyboardInterrupt:
        print("modscope: stopped; nothing that was finished is lost", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(size) for size in text.split(","))
    except ValueError:
        raise StudyError(f"--shape wants sizes with commas, as 1,3,224,224; got '{text}'") from None


def _progress(quiet: bool) -> AbstractContextManager[None]:
    from modscope.progress import progress

    return nullcontext() if quiet else progress()


def _refuse(error: Exception) -> int:
    text = " ".join(str(error).split())
    hint = "" if isinstance(error, ModscopeError) else " - `modscope --help` lists the commands and their options"
    print(f"modscope: {text}{hint}", file=sys.stderr)
    return 2
