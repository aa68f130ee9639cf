"""The deploy protocol on `mcp.rules`: what the topic says, what a deploy would change, and the deploy itself.

    rule/<revision>              the document of a rule
    ruleset/<id>                 {"id", "rules": {name: revision}}
    deploy/<seq>/<uuid>          {"seq", "id", "based_on"}: an intent; of one seq the one with the lowest offset wins
    deployed/<seq>               {"seq", "id"}: the ruleset records stand on every partition of the event topic

The ruleset of the last winning intent is the current one, finished or not: from its intent on, partitions may judge by it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.rule import Rule, Ruleset
from streams.records import Incoming
from streams.topics import EVENTS

KEEP: Final = int(EVENTS.config["retention.ms"])
"""Milliseconds for which a document outlives its last use: events this old may still be replayed."""


class DeployError(RuntimeError):
    """A deploy that is refused; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """The winning intent of `seq`. `claim` is the key of its record, `at` its timestamp in milliseconds."""

    seq: int
    id: str
    based_on: str | None
    claim: str
    at: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a deploy does to the current ruleset: names of rules, and of a changed rule the fields."""

    added: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done for `ruleset` to be active.

    `claims`: an intent is written; otherwise deploy `seq` stands already and is completed. `is_done`: nothing is to do.
    """

    ruleset: Ruleset
    change: Change
    seq: int
    based_on: str | None
    claims: bool
    is_done: bool


class RulesetLog:
    """The records of `mcp.rules`, folded in offset order."""

    def __init__(self) -> None:
        self._documents: dict[str, Any] = {}
        self._written: dict[str, int] = {}
        self._deploys: dict[int, Deploy] = {}
        self._finished: set[int] = set()
        self.unreadable: list[str] = []
        """What could not be read: offset and key."""

    def fold(self, record: Incoming) -> None:
        """Take in the next record; one that is no part of the protocol is listed in `unreadable`."""
        try:
            self._fold(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            self.unreadable.append(f"offset {record.offset}, key {record.key!r}"[:200])

    def _fold(self, record: Incoming) -> None:
        key = (record.key or b"").decode()
        kind, number = key.split("/")[:2]
        if record.value is None:
            self._documents.pop(key, None)
            self._written.pop(key, None)
            return
        document = json.loads(record.value)
        if not isinstance(document, dict):
            raise TypeError("no JSON object")
        match kind:
            case "rule":
                self._documents[key] = document
            case "ruleset":
                self._documents[key] = {str(name): str(revision) for name, revision in dict(document["rules"]).items()}
            case "deploy":
                won = Deploy(int(number), str(document["id"]), document["based_on"], key, record.timestamp)
                self._deploys.setdefault(won.seq, won)
            case "deployed":
                self._finished.add(int(number))
            case _:
                raise ValueError(kind)
        self._written[key] = record.timestamp

    @property
    def current(self) -> Deploy | None:
        """The last deploy, finished or not."""
        return self._deploys[max(self._deploys)] if self._deploys else None

    def winner(self, seq: int) -> Deploy | None:
        """The deploy that won `seq`."""
        return self._deploys.get(seq)

    def is_finished(self, deploy: Deploy) -> bool:
        """Whether its ruleset records stand on every partition."""
        return deploy.seq in self._finished

    def manifest(self, id: str) -> Mapping[str, str] | None:
        """Name and revision of the rules of a ruleset."""
        manifest: Mapping[str, str] | None = self._documents.get(f"ruleset/{id}")
        return manifest

    def document(self, revision: str) -> Mapping[str, Any] | None:
        """The document of a rule."""
        document: Mapping[str, Any] | None = self._documents.get(f"rule/{revision}")
        return document

    def rules(self, deploy: Deploy) -> list[Rule]:
        """The rules of a deploy. Raises ValueError where a document is missing or not readable by this version."""
        documents = {revision: self.document(revision) for revision in (self.manifest(deploy.id) or {}).values()}
        missing = [revision for revision, document in documents.items() if document is None]
        if missing or self.manifest(deploy.id) is None:
            raise ValueError(f"documents of ruleset {deploy.id} are missing: {', '.join(missing) or 'its manifest'}")
        return [Rule.model_validate(document) for document in documents.values()]

    def change(self, ruleset: Ruleset, *, replace: bool = False) -> Change:
        """What deploying `ruleset` changes.

        Raises DeployError where the manifest of the current ruleset is missing; with `replace` it counts as empty.
        """
        before: Mapping[str, str] = {}
        if self.current is not None:
            known = self.manifest(self.current.id)
            if known is None and not replace:
                raise DeployError(
                    f"the manifest of the current ruleset {self.current.id} (deploy {self.current.seq}) is missing, so it cannot "
                    "be said what this deploy would remove; give --prune to put these rules in place of whatever it held"
                )
            before = known or {}
        after = {rule.name: rule for rule in ruleset.rules}
        return Change(
            added=tuple(sorted(after.keys() - before.keys())),
            changed={
                name: self._fields(before[name], after[name])
                for name in sorted(after.keys() & before.keys())
                if before[name] != after[name].revision
            },
            removed=tuple(sorted(before.keys() - after.keys())),
        )

    def _fields(self, revision: str, rule: Rule) -> tuple[str, ...]:
        before, after = self.document(revision) or {}, rule.document()
        return tuple(name for name in after if before.get(name) != after[name])

    def lacks(self, ruleset: Ruleset, now: int) -> list[tuple[str, bytes]]:
        """Documents and manifest of `ruleset` that the topic lacks, or that are old enough to be taken for unused soon."""
        records = [(f"rule/{rule.revision}", rule.document()) for rule in ruleset.rules]
        manifest = {"id": ruleset.id, "rules": {rule.name: rule.revision for rule in ruleset.rules}}
        records.append((f"ruleset/{ruleset.id}", manifest))
        fresh = {key for key, at in self._written.items() if at >= now - KEEP // 2}
        return [(key, to_json(document)) for key, document in records if key not in fresh]

    def unused(self, now: int) -> list[str]:
        """Keys of documents that no ruleset has used for KEEP, manifests first. `now` in milliseconds."""
        deploys = [self._deploys[seq] for seq in sorted(self._deploys)]
        used = {deploy.id for deploy in deploys[-1:]}
        used |= {deploy.id for deploy, following in itertools.pairwise(deploys) if following.at > now - KEEP}
        old = {key for key, at in self._written.items() if at <= now - KEEP}
        manifests = {key for key in self._documents if key.startswith("ruleset/")}
        gone = {key for key in manifests & old if key.removeprefix("ruleset/") not in used}
        revisions = {f"rule/{revision}" for key in manifests - gone for revision in self._documents[key].values()}
        return sorted(gone) + sorted(key for key in self._documents.keys() & old - manifests if key not in revisions)


def plan_deploy(
    log: RulesetLog, ruleset: Ruleset, *, prune: bool = False, based_on: str | None = None, again: bool = False
) -> Plan:
    """What a deploy of `ruleset` has to do.

    `based_on` names the ruleset that the caller takes for the current one. `again` completes a deploy that is finished
    already once more. Raises DeployError for another current ruleset, and for removals without `prune`.
    """
    current = log.current
    same = current is not None and current.id == ruleset.id
    is_finished = current is not None and log.is_finished(current)
    bases: set[str | None] = {current.id} if current else set()
    if current and same and not is_finished:
        bases.add(current.based_on)
    if based_on is not None and based_on not in bases:
        raise DeployError(came_between(based_on, current))
    change = log.change(ruleset, replace=prune)
    if change.removed and not prune:
        raise DeployError(
            f"this would remove {len(change.removed)} of the active rules: {', '.join(change.removed)}. "
            "Give --prune if they are to go (what they have firing is resolved), or name the folder they are in as well"
        )
    if current is not None and same:
        return Plan(ruleset, change, current.seq, current.based_on, claims=False, is_done=is_finished and not again)
    seq = current.seq + 1 if current else 1
    return Plan(ruleset, change, seq, current.id if current else None, claims=True, is_done=False)


def came_between(based_on: str | None, current: Deploy | None) -> str:
    """The message for a deploy that was overtaken."""
    there = f"ruleset {current.id} (deploy {current.seq}) is the current one" if current else "no ruleset is deployed"
    return (
        f"another deploy came between: this one is based on {based_on or 'no ruleset'}, and {there}. "
        "Nothing was switched; look at what changed, and deploy again"
    )


def to_json(document: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
