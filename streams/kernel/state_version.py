"""The version of stored state: what is read is of one's own version, or refused."""

from __future__ import annotations

from collections.abc import Sequence


class StateVersionError(RuntimeError):
    """The state was written by another version of tocsin."""


def check_state_version(found: object, readable: Sequence[int], whose: str) -> None:
    """Raise StateVersionError unless `found` is among the versions that this release reads."""
    if found not in readable:
        versions = " and ".join(map(str, readable))
        raise StateVersionError(
            f"the {whose}'s state has version {found}, and this release of tocsin reads version {versions}: run the release "
            "that wrote it; a new TOCSIN_GROUP with `tocsin topics` and `tocsin deploy --again` starts anew from the log"
        )
