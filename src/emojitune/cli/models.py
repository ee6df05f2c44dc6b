"""Commands on models: `emojitune models ...`."""

from typing import Annotated

import typer

from emojitune.cli.context import AsJson, Home, Provider, connect_to, open_screen, read_settings

models = typer.Typer(
    help="Models of a provider, and base models on this disk.", no_args_is_help=True
)


@models.command("list")
def models_list(provider: Provider = "local", home: Home = None, as_json: AsJson = False) -> None:
    """List the models that a provider serves."""
    from emojitune.workflow.provider import provider_errors

    screen = open_screen(as_json)
    with connect_to(provider, home) as connection, provider_errors():
        listed = list(connection.client.models.list())
    screen.table(("model", "owned by"), [(model.id, model.owned_by) for model in listed])
    screen.result([model.to_dict(mode="json") for model in listed])


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A catalog name, org/name@revision, or a folder.")],
) -> None:
    """Download a base model into the cache, so that no job has to wait for it."""
    from emojitune.models.download import pull

    settings = read_settings()
    screen = open_screen()
    with screen.progress_bars() as update:
        folder = pull(name, settings, update)
    screen.say(str(folder))
