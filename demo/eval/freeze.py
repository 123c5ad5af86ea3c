"""Freezes the readers: ``python -m demo.eval.freeze`` writes demo/eval/frozen.json."""

import json
from datetime import datetime, timezone

from demo.eval import frozen


def main() -> None:
    """The command line."""
    content = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC", "readers": frozen.current()}
    frozen.FILE.write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    print(frozen.FILE.read_text(encoding="ascii"))


if __name__ == "__main__":
    main()
