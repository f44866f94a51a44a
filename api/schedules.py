"""What clients send about schedules, and the shapes of the answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent_core.types import Json
from api.schemas import BudgetIn, Input, Metadata, Strict, Tags, Time, WebhookIn, Word, check_output_schema
from api.views import BudgetView
from jobs.records import Priority, Service
from jobs.schedules import OWN_FIELDS, Overlap, ScheduleSpec, State
from jobs.slots import CatchUp, Outcome

DAY = 86_400
Expression = Annotated[str, Field(min_length=1, max_length=200, examples=["0 9 * * MON-FRI", "@every 15m"])]
AgentName = Annotated[str, Field(min_length=1, max_length=64)]


class ScheduleIn(Strict):
    """When to submit a job, and which one. Texts of the input may hold `{{ scheduled_at }}` and what else there is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "agent": "analyst", "input": "What happened?"}
            ]
        }
    )

    cron: Expression
    agent: AgentName
    input: Input
    name: Word | None = None
    timezone: Annotated[str, Field(min_length=1, max_length=64, examples=["Europe/Berlin"])] = "UTC"
    overlap: Overlap = "skip"
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 1
    catch_up: CatchUp = "last"
    catch_up_window: Annotated[int, Field(ge=60, le=366 * DAY, description="In seconds.")] = DAY
    jitter: Annotated[int, Field(ge=0, le=DAY, description="In seconds.")] = 0
    ends_at: Time | None = None
    max_runs: Annotated[int, Field(ge=1, le=10**9)] | None = None
    session_id: Word | None = None
    user: Word | None = None
    priority: Priority = "default"
    service: Service = "standard"
    budget: Annotated[BudgetIn | None, Field(description="Of each job.")] = None
    webhook: WebhookIn | None = None
    tags: Tags = Field(default_factory=list)
    metadata: Metadata = Field(default_factory=dict)
    output_schema: Annotated[dict[str, Any] | None, AfterValidator(check_output_schema)] = None

    def spec(self) -> ScheduleSpec:
        """What is asked for."""
        return ScheduleSpec.of(self.model_dump() | {"budget": self.budget and self.budget.changes()})


class ScheduleChange(ScheduleIn):
    """What is to be changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cron": "0 10 * * MON-FRI"}]})

    cron: Expression = ""
    agent: AgentName = ""
    input: Input = ""

    def changes(self, job: Json) -> Json:
        """The fields of a ScheduleSpec that change, with `job` as it then is."""
        given = self.model_dump(exclude_unset=True)
        own = {name: value for name, value in given.items() if name in OWN_FIELDS}
        return {**own, "job": job | {name: value for name, value in given.items() if name not in OWN_FIELDS}}


class ScheduleView(BaseModel):
    """A schedule. `id` and `created_at` are null for one that was not saved."""

    id: str | None
    object: Literal["schedule"]
    name: str | None
    cron: str
    timezone: str
    state: State
    overlap: Overlap
    concurrency: int
    catch_up: CatchUp
    catch_up_window: int
    jitter: int
    ends_at: str | None
    max_runs: int | None
    runs: int = Field(description="Slots that fired, of the clock's.")
    declared: bool = Field(description="Whether an agents module declares it: it is changed there.")
    agent: str
    input: Any
    session_id: str | None
    user: str | None
    priority: Priority
    service: Service
    budget: BudgetView | None
    webhook: dict[str, Any] | None
    tags: list[str]
    metadata: dict[str, Any]
    output_schema: dict[str, Any] | None
    next_runs: list[str] = Field(description="The next ten times, without jitter.")
    created_at: str | None


class SlotView(BaseModel):
    """A row of the slot ledger."""

    slot: str
    scheduled_at: str
    due_at: str = Field(description="With the slot's jitter.")
    handled_at: str
    outcome: Outcome
    reason: str | None
    job_id: str | None
