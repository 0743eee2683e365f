"""The environment of the programs that are run for the daemon."""

import os
import re
from collections.abc import Collection

# Where programs are found, whose files are the user's own, language, time zone, and where the
# user's sound server listens. Nothing else: the environment of a service is a usual place for the
# tokens and passwords of all its other channels.
_KEPT = re.compile(r"PATH|HOME|LANG|LANGUAGE|LC_[A-Z]+|TZ|XDG_RUNTIME_DIR")


def bare_environment(also: Collection[str] = ()) -> dict[str, str]:
    """Give the variables of this process that any program may see, and those named in ``also``."""
    return {
        name: value for name, value in os.environ.items() if _KEPT.fullmatch(name) or name in also
    }
