"""The tasks of the frameworks, as people find them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Task(BaseModel):
    """Which task of a framework has made a call, or waits.

    Attributes:
        framework: whose task it is.
        workflow: the Dag's id, or the flow's name.
        name: the task's, as people know it.
        ids: what the framework finds it by: `dag_id`, `run_id`, `task_id` and `map_index`, or `flow_run_id`
            and `task_run_id`.
    """

    model_config = ConfigDict(frozen=True)

    framework: Literal["airflow", "prefect"]
    workflow: str
    name: str
    ids: dict[str, str | int]

    @classmethod
    def read(cls, text: str | None) -> Task | None:
        """The task that JSON names; `None` if there is none."""
        return None if text is None else cls.model_validate_json(text)

    def as_text(self) -> str:
        """Workflow and task."""
        return f"{self.workflow} · {self.name}" if self.name else self.workflow
