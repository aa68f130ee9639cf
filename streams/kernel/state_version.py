"""The version of stored state: what is read is of one's own version, or refused."""

from __future__ import annotations


class StateVersionError(RuntimeError):
    """The state was written by another version of tocsin."""


def check_state_version(found: object, readable: int, whose: str) -> None:
    """Raise StateVersionError unless `found` is the version that this release reads."""
    if found != readable:
        raise StateVersionError(
            f"the {whose}'s state has version {found}, and this release of tocsin reads version {readable}: run the release "
            "that wrote it; a new TOCSIN_GROUP with `tocsin topics` and `tocsin deploy --again` starts anew from the log"
        )
