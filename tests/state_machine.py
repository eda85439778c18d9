"""Step Functions: runs the state machine of the template, and calls the functions as tasks.

It knows only the kinds of states and the fields that the template uses. Others are errors. It runs
the items of a map one after another.
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.aws_template import TEMPLATE
from tests.wire import Killed

# https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
MOST_BYTES = 256 * 1024  # of the input and the output of a state

Call = Callable[[str, Any], Any]


class FailedError(Exception):
    """The execution ended in a state of the type Fail."""


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
    assert len(text) <= MOST_BYTES
    return json.loads(text)


def _task(state: dict[str, Any], data: Any, call: Call) -> tuple[Any, str]:  # noqa: ANN401
    function = state.pop("Resource").strip("${}")
    event = _selected(state.pop("Parameters"), data, {})
    (retrier,) = state.pop("Retry")
    (catcher,) = state.pop("Catch", [None])
    path, following = state.pop("ResultPath", "$"), state.pop("Next")
    assert retrier["ErrorEquals"] == ["States.ALL"]
    for attempts_left in reversed(range(retrier["MaxAttempts"] + 1)):
        try:
            return _placed(call(function, _passed(event)), data, path), following
        except (Exception, Killed) as error:
            if attempts_left:
                continue
            if catcher is None:
                raise
            assert catcher["ErrorEquals"] == ["States.ALL"]
            caught = {"Error": type(error).__name__, "Cause": str(error)}
            return _placed(caught, data, catcher["ResultPath"]), catcher["Next"]
    raise AssertionError


def _map(state: dict[str, Any], data: Any, call: Call) -> tuple[Any, str]:  # noqa: ANN401
    processor = dict(state.pop("ItemProcessor"))
    assert processor.pop("ProcessorConfig") == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    selector = state.pop("ItemSelector")
    items = _at(state.pop("ItemsPath"), data)
    results = [
        _run(processor, _selected(selector, data, {"Map": {"Item": {"Value": item}}}), call)
        for item in items
    ]
    return _placed(results, data, state.pop("ResultPath")), state.pop("Next")


def _choice(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, str]:  # noqa: ANN401
    following = state.pop("Default")
    (rule,) = state.pop("Choices")
    if _at(rule["Variable"], data) is rule["BooleanEquals"]:
        following = rule["Next"]
    return data, following


def _succeed(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, None]:  # noqa: ANN401
    return _at(state.pop("OutputPath", "$"), data), None


def _fail(state: dict[str, Any], data: Any, _: Call) -> tuple[Any, None]:  # noqa: ANN401
    raise FailedError(state.pop("Error"), state.pop("Cause"), data)


_STATES: dict[str, Callable[[dict[str, Any], Any, Call], tuple[Any, str | None]]] = {
    "Task": _task,
    "Map": _map,
    "Choice": _choice,
    "Succeed": _succeed,
    "Fail": _fail,
}


def _at(path: str, data: Any) -> Any:  # noqa: ANN401
    """Return the part of `data` at a path, such as `$.segment.finished`."""
    for name in path.split(".")[1:]:
        data = data[name]
    return data


def _placed(value: Any, data: Any, path: str) -> Any:  # noqa: ANN401
    """Return `data` with a value at a path that has one name, or the value if the path is `$`."""
    return {**data, path.removeprefix("$."): value} if path != "$" else value


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
