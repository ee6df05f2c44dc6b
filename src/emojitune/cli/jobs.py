"""Commands on fine-tuning jobs, of any provider: `emojitune jobs ...`."""

from pathlib import Path
from typing import Annotated

import typer

from emojitune.cli.context import (
    AsJson,
    Home,
    JobId,
    Provider,
    connect_to,
    location_options,
    open_screen,
    read_settings,
)
from emojitune.cli.invocation import command
from emojitune.cli.paths import expand_user
from emojitune.errors import InvalidRequestError

jobs = typer.Typer(help="Fine-tuning jobs of a provider.", no_args_is_help=True)


@jobs.command("list")
def jobs_list(provider: Provider = "local", home: Home = None, as_json: AsJson = False) -> None:
    """List jobs, newest first."""
    from emojitune.workflow.provider import provider_errors

    screen = open_screen(as_json)
    with connect_to(provider, home) as connection, provider_errors():
        listed = list(connection.client.fine_tuning.jobs.list(limit=100))
    rows = [(job.id, job.status, job.model, job.fine_tuned_model or "") for job in listed]
    screen.table(("job", "status", "base model", "fine-tuned model"), rows)
    screen.result([job.to_dict(mode="json") for job in listed])


@jobs.command("show")
def jobs_show(
    job: JobId, provider: Provider = "local", home: Home = None, as_json: AsJson = False
) -> None:
    """Show all fields of a job."""
    from emojitune.workflow.provider import provider_errors

    screen = open_screen(as_json)
    with connect_to(provider, home) as connection, provider_errors():
        fields = connection.client.fine_tuning.jobs.retrieve(job).to_dict(mode="json")
    screen.fields(fields)
    screen.result(fields)


@jobs.command("follow")
def jobs_follow(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Follow a job until it ends; Ctrl-C leaves it running."""
    from emojitune.cli import run as run_module
    from emojitune.workflow.fine_tune import fine_tuned_model

    screen = open_screen()
    settings = read_settings(home=home)
    with connect_to(provider, home) as connection:
        finished = run_module.follow(connection, job, settings, screen)
    screen.say(fine_tuned_model(finished))


@jobs.command("cancel")
def jobs_cancel(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Stop a job for good."""
    from emojitune.workflow.provider import provider_errors

    with connect_to(provider, home) as connection, provider_errors():
        stopped = connection.client.fine_tuning.jobs.cancel(job)
    open_screen().say(f"{stopped.id}: {stopped.status}")


@jobs.command("pause")
def jobs_pause(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Pause a job; `resume` continues from its last checkpoint."""
    from emojitune.workflow.provider import provider_errors

    with connect_to(provider, home) as connection, provider_errors():
        paused = connection.client.fine_tuning.jobs.pause(job)
    open_screen().say(f"{paused.id}: {paused.status}")


@jobs.command("resume")
def jobs_resume(job: JobId, provider: Provider = "local", home: Home = None) -> None:
    """Put a paused job back into the queue."""
    from emojitune.workflow.provider import provider_errors

    with connect_to(provider, home) as connection, provider_errors():
        resumed = connection.client.fine_tuning.jobs.resume(job)
    open_screen().say(f"{resumed.id}: {resumed.status}")


@jobs.command("events")
def jobs_events(
    job: JobId,
    limit: Annotated[int, typer.Option(help="Number of events, the latest ones.", min=1)] = 50,
    provider: Provider = "local",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """List a job's events, oldest first."""
    from emojitune.workflow.fine_tune import events

    screen = open_screen(as_json)
    with connect_to(provider, home) as connection:
        job_events = events(connection.client, job, limit=limit)
    for event in job_events:
        screen.event(event.created_at, event.level, event.message)
    screen.result([event.to_dict(mode="json") for event in job_events])


@jobs.command("plot")
def jobs_plot(
    job: JobId,
    out: Annotated[
        Path, typer.Option(help="The image file to write.", callback=expand_user)
    ] = Path("training_curve.png"),
    provider: Provider = "local",
    home: Home = None,
) -> None:
    """Plot a job's loss by step to an image file."""
    from emojitune.evaluation.plots import CurvePoint, draw_training_curve
    from emojitune.workflow.fine_tune import events

    with connect_to(provider, home) as connection:
        job_events = events(connection.client, job, limit=10_000)
    steps = [event.data for event in job_events if event.type == "metrics"]
    points = [
        CurvePoint(step["step"], step["train_loss"], step.get("full_valid_loss"))
        for step in steps
        if isinstance(step, dict)
    ]
    if not points:
        look = command("jobs", "show", job, *location_options(provider, read_settings(home=home)))
        raise InvalidRequestError(f"{job} has no steps to draw yet. Look at it: {look}")
    draw_training_curve(points, out, title=job)
    open_screen().say(str(out))
