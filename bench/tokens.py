"""Calculates what access tokens cost: Cognito's price, and that of its trigger `issue_token`.

bench/cost.py shows these prices in its section.
"""

from collections.abc import Mapping

from tests import aws_template

from bench import prices, token_events
from bench.report import cents, table
from bench.service import Service
from bench.usage import Usage

PROGRAM = "a token for a program"
PERSON = "a token for a person"

MINUTES = int(aws_template.parameter("AccessTokenMinutes"))  # for which a token is valid
HOURS = 730  # in a month

# How long a person uses Tally in a month. This is an assumption.
DAYS_OF_A_PERSON = 22
HOURS_OF_A_PERSON = 8  # on each of these days

_TEXT = """
The next table shows what the function `issue_token` consumes for one access token, and what it
costs for a million tokens. Cognito calls this function each time that it issues a token: to a
program, to a person who signs in, and to a person whose token is refreshed.

- The caller has one grant: a program its own, a person that of their only group. The read units are
  calculated from the size of the grant. A program or a group without a grant costs as much, because
  DynamoDB also charges for the read of an item that does not exist. Each further group of a person
  costs one more read unit.
- The run time of the function is the same assumption as for the other operations.
""".strip()

_MONTHLY = f"""
The next table compares the price of `issue_token` with the price of Cognito. Cognito charges for
each token of a program, with the price of the first tier: many tokens cost less. It charges once a
month for a person, no matter how many tokens the person gets. The first 10,000 people of an AWS
account are free.

- A token is valid for {MINUTES} minutes, which is the default. A caller who uses Tally without a
  break gets the next token when the last one expires.
- The hours of a person are an assumption: {HOURS_OF_A_PERSON} hours on {DAYS_OF_A_PERSON} days.
""".strip()


def measure(service: Service) -> dict[str, Usage]:
    """Measure `issue_token`. Return what it consumes for a token of each kind.

    Args:
        service: runs the functions.
    """
    program, person = token_events.program(), token_events.person()
    service.grant(f"client:{program['callerContext']['clientId']}")
    service.grant(f"group:{token_events.GROUP}")
    return {PROGRAM: service.token(program), PERSON: service.token(person)}


def text(issued: Mapping[str, Usage]) -> str:
    """Return the part of docs/benchmarks.md about tokens, as Markdown.

    Args:
        issued: what `issue_token` consumes for a token of each kind.
    """
    columns = (
        *("each month", "tokens", "Cognito, US dollars", "`issue_token`, US dollars"),
        "share of `issue_token`",
    )
    return "\n\n".join(
        [
            _TEXT,
            table(["`issue_token`", *issued], _lines(issued)),
            _MONTHLY,
            table(columns, _months(issued)),
        ]
    )


def _lines(issued: Mapping[str, Usage]) -> list[list[object]]:
    rows: dict[str, list[str]] = {}
    for usage in issued.values():
        for name, value in {
            "read units": usage.reads,
            "requests to DynamoDB": usage.requests,
            "bytes of the function's log lines": usage.logs,
            "bytes of all log lines: the function's, Lambda's": usage.all_logs(),
        }.items():
            rows.setdefault(name, []).append(f"{value:,.4g}")
        dollars = {name: each for name, each in usage.dollars().items() if each}
        for name, value in (dollars | {"**total**": sum(dollars.values())}).items():
            rows.setdefault(f"{name}: US dollars per million", []).append(cents(value))
    return [[name, *values] for name, values in rows.items()]


def _months(issued: Mapping[str, Usage]) -> list[list[object]]:
    of_program = HOURS * 60 // MINUTES
    of_person = DAYS_OF_A_PERSON * HOURS_OF_A_PERSON * 60 // MINUTES
    rows: list[list[object]] = []
    for name, kind, tokens, cognito in (
        ("a program that never stops", PROGRAM, of_program, of_program * prices.TOKEN.dollars),
        ("a person", PERSON, of_person, prices.PERSON.dollars),
        ("a person among the first 10,000", PERSON, of_person, 0.0),
    ):
        trigger = tokens * sum(issued[kind].dollars().values()) / prices.MILLION
        share = f"{100 * trigger / (trigger + cognito):.2f}%"
        rows.append([name, tokens, f"{cognito:.4f}", f"{trigger:.4f}", share])
    return rows
