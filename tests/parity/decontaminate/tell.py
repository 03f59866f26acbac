"""Says what share of the rows of each kind was found, and which of the rows without any item.

Usage: tell.py ROWS.jsonl MATCHES.jsonl
"""

import json
import sys
from collections import Counter

rows = [json.loads(line) for line in open(sys.argv[1])]
matches = [json.loads(line) for line in open(sys.argv[2])]
found = {}
for match in matches:
    found.setdefault(int(match["row"]), []).append(match)
total, any_item, its_item, stages = Counter(), Counter(), Counter(), Counter()
for number, row in enumerate(rows):
    total[row["kind"]] += 1
    own = found.get(number, [])
    any_item[row["kind"]] += bool(own)
    its_item[row["kind"]] += any(match["item"] == row["item"] for match in own)
    if own:
        stages[row["kind"], own[0]["stage"]] += 1
    if own and row["kind"] == "library":
        print(f"  {row['item']}: {own[0]['stage']} {own[0]['score']} {own[0]['item']}")
    if not own and row["kind"] != "library":
        print(f"  not found: {row['kind']} {row['item']}")
for kind, rows in total.items():
    by = ", ".join(f"{count} by {stage}" for (of, stage), count in stages.items() if of == kind)
    share = 100 * any_item[kind] / rows
    print(f"{kind}: {any_item[kind]} of {rows} found ({share:.2f} %), {its_item[kind]} as the right item; {by}")
for match in matches:
    if "calibration" in match:
        print("threshold", match["needed"], match["calibration"])
        break
