"""Runs queries of CloudWatch Logs Insights on log lines.

Neither MiniStack nor moto can run them: MiniStack ignores `stats` and most filters, and moto
ignores every filter. This module knows only the part of the language that Tally's queries use, and
refuses everything else:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

_COLUMN = re.compile(r"(?P<name>[@\w.]+)(\((?P<arguments>[^)]*)\))?( as (?P<title>\w+))?")
_COMPARISON = re.compile(r"(?P<name>[@\w.]+) (?P<operator>=|!=|like|in) (?P<value>.+)")
_FIVE_MINUTES = 300_000  # milliseconds


@dataclass(frozen=True)
class Line:
    """A log line.

    Attributes:
        group: the name of the log group.
        time: in milliseconds since the epoch.
        text: the line itself. It is JSON.
    """

    group: str
    time: int
    text: str

    def fields(self) -> Row:
        """Return the fields that CloudWatch finds in the line. A nested field is `outer.inner`.

        https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
        """
        system = {"@timestamp": self.time, "@message": self.text, "@log": self.group}
        return system | dict(_flat(json.loads(self.text)))


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield prefix + name, value


def run(query: str, lines: Iterable[Line]) -> list[Row]:
    """Return the rows of a query's result. A row lacks the fields that its line lacks.

    Args:
        query: the text of the query.
        lines: the lines in the log groups of the query, in the order of their times.

    Raises:
        AssertionError: the query is malformed, or uses what this module does not know.
    """
    rows = [line.fields() for line in lines]
    shown: list[str] = []
    text = re.sub(r"^ *#.*$", "", query, flags=re.MULTILINE)
    for command in text.split("|"):
        name, _, rest = " ".join(command.split()).partition(" ")
        match name:
            case "SOURCE":  # names a log group; the caller chose the lines
                pass
            case "fields":
                for row in rows:
                    row.update(_computed(rest, row))
                shown = _titles(rest)
            case "filter":
                rows = [row for row in rows if _matches(rest, row)]
            case "stats":
                aggregates, by, keys = rest.partition(" by ")
                assert by
                rows = list(_stats(aggregates, keys, rows))
                shown = _titles(keys) + _titles(aggregates)
            case "sort":
                field, order = rest.split()
                assert order in {"asc", "desc"}
                rows.sort(key=lambda row: _order(row.get(field)), reverse=order == "desc")
            case "limit":
                rows = rows[: int(rest)]
            case _:
                raise AssertionError(command)
    return [{title: row[title] for title in shown if title in row} for row in rows]


def _columns(columns: str) -> list[re.Match[str]]:
    found = [_COLUMN.fullmatch(each) for each in re.split(r", (?![^(]*\))", columns.strip())]
    assert all(found), columns
    return [match for match in found if match]


def _titles(columns: str) -> list[str]:
    return [match["title"] or match[0] for match in _columns(columns)]


def _computed(columns: str, row: Row) -> Row:
    """Return those of the columns that have a value in the row."""
    values = {}
    for title, match in zip(_titles(columns), _columns(columns), strict=True):
        names = [match["name"]]
        if match["name"] == "coalesce":
            names = match["arguments"].split(", ")
        elif match["name"] == "bin":
            assert match["arguments"] == "5m"
            values[title] = row["@timestamp"] // _FIVE_MINUTES * _FIVE_MINUTES
        else:
            assert match["arguments"] is None, match[0]
        for name in reversed(names):
            if name in row:
                values[title] = row[name]
    return values


def _stats(aggregates: str, keys: str, rows: list[Row]) -> Iterator[Row]:
    groups: dict[tuple[tuple[str, Any], ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(_computed(keys, row).items()), []).append(row)
    for key, members in groups.items():
        result = dict(key)
        for title, match in zip(_titles(aggregates), _columns(aggregates), strict=True):
            values = [row[match["arguments"]] for row in members if match["arguments"] in row]
            if match["name"] == "count":
                assert match["arguments"] == "*"
                result[title] = len(members)
            elif values:
                # AWS does not document which lines without the field `latest` takes. So a group
                # must not mix lines with and without the field.
                assert len(values) == len(members), f"{match['arguments']} is missing"
                result[title] = _AGGREGATES[match["name"]](values)
        yield result


_AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {"max": max, "latest": lambda each: each[-1]}


def _matches(condition: str, row: Row) -> bool:
    """Return whether a condition holds: alternatives in parentheses, or only one without them."""
    alternatives = condition.split(" or ")
    if len(alternatives) > 1:
        assert all(re.fullmatch(r"\(.+\)", each) for each in alternatives), condition
        alternatives = [each[1:-1] for each in alternatives]
    return any(
        all(_holds(comparison, row) for comparison in alternative.split(" and "))
        for alternative in alternatives
    )


def _holds(comparison: str, row: Row) -> bool:
    if present := re.fullmatch(r"(not )?ispresent\(([@\w.]+)\)", comparison):
        return (present[2] in row) is not bool(present[1])
    match = _COMPARISON.fullmatch(comparison)
    assert match, comparison
    value, wanted = row.get(match["name"]), json.loads(match["value"])
    match match["operator"]:
        case "=":
            return bool(value == wanted)
        case "!=":
            # AWS does not document the result if the field is missing. So a query must check that.
            assert value is not None, f"{match['name']} is missing"
            return bool(value != wanted)
        case "like":
            return wanted in str(value)
        case _:
            return value in wanted


def _order(value: object) -> tuple[bool, float, str]:
    """Return what `sort` compares: texts first, then numbers, also if they are written as texts.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Sort.html
    """
    try:
        return True, float(str(value)), ""
    except ValueError:
        return False, 0, str(value)
