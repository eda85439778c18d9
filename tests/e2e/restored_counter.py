"""A counter whose tables are restored to an earlier time, for the rehearsal of the runbook."""

import json
import uuid
from typing import Any

from tests import conformance
from tests.e2e.producer import Producer
from tests.e2e.service import Caller, client, physical_name

from deployment import Stack


class RestoredCounter:
    """A counter with keyed requests and messages before and after the time of the restore."""

    PATH = "/counters/restored"
    LOST = (("restored", "6", "7"), ("restored", "7", "100"))  # name, version and `by`

    def __init__(self, stack: Stack, caller: Caller, producer: Producer) -> None:
        self.stack, self.caller, self.producer = stack, caller, producer
        self.early_key, self.late_key = str(uuid.uuid4()), str(uuid.uuid4())
        self.early_answer: Any = None
        self.at_the_time: Any = None

    def count_before(self) -> None:
        """Make five changes. Then the history lacks the last three of them."""
        self.early_answer = self.keyed(self.early_key)
        self.send(1)
        assert self.producer.value("restored", 8) == 8
        assert len(self.caller.history(self.PATH, 2)) == 2
        self.record_history(runs=False)
        for _ in range(3):
            self.at_the_time = self.caller.post(self.PATH).body
        assert (self.at_the_time["value"], self.at_the_time["version"]) == (11, 5)
        assert len(self.caller.get(f"{self.PATH}/history").body) == 2

    def count_after(self) -> None:
        """Make changes that the restore must lose."""
        self.keyed(self.late_key)
        self.send(100)
        assert self.producer.value("restored", 118) == 118
        assert len(self.caller.whole_history(self.PATH)) == 7

    def park_a_lost_change(self) -> None:
        """Put the record of a lost change into the dead-letter queue of the history."""
        change = {name: {"S": name} for name in ("actor", "request_id")}
        image = {
            "counter_id": {"S": "restored"},
            "value": {"N": "12"},
            "version": {"N": "6"},
            "created_at": {"S": self.at_the_time["created_at"]},
            "change": {
                "M": {
                    **change,
                    "operation": {"S": "increment"},
                    "at": {"S": self.at_the_time["updated_at"]},
                }
            },
        }
        old = {"value": {"N": "11"}, "version": {"N": "5"}}
        client(self.stack, "sqs").send_message(
            QueueUrl=self.stack.outputs["HistoryDeadLetterQueueUrl"],
            MessageBody=json.dumps({"dynamodb": {"NewImage": image, "OldImage": old}}),
        )

    def assert_as_at_the_time(self) -> None:
        assert self.caller.get(self.PATH).body == self.at_the_time
        assert len(self.caller.whole_history(self.PATH)) == 5

    def assert_counts_again(self) -> None:
        """Check the keys, and that the message of 1000 that waited is counted once."""
        assert self.producer.value("restored", 1011) == 1011
        assert self.keyed(self.early_key) == self.early_answer
        assert self.keyed(self.late_key)["value"] == 1018
        assert self.keyed(self.late_key)["value"] == 1018
        assert len(self.caller.whole_history(self.PATH)) == 7

    def keyed(self, key: str) -> Any:  # noqa: ANN401  JSON
        body = json.dumps({"by": 7})
        answer = self.caller.request("POST", self.PATH, body, {"Idempotency-Key": key})
        assert answer.status == 200, answer
        return answer.body

    def send(self, by: int) -> None:
        self.producer.send("restored", {"counter_id": "restored", "by": by})

    def record_history(self, *, runs: bool) -> None:
        """Let RecordHistory run, or not."""
        name, lambda_ = physical_name(self.stack, "RecordHistory"), client(self.stack, "lambda")
        if runs:
            lambda_.delete_function_concurrency(FunctionName=name)
        else:
            lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    def can_count(self) -> bool:
        """Return whether a request to count succeeds."""
        try:
            return self.caller.post(self.PATH).status == 200
        except conformance.ContractError:  # the emulator's own answer if a function must not run
            return False
