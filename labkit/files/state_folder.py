"""Where the course lies and where it keeps what it builds."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

BUILT = ("rootfs", "vm")  # in the state folder: what set-up made or fetched, and nobody's progress
KEPT_NOTEBOOKS = "kept"  # in the state folder: copies of notebooks that a learner has worked in. No command deletes it.


def checkout() -> "Path":
    """The folder of the course: the one that holds `labs/`, `rootfs/` and this package."""
    from pathlib import Path  # imported here because the path that starts containers must not pay for it

    return Path(__file__).resolve().parents[2]


def state() -> "Path":
    """The folder for root filesystems, progress and logs: `$LABKIT_STATE`, or `.lab` in the checkout.

    It is not created here; who writes creates what they need.
    """
    from pathlib import Path

    override = os.environ.get("LABKIT_STATE")
    return Path(override) if override else checkout() / ".lab"


def state_folder() -> str:
    """The same as text, for the path that starts containers."""
    return os.environ.get("LABKIT_STATE") or _STATE


_STATE = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))), ".lab")
