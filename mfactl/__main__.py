"""Run ``mfactl``: parse, run one command, turn errors into one line of cause and one of cure."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from mfa_core.errors import MfaError
from mfactl.exit_codes import ExitCode, exit_code_of
from mfactl.output import refuse

TRACEBACK = "MFACTL_TRACEBACK"
"""Environment variable: show where an unforeseen error came from."""


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    from mfactl.app import app

    os.umask(0o077)
    try:
        app(args=config_first(arguments), prog_name="mfactl")
    except MfaError as err:
        first, *more = _causes(err)
        refuse(first, err.cure, *more)
        return exit_code_of(err)
    except SystemExit as err:
        return err.code if isinstance(err.code, int) else ExitCode.OK if err.code is None else ExitCode.USAGE
    except BrokenPipeError:
        # `mfactl user list | head`: nobody reads on. Python would complain once more while closing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as err:
        if os.environ.get(TRACEBACK):
            raise
        refuse(f"unforeseen {type(err).__name__}", f"run it again with {TRACEBACK}=1 and report what it shows")
        return ExitCode.BUG
    return ExitCode.OK


def _causes(err: MfaError) -> list[str]:
    """What was seen: one line, or one for each problem of a configuration."""
    from mfa_runtime.config import ConfigurationProblems

    return [str(problem) for problem in err.problems] if isinstance(err, ConfigurationProblems) else [str(err)]


def config_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--config`` in front, where the parser wants a global option; people write it anywhere."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == "--config":
            front += [word, *[value for value in [next(words, None)] if value is not None]]
        elif word.startswith("--config="):
            front.append(word)
        else:
            rest.append(word)
    return front + rest


if __name__ == "__main__":
    main()
