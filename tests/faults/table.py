"""Prints the table of faults from what a run of the suite wrote down.

TANDEM_FAULTS=DIR pytest tests/faults && python -m tests.faults.table DIR > docs/faults.md
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from tests.faults.cases import LISTED, SECTIONS
from tests.faults.left_out import LEFT_OUT

FRONTS: Final = ("uvicorn", "granian", "gunicorn", "grpc", "service")
NAMES: Final = ("uvicorn + FastAPI", "Granian + Flask", "gunicorn + Flask", "gRPC", "service alone")


def main(folder: Path) -> None:
    records = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    by_case: dict[str, dict[tuple[str, str], dict[str, list[Any]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for record in records:
        for case in record["ids"]:
            by_case[case][record["sent"], record["expected"]][record["front"]].append(record)
    red = sum(record["outcome"] == "failed" for record in records)
    shown = sum(case in by_case for case in LISTED)
    print("# Faults\n")
    print("What the service was sent, what was expected, and what came. Printed by `make faults`; do not edit.\n")
    print(f"{shown} of {len(LISTED)} cases shown by {len(records)} tests, {red} red; ", end="")
    print(f"{len(LEFT_OUT)} left out or shown in part, below.\n")
    for section, (title, _) in SECTIONS.items():
        print(f"## {section}. {title}\n")
        print(f"| id | sent | expected | {' | '.join(NAMES)} |")
        print("|---" * (3 + len(FRONTS)) + "|")
        for case in (case for case in LISTED if case.startswith(section)):
            for (sent, expected), by_front in sorted(by_case[case].items()):
                cells = [_cell(by_front.get(front, [])) for front in FRONTS]
                print(f"| {case} | {_escaped(sent)} | {_escaped(expected)} | {' | '.join(cells)} |")
        print()
    print("## Left out\n\n| id | why |\n|---|---|")
    for case, reason in sorted(LEFT_OUT.items()):
        print(f"| {case} | {_escaped(reason)} |")


def _cell(records: list[dict[str, Any]]) -> str:
    seen: list[str] = []
    for record in records:
        came = "; ".join(dict.fromkeys(record["came"])) or "as expected"
        text = {"passed": came, "skipped": "skipped"}.get(record["outcome"], f"**RED** {came}")
        if text not in seen:
            seen.append(text)
    text = "; ".join(seen)
    return _escaped(text if len(text) <= 200 else f"{text[:197]}...")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
