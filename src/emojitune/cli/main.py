"""The command line: one small function a command.

Nothing heavy is imported before the command that needs it, so that --help answers at once. Every
error of ours ends here as one screen on stderr and exit code 1.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from emojitune.errors import EmojituneError

app = typer.Typer(
    help="Fine-tune a chatbot that answers in emoji labels: on OpenAI, or on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Look at a file of examples before it is used.", no_args_is_help=True)
jobs = typer.Typer(help="Fine-tuning jobs of a provider.", no_args_is_help=True)
models = typer.Typer(help="Models of a provider, and base models on this disk.")
keys = typer.Typer(help="Who gets in: keys of the local server.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(jobs, name="jobs")
app.add_typer(models, name="models", no_args_is_help=True)
app.add_typer(keys, name="keys")

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of everything the local server keeps.", show_default=False),
]
Provider = Annotated[
    str, typer.Option("--provider", help="local, openai, or the base URL of a server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job: ftjob-...")]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The name of a model.")]
DataFile = Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file of examples.")]
TRAIN = Path("data/emoji_ft_train.jsonl")
VALID = Path("data/emoji_ft_valid.jsonl")


def main() -> None:
    """The entry point: errors of ours become a message and an exit code, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show an emoji shows a question mark instead of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except EmojituneError as error:
        from emojitune.cli.render import show_error

        show_error(error)
        sys.exit(1)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8808].")] = None,
    home: Home = None,
    api_key: Annotated[
        str | None, typer.Option(help="The key that clients must send [kept in the home folder].")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="A certificate (PEM): the server then speaks HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key (PEM).")] = None,
    idle_timeout: Annotated[
        float | None, typer.Option(help="End after so many seconds without request or job.")
    ] = None,
) -> None:
    """Serve OpenAI's API under /v1, and train for real."""
    settings = _settings(
        host=host, port=port, home=home, api_key=api_key, tls_cert=tls_cert, tls_key=tls_key
    )
    from emojitune.server import serve as server

    screen = _screen()
    server.serve(
        settings, announce=lambda url: screen.say(f"Serving {url}"), idle_timeout=idle_timeout
    )


@app.command()
def run(
    train: Annotated[Path, typer.Option(help="The training file.")] = TRAIN,
    valid: Annotated[Path, typer.Option(help="Scored on, never trained on.")] = VALID,
    model: Annotated[str, typer.Option(help="The base model.")] = "gpt-3.5-turbo",
    suffix: Annotated[str, typer.Option(help="Part of the new model's name.")] = "emoji-v1",
    epochs: Annotated[int, typer.Option(help="Passes over the training file.", min=1, max=50)] = 3,
    seed: Annotated[int | None, typer.Option(help="The same seed trains the same model.")] = None,
    provider: Provider = "local",
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before spending money.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do the whole job: check, upload, fine-tune, follow, smoke-test, score."""
    from emojitune.cli import run as conductor

    options = conductor.RunOptions(train, valid, model, suffix, epochs, seed, provider, yes)
    screen = _screen(as_json)
    screen.result(conductor.run(options, _settings(home=home), screen, _ask_key))


@app.command()
def chat(
    model: ModelName,
    message: Annotated[str | None, typer.Argument(help="One message; else a line each.")] = None,
    system: Annotated[str | None, typer.Option(help="Another system prompt.")] = None,
    free: Annotated[bool, typer.Option("--free", help="Do not hold replies to labels.")] = False,
    provider: Provider = "local",
    home: Home = None,
) -> None:
    """Talk to a model. Each message stands for itself, as in the training file."""
    from emojitune.cli import run as conductor

    said = [message] if message is not None else (line.strip() for line in sys.stdin)
    with _connect(provider, home) as connection:
        conductor.chat(connection, model, said, system=system, free=free, screen=_screen())


@app.command()
def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="The name of a model, or an adapter's folder.")
    ] = None,
    file: Annotated[Path, typer.Option("--data", help="The file to score on.")] = VALID,
    against: Annotated[
        str | None, typer.Option(help="Another model, compared with the first reply by reply.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="An HTML file to write: plots, confusions, wrong replies.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Requests side by side; 1 times each alone.", min=1)
    ] = None,
    cross_validate: Annotated[
        Path | None,
        typer.Option(help="Instead: train on parts of this file, and score on what is left out."),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Of the cross-validation.", min=1)] = 3,
    seed: Annotated[int, typer.Option(help="Of its first round; the next ones count up.")] = 1,
    epochs: Annotated[int, typer.Option(help="Of each of its jobs.", min=1, max=50)] = 3,
    provider: Provider = "local",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a file, with free and with constrained decoding.

    With --cross-validate FILE, MODEL is the base that is trained in each round [gpt-3.5-turbo].
    """
    from emojitune.errors import InvalidRequestError

    screen = _screen(as_json)
    settings, connect = _settings(home=home), partial(_connect, provider, home)
    if cross_validate is not None:
        from emojitune.cli import cross_validate as rounds_of
        from emojitune.workflow.cross_validate import Rounds

        plan = Rounds(model or "gpt-3.5-turbo", epochs, tuple(range(seed, seed + rounds)))
        result = rounds_of.cross_validate(cross_validate, plan, settings, connect, report, screen)
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
        bool, typer.Option("--repair", help="Put right what can be; no server may be running.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is damaged or left over in the home folder and the cache of base models.

    Exit code 1 if something is left. Nothing that a user gave or made is ever deleted.
    """
    from emojitune.cli import upkeep

    screen = _screen(as_json)
    result, healthy = upkeep.examine(_settings(home=home), repair=repair, screen=screen)
    screen.result(result)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy all that a server keeps, while it runs; `serve --home` on the copy restores it."""
    from emojitune.cli import upkeep

    screen = _screen(as_json)
    screen.result(upkeep.backup(_settings(home=home), target, screen))


@data.command("check")
def data_check(
    file: DataFile,
    valid: Annotated[
        Path | None, typer.Option(help="The validation file, checked too, and for leakage.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings stop, too.")] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write NAME.fixed.jsonl, and NAME.fixed.txt on it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report everything that is wrong with a file; exit code 1 if it cannot be used."""
    from emojitune.cli import data_files

    options = data_files.CheckOptions(valid, strict, fix)
    data_files.check(file, options, _screen(as_json))


@data.command("stats")
def data_stats(
    file: DataFile,
    plot: Annotated[Path | None, typer.Option(help="A picture to draw them in, too.")] = None,
    as_json: AsJson = False,
) -> None:
    """Draw label frequencies; count words and tokens."""
    from emojitune.cli import data_files

    screen = _screen(as_json)
    screen.result(data_files.stats(file, plot, screen))


@data.command("show")
def data_show(
    number: Annotated[int, typer.Argument(metavar="N", help="The line of the file.", min=1)],
    file: DataFile = TRAIN,
    mask: Annotated[
        bool, typer.Option("--mask", help="Its tokens, and which are trained.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="The base model whose tokens they are.")
    ] = "gpt-3.5-turbo",
    as_json: AsJson = False,
) -> None:
    """Show one example, as it is or as a model sees it."""
    from emojitune.cli import data_show

    screen = _screen(as_json)
    screen.result(data_show.show(file, number, model if mask else None, _settings(), screen))


@data.command("split")
def data_split(
    file: DataFile,
    share: Annotated[float, typer.Option(help="Part that goes to the validation file.")] = 0.1,
    seed: Annotated[int, typer.Option(help="The same seed cuts the same way.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Cut a file in two beside it: NAME.train.jsonl and NAME.valid.jsonl."""
    from emojitune.cli import data_files

    screen = _screen(as_json)
    screen.result(data_files.split(file, share, seed, screen))


@jobs.command("list")
def jobs_list(provider: Provider = "local", home: Home = None, as_json: AsJson = False) -> None:
    """List jobs, newest first."""
    from emojitune.workflow.provider import provider_errors

    screen = _screen(as_json)
    with _connect(provider, home) as connection, provider_errors():
        found = list(connection.client.fine_tuning.jobs.list(limit=100))
    rows = [(job.id, job.status, job.model, job.fine_tuned_model or "") for job in found]
    screen.table(("job", "status", "base model", "fine-tuned model"), rows)
    screen.result([job.to_dict(mode="json") for job in found])


@jobs.command("show")
def jobs_show(
    job: JobId, provider: Provider = "local", home: Home = None, as_json: AsJson = False
) -> None:
    """Show all that is known of a job."""
    from emojitune.workflow.provider import provider_errors

    screen = _screen(as_json)
    with _connect(provider, home) as connection, provider_errors():
        found = connection.client.fine_tuning.jobs.retrieve(job).to_dict(mode="json")
    screen.fields(found)
    screen.result(found)


@jobs.command("follow")
def jobs_follow(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Draw a job until it ends; Ctrl-C leaves it running."""
    from emojitune.cli import run as conductor
    from emojitune.workflow.fine_tune import fine_tuned_model

    screen = _screen()
    settings = _settings(home=home)
    with _connect(provider, home) as connection:
        finished = conductor.follow(connection, job, settings, screen)
    screen.say(fine_tuned_model(finished))


@jobs.command("cancel")
def jobs_cancel(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Stop a job for good."""
    from emojitune.workflow.provider import provider_errors

    with _connect(provider, home) as connection, provider_errors():
        stopped = connection.client.fine_tuning.jobs.cancel(job)
    _screen().say(f"{stopped.id}: {stopped.status}")


@jobs.command("pause")
def jobs_pause(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Let a job rest; `resume` goes on from its last checkpoint."""
    from emojitune.workflow.provider import provider_errors

    with _connect(provider, home) as connection, provider_errors():
        paused = connection.client.fine_tuning.jobs.pause(job)
    _screen().say(f"{paused.id}: {paused.status}")


@jobs.command("resume")
def jobs_resume(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Put a paused job back into the queue."""
    from emojitune.workflow.provider import provider_errors

    with _connect(provider, home) as connection, provider_errors():
        resumed = connection.client.fine_tuning.jobs.resume(job)
    _screen().say(f"{resumed.id}: {resumed.status}")


@jobs.command("events")
def jobs_events(
    job: JobId,
    limit: Annotated[int, typer.Option(help="The last so many.", min=1)] = 50,
    provider: Provider = "local",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List a job's events, oldest first."""
    from emojitune.workflow.fine_tune import events

    screen = _screen(as_json)
    with _connect(provider, home) as connection:
        found = events(connection.client, job, limit=limit)
    for event in found:
        screen.say(f"{event.created_at} [{event.level}] {event.message}")
    screen.result([event.to_dict(mode="json") for event in found])


@jobs.command("plot")
def jobs_plot(
    job: JobId,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("training_curve.png"),
    provider: Provider = "local",
    home: Home = None,
) -> None:
    """Draw a job's loss, step by step, as a picture."""
    from emojitune.evaluation.report import CurvePoint, draw_training_curve
    from emojitune.workflow.fine_tune import events

    with _connect(provider, home) as connection:
        found = events(connection.client, job, limit=10_000)
    steps = [event.data for event in found if event.type == "metrics"]
    points = [
        CurvePoint(step["step"], step["train_loss"], step.get("full_valid_loss"))
        for step in steps
        if isinstance(step, dict)
    ]
    draw_training_curve(points, out, title=job)
    _screen().say(str(out))


@models.command("list")
def models_list(provider: Provider = "local", home: Home = None, as_json: AsJson = False) -> None:
    """List the models that a provider serves."""
    from emojitune.workflow.provider import provider_errors

    screen = _screen(as_json)
    with _connect(provider, home) as connection, provider_errors():
        found = list(connection.client.models.list())
    screen.table(("model", "owned by"), [(model.id, model.owned_by) for model in found])
    screen.result([model.to_dict(mode="json") for model in found])


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A catalog name, org/name@revision, or a folder.")],
) -> None:
    """Fetch a base model into the cache, so that no job has to wait for it."""
    from emojitune.models.download import pull

    settings = _settings()
    screen = _screen()
    with screen.counting() as count:
        folder = pull(name, settings, count)
    screen.say(str(folder))


@keys.command("create")
def keys_create(
    project: Annotated[
        str, typer.Option(help="What the key sees is this project's alone.")
    ] = "default",
    name: Annotated[str, typer.Option(help="Whose it is, for the list.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for a project; it is shown this once."""
    from emojitune.cli import keys as commands

    screen = _screen(as_json)
    screen.result(commands.create(project, name, _settings(home=home), screen))


@keys.command("list")
def keys_list(home: Home = None, as_json: AsJson = False) -> None:
    """List the keys that were made, without the keys themselves."""
    from emojitune.cli import keys as commands

    screen = _screen(as_json)
    screen.result(commands.list_keys(_settings(home=home), screen))


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id of a key: key_...")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once, on a running server too."""
    from emojitune.cli import keys as commands

    screen = _screen(as_json)
    screen.result(commands.revoke(key, _settings(home=home), screen))


# The helpers below return Any: naming their types would import what --help must not wait for.


def _screen(as_json: bool = False) -> Any:
    from emojitune.cli.render import Screen

    return Screen(as_json=as_json)


def _settings(**given: Any) -> Any:
    """Settings from the environment and from the options that were given."""
    from pydantic import ValidationError

    from emojitune.errors import ConfigurationError
    from emojitune.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise ConfigurationError(
            f"These settings cannot be used: {wrong}. "
            "Look at the command's options and at the EMOJITUNE_* environment variables."
        ) from None


def _connect(provider: str, home: Path | None) -> Any:
    from emojitune.workflow.provider import connect

    return connect(provider, _settings(home=home), ask_key=_ask_key)


def _ask_key(prompt: str) -> str:
    """The key typed by hand; nothing when there is no one to type it."""
    from getpass import getpass

    return getpass(prompt) if sys.stdin is not None and sys.stdin.isatty() else ""


if __name__ == "__main__":
    main()
