"""What verbs for people have in common, which run outside DVC."""

import sys
from collections.abc import Callable


def run_command(name: str, body: Callable[[], object]) -> int:
    """Prints what `body` returns; the exit code. What a person can fix (ValueError, OSError) is one line, and 1."""
    try:
        print(body())
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
