"""The command line: one small function per command.

Slow imports are inside the commands that need them, so that --help appears at once.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from emojitune import __version__
from emojitune.cli.context import (
    TRAIN,
    VALID,
    AsJson,
    Home,
    ModelName,
    Provider,
    connect_to,
    open_screen,
    prompt_for_key,
    read_settings,
)
from emojitune.cli.data.commands import data
from emojitune.cli.errors import exit_code, prepare_streams
from emojitune.cli.invocation import NAME
from emojitune.cli.jobs import jobs
from emojitune.cli.keys import keys
from emojitune.cli.models import models
from emojitune.cli.paths import expand_user, read_stdin

app = typer.Typer(
    help="Fine-tune a chatbot that answers in emoji labels: on OpenAI, or on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.add_typer(data, name="data")
app.add_typer(jobs, name="jobs")
app.add_typer(models, name="models")
app.add_typer(keys, name="keys")


def main() -> None:
    """The entry point: turns any failure of a command into a message and an exit code."""
    prepare_streams()
    sys.exit(exit_code(partial(app, prog_name=NAME, standalone_mode=False)))


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"emojitune {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one [8808].")] = None,
    home: Home = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="The key that clients must send; by default one kept in the home folder."
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(metavar="<path>", help="A certificate (PEM): the server then speaks HTTPS."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="<path>", help="The certificate's key (PEM).")
    ] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(help="Exit after this many seconds without a request or a job.", min=0),
    ] = None,
) -> None:
    """Serve OpenAI's API under /v1, and train for real."""
    settings = read_settings(
        host=host, port=port, home=home, api_key=api_key, tls_cert=tls_cert, tls_key=tls_key
    )
    from emojitune.server import serve as server

    Path.cwd()  # fails now if the folder was deleted, rather than at the first request
    screen = open_screen()
    server.serve(
        settings, announce=lambda url: screen.say(f"Serving {url}"), idle_timeout=idle_timeout
    )


@app.command()
def run(
    train: Annotated[
        Path,
        typer.Option(help="The training file; - is standard input.", callback=read_stdin),
    ] = TRAIN,
    valid: Annotated[
        Path,
        typer.Option(help="The validation file: scored on, never trained on.", callback=read_stdin),
    ] = VALID,
    model: Annotated[str, typer.Option(help="The base model.")] = "gpt-3.5-turbo",
    suffix: Annotated[str, typer.Option(help="Part of the new model's name.")] = "emoji-v1",
    epochs: Annotated[int, typer.Option(help="Passes over the training file.", min=1, max=50)] = 3,
    seed: Annotated[int | None, typer.Option(help="The same seed trains the same model.")] = None,
    provider: Provider = "local",
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending money.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do the entire job: check, upload, fine-tune, follow, smoke-test, score."""
    from emojitune.cli import run as run_module

    options = run_module.RunOptions(train, valid, model, suffix, epochs, seed, provider, yes)
    screen = open_screen(as_json)
    screen.result(run_module.run(options, read_settings(home=home), screen, prompt_for_key))


@app.command()
def chat(
    model: ModelName,
    message: Annotated[
        str | None,
        typer.Argument(help="One message; without it, each line of standard input is one."),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system prompt other than the training file's.")
    ] = None,
    free: Annotated[
        bool, typer.Option("--free", help="Do not constrain replies to labels.")
    ] = False,
    provider: Provider = "local",
    home: Home = None,
) -> None:
    """Chat with a model. Each message is a conversation of its own, as in the training file."""
    from emojitune.cli import chat as chat_module

    messages = map(str.strip, (sys.stdin or ()) if message is None else [message])
    with connect_to(provider, home) as connection:
        chat_module.chat(
            connection, model, messages, system=system, free=free, screen=open_screen()
        )


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="The name of a model, or an adapter folder.")
    ] = None,
    file: Annotated[
        Path,
        typer.Option(
            "--data", help="The file to score on; - is standard input.", callback=read_stdin
        ),
    ] = VALID,
    against: Annotated[
        str | None, typer.Option(help="Another model to compare with, reply by reply.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="An HTML file to write: plots, confusions, wrong replies.", callback=expand_user
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of concurrent requests; 1 times each reply alone.", min=1),
    ] = None,
    cross_validate: Annotated[
        Path | None,
        typer.Option(
            help="Instead: train on parts of this file, and score on the held-out examples.",
            callback=read_stdin,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Number of cross-validation rounds.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first round; later rounds count up.")] = 1,
    epochs: Annotated[int, typer.Option(help="Epochs of each round's job.", min=1, max=50)] = 3,
    provider: Provider = "local",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a file, with free and with constrained decoding.

    With --cross-validate FILE, MODEL is the base model that is trained in each round, by default
    gpt-3.5-turbo.
    """
    from emojitune.errors import InvalidRequestError

    screen = open_screen(as_json)
    settings, connect = read_settings(home=home), partial(connect_to, provider, home)
    if cross_validate is not None:
        from emojitune.cli import cross_validate as cross_validation
        from emojitune.workflow.cross_validate import CrossValidationConfig

        config = CrossValidationConfig(
            model or "gpt-3.5-turbo", epochs, tuple(range(seed, seed + rounds))
        )
        result = cross_validation.cross_validate(
            cross_validate, config, settings, connect, report, screen
        )
    elif model is None:
        raise InvalidRequestError("Name a model to score, or a file to --cross-validate.")
    else:
        from emojitune.cli import evaluate as scoring

        options = scoring.EvaluateOptions(model, file, against, report, workers)
        result = scoring.evaluate(options, settings, connect, screen)
    screen.result(result)


@app.command()
def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Repair what can be repaired; no server may be running."),
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Find damaged and leftover files in the home folder and the cache of base models.

    Exit code 1 if a finding remains. Nothing that a user provided or made is ever deleted.
    """
    from emojitune.cli import upkeep

    screen = open_screen(as_json)
    result, healthy = upkeep.examine(read_settings(home=home), repair=repair, screen=screen)
    screen.result(result)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A new or empty folder.", callback=expand_user)],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy all data of a server, even while it runs; `serve --home` on the copy restores it."""
    from emojitune.cli import upkeep

    screen = open_screen(as_json)
    screen.result(upkeep.backup(read_settings(home=home), target, screen))


@app.command()
def rescue(
    folder: Annotated[
        Path,
        typer.Argument(help="A new folder, or one of an earlier rescue.", callback=expand_user),
    ],
    provider: Annotated[
        str, typer.Option("--provider", help="openai, azure, or the base URL of a server.")
    ] = "openai",
    resource: Annotated[
        str | None, typer.Option(help="With --provider azure: the name of the resource.")
    ] = None,
    chats: Annotated[
        bool,
        typer.Option("--chats", help="Stored completions, too: they may hold personal data."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what there is, and write nothing.")
    ] = False,
    replies: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Instead: ask this model, and keep its replies."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--data", help="With --replies: the examples to ask.", callback=read_stdin),
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="With --replies: as a batch, at half the price.")
    ] = False,
    deployment: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=NAME", help="At Azure: the deployment of a model."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending money.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy jobs, files, models and batches from a provider into a folder, while it still answers.

    Run it again on the same folder: it goes on where it was, and fetches only what is new.
    """
    from emojitune.cli import rescue as rescue_module

    options = rescue_module.RescueOptions(
        *(folder, provider, resource, chats, dry_run),
        *(replies, file, batch, tuple(deployment or ()), yes),
    )
    screen = open_screen(as_json)
    screen.result(rescue_module.rescue(options, screen, prompt_for_key))


if __name__ == "__main__":
    main()
