"""`emojitune doctor` and `emojitune backup`: looking after a home folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.program import as_called, command
from emojitune.cli.render import Screen
from emojitune.disk import is_open_to_others
from emojitune.jobs import doctor
from emojitune.models.torch_environment import import_libraries
from emojitune.settings import Settings
from emojitune.store.backup import back_up


def examine(settings: Settings, *, repair: bool, screen: Screen) -> tuple[dict[str, Any], bool]:
    """Tell what is wrong, and repair it if asked to; returns that, and whether nothing is left."""
    import_libraries()
    from emojitune.inference.decoding.knn import verify

    findings = doctor.examine(settings, verify=verify)
    left = doctor.repair(findings, settings) if repair else findings
    for one in findings:
        screen.say(f"{one.area}: {as_called(one.found)}", style="yellow")
        if one.repair:
            screen.say(f"  {'Repaired' if repair else '--repair would'}: {one.repair}")
    screen.say(f"{settings.home}: {len(findings)} finding(s), {len(left)} left")
    shown = [
        {"area": one.area, "found": one.found, "repair": one.repair, "repaired": one not in left}
        for one in findings
    ]
    return {"home": str(settings.home), "findings": shown}, not left


def backup(settings: Settings, target: Path, screen: Screen) -> dict[str, Any]:
    """Copy the home folder, and tell what is in the copy."""
    made = back_up(settings.home, target)
    for path in made.missing:
        screen.say(f"{path} is not in the home folder: it is missing in the copy too", style="red")
    if is_open_to_others(target):
        screen.say(
            f"The file system of {target} keeps no permissions: whoever gets at it can read the "
            "backup",
            style="yellow",
        )
    screen.say(
        f"Copied the database, {made.files} file(s) and {made.adapters} adapter(s) to {target}. To "
        f"go on from there: {command('serve', '--home', target)}"
    )
    return {"target": str(target), **asdict(made)}
