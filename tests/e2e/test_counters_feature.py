from pytest_bdd import given, parsers, scenarios, then, when
from tests.e2e.service import Answer, Caller, run_clients

from deployment import Stack

scenarios("counters.feature")


@given(parsers.parse("{path} stands at 0"), target_fixture="path")
def stands_at_0(caller: Caller, path: str) -> str:
    if caller.get(path).body["value"] != 0:
        caller.put(path, value=0)
    return path


@when("a user increments it", target_fixture="answer")
def increment(caller: Caller, path: str) -> Answer:
    return caller.post(path)


@when("a user gets it", target_fixture="answer")
def get(caller: Caller, path: str) -> Answer:
    return caller.get(path)


@when(parsers.parse("a user updates it to {value:d}"), target_fixture="answer")
def update(caller: Caller, path: str, value: int) -> Answer:
    return caller.put(path, value=value)


@when(parsers.parse("{users:d} users add {by:d} to it concurrently, {times:d} times each"))
def add_concurrently(stack: Stack, path: str, users: int, by: int, times: int) -> None:
    def add(user: Caller, _number: int) -> list[Answer]:
        return [user.post(path, by=by) for _ in range(times)]

    answers = run_clients(stack, ["counters/increment"], users, add)
    assert {answer.status for answer in answers} == {200}


@then(parsers.parse("the answer is {value:d}"))
def answer_is(answer: Answer, value: int) -> None:
    assert (answer.status, answer.body["value"]) == (200, value)


@then(parsers.parse("it stands at {value:d}"))
def it_stands_at(caller: Caller, path: str, value: int) -> None:
    assert caller.get(path).body["value"] == value
