"""Starts the roles that need no algorithm. Called by ``train.py`` with the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tasks.config import TaskConfig
from tasks.remote.config import RemoteConfig
from tasks.roles.config import CheckConfig, DriveConfig, RecordConfig
from tasks.words.command_line import CommandLine, Role

_DRIVING_ROLES = (Role.record, Role.drive, Role.check)


class RoleConfig(Protocol):
    """The part of a run's configuration that these roles read."""

    task: Any
    record: RecordConfig
    drive: DriveConfig
    check: CheckConfig
    remote: RemoteConfig
    headless: bool


def run(role: Role, config: RoleConfig, runs: Path) -> int:
    """Runs the role until it is done or interrupted.

    Args:
        role: record, drive, check or server.
        config: The configuration, its game decided.
        runs: Folder of all runs.

    Returns:
        The exit code.

    Raises:
        ValueError: What was asked for cannot be done.
        GameError: The live game cannot be used.
    """
    task: TaskConfig = config.task
    if role in _DRIVING_ROLES and not isinstance(task, TaskConfig):
        raise ValueError(f"--{role.value} is for TrackMania tasks (TM20...), got task {config.task.name!r}")
    if role is Role.record:
        from tasks.roles.record import record

        record.run(task, config.record, config.drive, headless=config.headless, runs=runs)
    elif role is Role.drive:
        from tasks.roles.drive import drive

        drive.run(task, config.drive, config.record, headless=config.headless, runs=runs)
    elif role is Role.check:
        from tasks.roles.check import check

        check.run(task, config.check, headless=config.headless, runs=runs)
    elif role is Role.server:
        from tasks.remote.relay import relay

        return relay.run(config.remote, headless=config.headless)
    else:
        raise ValueError(f"role must be record, drive, check or server, got {role.value}")
    return 0


def run_without_configuration(line: CommandLine, runs: Path) -> str:
    """Installs the plugin, makes credentials, fits the car, or writes a report; returns what was done, for people.

    Args:
        line: What was typed; its role is install_plugin, make_credentials, calibrate or report.
        runs: Folder of all runs.

    Raises:
        ValueError: It cannot be done.
    """
    if line.role is Role.install_plugin:
        from tasks.live.plugin_install import install_plugin

        return install_plugin(Path(line.folder) if line.folder else None)
    if line.role is Role.calibrate:
        from tasks.roles.calibrate import calibrate

        return calibrate.run(line.files, runs)
    if line.role is Role.report:
        from tasks.roles.report import report

        return report.run(line.runs, runs)
    from tasks.remote.access.credentials import make_credentials

    if line.folder is None:
        raise ValueError("--make-credentials needs a folder, such as --make-credentials credentials")
    return make_credentials(line.folder, line.hosts, line.workers)
