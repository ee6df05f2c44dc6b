"""Commands on files of examples: `emojitune data ...`."""

from pathlib import Path
from typing import Annotated

import typer

from emojitune.cli.context import TRAIN, AsJson, DataFile, open_screen, read_settings
from emojitune.cli.paths import expand_user, read_stdin

data = typer.Typer(help="Check, repair, convert and split files of examples.", no_args_is_help=True)


@data.command("check")
def data_check(
    file: DataFile,
    valid: Annotated[
        Path | None,
        typer.Option(
            help="The validation file, checked too, also for leakage.", callback=read_stdin
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat warnings as errors.")] = False,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="Write a repaired copy, NAME.fixed.jsonl, and NAME.fixed.txt with the changes.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report everything that is wrong with a file; exit code 1 if it cannot be used."""
    from emojitune.cli.data import files

    options = files.CheckOptions(valid, strict, fix)
    files.check(file, options, open_screen(as_json))


@data.command("stats")
def data_stats(
    file: DataFile,
    plot: Annotated[
        Path | None,
        typer.Option(help="An image file to plot the frequencies to.", callback=expand_user),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show label frequencies, and counts of words and tokens."""
    from emojitune.cli.data import files

    screen = open_screen(as_json)
    screen.result(files.stats(file, plot, screen))


@data.command("show")
def data_show(
    number: Annotated[
        int, typer.Argument(metavar="N", help="The number of a line in the file.", min=1)
    ],
    file: DataFile = TRAIN,
    mask: Annotated[
        bool, typer.Option("--mask", help="Show its tokens, and which of them are trained on.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="The base model whose tokenizer is used.")
    ] = "gpt-3.5-turbo",
    as_json: AsJson = False,
) -> None:
    """Show one example as it is, or as the tokens that a model sees."""
    from emojitune.cli.data import show

    screen = open_screen(as_json)
    screen.result(show.show(file, number, model if mask else None, read_settings(), screen))


@data.command("convert")
def data_convert(
    file: DataFile,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write [NAME.chat.jsonl].", show_default=False, callback=expand_user
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert other formats to chat lines: prompt and completion, ShareGPT, Alpaca, a list, CSV.

    Every row is accounted for: rows left out are listed with their line and the reason.
    """
    from emojitune.cli.data import convert

    convert.convert_file(file, output, open_screen(as_json))


@data.command("split")
def data_split(
    file: DataFile,
    share: Annotated[
        float, typer.Option(help="Fraction of the examples for the validation file.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Split a file into NAME.train.jsonl and NAME.valid.jsonl, next to it."""
    from emojitune.cli.data import files

    screen = open_screen(as_json)
    screen.result(files.split(file, share, seed, screen))
