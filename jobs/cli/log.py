"""What services write to standard error."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.settings import Settings


def log_to_stderr(settings: "Settings") -> None:
    """A line for each message, from the settings' level on."""
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=settings.log_level.upper(), format=form, force=True)
