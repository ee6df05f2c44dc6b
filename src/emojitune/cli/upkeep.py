"""`emojitune doctor` and `emojitune backup`: maintenance of a home folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.invocation import as_invoked, command
from emojitune.cli.render import Screen
from emojitune.disk import is_open_to_others
from emojitune.jobs import doctor
from emojitune.models.torch_environment import import_libraries
from emojitune.settings import Settings
from emojitune.store.backup import back_up


def examine(settings: Settings, *, repair: bool, screen: Screen) -> tuple[dict[str, Any], bool]:
    """Show and optionally repair the findings; return them for --json, and whether none is left."""
    import_libraries()
    from emojitune.inference.decoding.knn import verify

    findings = doctor.examine(settings, verify=verify)
    remaining = doctor.repair(findings, settings) if repair else findings
    for finding in findings:
        screen.say(f"{finding.area}: {as_invoked(finding.problem)}", style="yellow")
        if finding.repair:
            screen.say(f"  {'Repaired' if repair else '--repair would'}: {finding.repair}")
    screen.say(f"{settings.home}: {len(findings)} finding(s), {len(remaining)} left")
    findings_json = [
        {
            "area": finding.area,
            "found": finding.problem,
            "repair": finding.repair,
            "repaired": finding not in remaining,
        }
        for finding in findings
    ]
    return {"home": str(settings.home), "findings": findings_json}, not remaining


def backup(settings: Settings, target: Path, screen: Screen) -> dict[str, Any]:
    """Copy the home folder and return a summary of the copy for --json."""
    copied = back_up(settings.home, target)
    for path in copied.missing:
        screen.say(f"{path} is not in the home folder: it is missing in the copy too", style="red")
    if is_open_to_others(target):
        screen.say(
            f"The file system of {target} has no permissions: whoever has access to it can "
            "read the backup",
            style="yellow",
        )
    screen.say(
        f"Copied the database, {copied.files} file(s) and {copied.adapters} adapter(s) to "
        f"{target}. To restore it: {command('serve', '--home', target)}"
    )
    return {"target": str(target), **asdict(copied)}
