"""Step Functions: runs the state machine of the template, and calls the functions as tasks.

It knows only the kinds of states and the fields that the template uses. Others are errors. It runs
the items of a map one after another. A state of the type Wait calls `clock.sleep`.
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from tests.aws_template import TEMPLATE
from tests.wire import Killed

from counters import clock

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MOST_BYTES = 256 * 1024  # of the input and the output of a state

# Neither Retry nor Catch with States.ALL applies to these errors.
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
TERMINAL = {DATA_LIMIT_EXCEEDED, "States.Runtime"}

Call = Callable[[str, Any], Any]


class FailedError(Exception):
    """The execution ended in a state of the type Fail."""


class StatesError(Exception):
    """An error that Step Functions reports. Its argument is its name, such as States.Runtime."""


def states(name: str) -> Any:  # noqa: ANN401
    """Return the states of a state machine, by name."""
    return TEMPLATE["Resources"][name]["Properties"]["Definition"]["States"]


def retries(name: str, state: str, error: str = "States.ALL") -> int:
    """Return how often a state of a state machine repeats a task after an error."""
    (most,) = (
        retrier["MaxAttempts"]
        for retrier in states(name)[state]["Retry"]
        if error in retrier["ErrorEquals"]
    )
    return int(most)


def run(name: str, call: Call) -> Any:  # noqa: ANN401  any JSON value
    """Run an execution of a state machine, and return its output.

    Args:
        name: the logical id of the state machine.
        call: invokes a function. Its arguments are the function's logical id and the event. If it
            raises an exception, the task fails.

    Raises:
        FailedError: if the execution ended in a state of the type Fail.
        Exception: if a task failed, was retried as often as the template says, and no state caught
            the error.
    """
    return _run(TEMPLATE["Resources"][name]["Properties"]["Definition"], {}, call)


def _run(machine: Mapping[str, Any], data: Any, call: Call) -> Any:  # noqa: ANN401
    name: str | None = machine["StartAt"]
    while name:
        state = dict(machine["States"][name])
        data, following = _STATES[state.pop("Type")](state, _passed(data), call)
        assert not state, f"{name}: unknown fields {state}"
        name = following
    return _passed(data)


def _passed(data: Any) -> Any:  # noqa: ANN401
    """Return data as Step Functions passes them from a state to the next: as JSON."""
    text = json.dumps(data)
    if len(text) > MOST_BYTES:
        raise StatesError(DATA_LIMIT_EXCEEDED)
    return json.loads(text)


def _name(error: BaseException) -> str:
    match error:
        case StatesError():
            return str(error)
        case Killed():
            return "Lambda.Unknown"
    return type(error).__name__


def _matching(fields: list[dict[str, Any]], error: str) -> dict[str, Any] | None:
    """Return the first retrier or catcher for an error."""
    for each in fields:
        names = each["ErrorEquals"]
        if error in names or (names == ["States.ALL"] and error not in TERMINAL):
            return each
    return None


def _caught(
    error: BaseException,
    catchers: list[dict[str, Any]],
    data: Any,  # noqa: ANN401
) -> tuple[Any, str]:
    """Return the output of a state with an error, and the next state. Raise it if none follows."""
    catcher = _matching(catchers, _name(error))
    if catcher is None:
        raise error
    caught = {"Error": _name(error), "Cause": str(error)}
    return _placed(caught, data, catcher["ResultPath"]), catcher["Next"]


def _task(state: dict[str, Any], data: Any, call: Call) -> tuple[Any, str]:  # noqa: ANN401
    function = state.pop("Resource").strip("${}")
    event = _selected(state.pop("Parameters"), data, {})
    retriers, catchers = state.pop("Retry"), state.pop("Catch", [])
    path, following = state.pop("ResultPath", "$"), state.pop("Next")
    repeated = Counter[int]()
    while True:
        try:
            return _placed(call(function, _passed(event)), data, path), following
        except (Exception, Killed) as error:  # noqa: BLE001  any error of the task
            retrier = _matching(retriers, _name(error))
            if retrier is None or repeated[id(retrier)] == retrier["MaxAttempts"]:
                return _caught(error, catchers, data)
            repeated[id(retrier)] += 1


def _map(state: dict[str, Any], data: Any, call: Call) -> tuple[Any, str]:  # noqa: ANN401
    processor = dict(state.pop("ItemProcessor"))
    assert processor.pop("ProcessorConfig") == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert state.pop("Label")
    selector, items = state.pop("ItemSelector"), _at(state.pop("ItemsPath"), data)
    tolerated, catchers = state.pop("ToleratedFailurePercentage", 0), state.pop("Catch", [])
    path, following = state.pop("ResultPath"), state.pop("Next")
    results, failed = [], 0
    for item in items:
        start = _selected(selector, data, {"Map": {"Item": {"Value": item}}})
        try:
            results.append(_run(processor, start, call))
        except (Exception, Killed) as error:  # noqa: BLE001  any error of the child execution
            failed += 1
            # https://docs.aws.amazon.com/step-functions/latest/dg/input-output-resultwriter.html
            failure = {"Status": "FAILED", "Error": _name(error), "Input": json.dumps(start)}
            results.append(failure)
    if 100 * failed > tolerated * len(items):
        return _caught(StatesError("States.ExceedToleratedFailureThreshold"), catchers, data)
    return _placed(results, data, path), following


def _choice(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, str]:  # noqa: ANN401
    following = state.pop("Default")
    (rule,) = state.pop("Choices")
    if _at(rule["Variable"], data) is rule["BooleanEquals"]:
        following = rule["Next"]
    return data, following


def _wait(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, str]:  # noqa: ANN401
    clock.sleep(state.pop("Seconds"))
    return data, state.pop("Next")


def _pass(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, str]:  # noqa: ANN401
    return _placed(_at(state.pop("InputPath"), data), data, state.pop("ResultPath")), state.pop(
        "Next"
    )


def _succeed(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, None]:  # noqa: ANN401
    return _at(state.pop("OutputPath", "$"), data), None


def _fail(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, None]:  # noqa: ANN401
    raise FailedError(state.pop("Error"), state.pop("Cause"), data)


_STATES: dict[str, Callable[[dict[str, Any], Any, Call], tuple[Any, str | None]]] = {
    "Task": _task,
    "Map": _map,
    "Choice": _choice,
    "Wait": _wait,
    "Pass": _pass,
    "Succeed": _succeed,
    "Fail": _fail,
}


def _at(path: str, data: Any) -> Any:  # noqa: ANN401
    """Return the part of `data` at a path, such as `$.segment.finished`."""
    for name in path.split(".")[1:]:
        data = data[name]
    return data


def _placed(value: Any, data: Any, path: str) -> Any:  # noqa: ANN401
    """Return `data` with a value at a path, such as `$.segment.error`."""
    name, _, rest = path.removeprefix("$").removeprefix(".").partition(".")
    return (
        {**data, name: _placed(value, data[name], f"$.{rest}") if rest else value}
        if name
        else value
    )


def _selected(template: Mapping[str, Any], data: Any, context: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the fields of a template. A field whose name ends in `.$` has a path as its value."""
    return {
        name.removesuffix(".$"): value
        if not name.endswith(".$")
        else _at(value[1:], context)
        if value.startswith("$$")
        else _at(value, data)
        for name, value in template.items()
    }
