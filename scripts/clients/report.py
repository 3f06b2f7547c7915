"""Runs a client's calls and prints the outcome of each as a line of JSON."""

import asyncio
import inspect
import json
import os

# The server's address, token and model, the questions, and the answers that a plain request gets.
GIVEN = json.loads(os.environ["LOWRANK_CLIENT"])


def report(client, calls):
    """Runs calls by their names. Each checks its result, and returns what the table shows."""

    async def run_all():
        for call, run in calls.items():
            try:
                outcome = run()
                if inspect.isawaitable(outcome):
                    outcome = await outcome
                line = {"passed": True, "outcome": outcome}
            except Exception as error:
                line = {"passed": False, "outcome": f"{type(error).__name__}: {error}"}
            print(json.dumps({"client": client, "call": call, **line}), flush=True)

    asyncio.run(run_all())


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def check_text(text, expected):
    """Checks the text of an answer and returns it."""
    check(text == expected, f"expected {expected!r}, got {text!r}")
    return json.dumps(text)


def check_error(call, kind, status, part):
    """Checks that a call fails with an error of this class and status; returns its message."""
    try:
        call()
    except kind as error:
        check(error.status_code == status and part in str(error), f"got {error}")
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"expected {kind.__name__}")
