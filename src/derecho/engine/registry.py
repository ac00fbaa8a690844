"""What an engine can do: its workflows by type and version, its activities by name, the queues that it serves."""

import logging
from collections.abc import Sequence
from typing import TypeVar

from derecho.activity import ActivityDefinition
from derecho.errors import DefinitionError
from derecho.journal.model import kind_of
from derecho.journal.payloads import Converter
from derecho.lint import lint
from derecho.queues import Queue
from derecho.workflow import WorkflowDefinition

D = TypeVar("D")

log = logging.getLogger("derecho.lint")


class Registry:
    """Definitions whose types the engine's codec has been asked about, so that an impossible one fails at once.

    The queues are those that the definitions name, and "default"; `queues` narrows that.
    """

    def __init__(
        self,
        converter: Converter,
        queues: Sequence[Queue] | None = None,
        workflows: Sequence[WorkflowDefinition] = (),
        activities: Sequence[ActivityDefinition] = (),
    ) -> None:
        self.converter = converter
        self._narrowed = None if queues is None else frozenset(queue.name for queue in queues)
        self._named = frozenset({"default"})
        self.workflows: dict[str, dict[int, WorkflowDefinition]] = {}
        self.activities: dict[str, ActivityDefinition] = {}
        for workflow in _listed("workflows", workflows):
            self.add_workflow(workflow)
        for activity in _listed("activities", activities):
            self.add_activity(activity)

    def add_workflow(self, workflow: WorkflowDefinition) -> None:
        if not isinstance(workflow, WorkflowDefinition):
            raise DefinitionError(f"workflows= takes what @derecho.workflow made, not {workflow!r}")
        _refuse_reference(workflow, workflow.is_reference)
        versions = self.workflows.get(workflow.name, {})
        if versions.get(workflow.version, workflow) is not workflow:
            raise DefinitionError(
                f"two workflows are registered as {workflow.name!r}, version {workflow.version}: rename one, "
                "or give the newer one another version"
            )
        workflow.signature.check(self.converter)
        for finding in lint(workflow):
            log.warning("workflow %r may not replay: %s", workflow.name, finding)
        if self._narrowed is None or workflow.queue_name in self._narrowed:
            versions = self.workflows.setdefault(workflow.name, {})
            versions[workflow.version] = workflow
        self._named |= {workflow.queue_name}

    def add_activity(self, activity: ActivityDefinition) -> None:
        if not isinstance(activity, ActivityDefinition):
            raise DefinitionError(f"activities= takes what @derecho.activity made, not {activity!r}")
        _refuse_reference(activity, activity.is_reference)
        if self.activities.get(activity.name, activity) is not activity:
            raise DefinitionError(f"two activities are registered as {activity.name!r}: rename one")
        activity.signature.check(self.converter)
        self.activities[activity.name] = activity
        self._named |= {activity.queue_name}

    def queues(self) -> frozenset[str]:
        """The queues from which this engine takes activities."""
        return self._named if self._narrowed is None else self._narrowed

    def activity(self, name: str, queue: str) -> ActivityDefinition | None:
        """The code for an activity on this queue, if this engine may run it."""
        return self.activities.get(name) if queue in self.queues() else None

    def names(self, *, in_process: bool) -> list[str]:
        """The activities that run in child processes, or all others."""
        return [name for name, found in self.activities.items() if (found.run_in == "process") is in_process]

    def find(self, workflow_type: str, version: int) -> WorkflowDefinition | str:
        """The code for a run, or why there is none here."""
        versions = self.workflows.get(workflow_type)
        if versions is None:
            names = ", ".join(map(repr, sorted(self.workflows))) or "none"
            return f"workflow type {workflow_type!r} is not registered here; registered: {names}"
        found = versions.get(version)
        if found is None:
            have = ", ".join(str(number) for number in sorted(versions))
            return f"workflow {workflow_type!r} is registered in version {have}, and this run needs version {version}"
        return found

    def kinds(self) -> list[str]:
        """The runs that this engine may claim: of each version, those who have its code."""
        return [kind_of(name, version) for name, versions in self.workflows.items() for version in versions]

    def serves(self) -> list[str]:
        """What goes into the worker row, so that a run can say that nobody serves what it waits for."""
        served = [f"workflow:{kind}" for kind in self.kinds()] + [f"activity:{name}" for name in self.activities]
        return served + [f"queue:{name}" for name in sorted(self.queues())]


def _listed(name: str, given: Sequence[D]) -> Sequence[D]:
    if isinstance(given, (WorkflowDefinition, ActivityDefinition)):
        raise DefinitionError(f"{name}= takes a list: {name}=[{given.__name__}]")
    return given


def _refuse_reference(definition: object, is_reference: bool) -> None:
    if is_reference:
        raise DefinitionError(f"{definition!r} is only a reference: register the definition that has the code")
