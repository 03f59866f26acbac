"""Our verdicts beside datatrove's, rule by rule: agreement, and every disagreement.

    compare.py DOCUMENTS VERDICTS NUMBERS-DATASET LINES-DATASET [LISTED]

NUMBERS-DATASET has the numbers of all rules (`score_into: numbers`), LINES-DATASET what `drop_lines` left of the
documents that have lines left. Ends with 1 if a rule agrees on less than 99.9 %.
"""

import json
import os
import re
import subprocess
import sys

import pyarrow.parquet as pq

AGREEMENT_MIN = 0.999


def thresholds(binary):
    """The rules' bounds, as the operator's own doc has them."""
    doc = subprocess.run([binary, "explain", "quality"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"`(\w+)`\s+([≥≤])\s+([0-9]+(?:\.[0-9]+)?)", " ".join(doc.split()))
    return {rule: (sign, float(number)) for rule, sign, number in found}


def rows(dataset, column):
    table = pq.read_table(os.path.join(dataset, "data"), columns=["id", column])
    return dict(zip(table["id"].to_pylist(), table[column].to_pylist()))


def kept(number, bound):
    sign, threshold = bound
    return number is None or (number >= threshold if sign == "≥" else number <= threshold)


def excerpt(text):
    return json.dumps(text[:60], ensure_ascii=False)


def main(binary, documents, verdicts, numbers, lines, listed="5"):
    texts = [json.loads(line)["text"] for line in open(documents)]
    theirs = [json.loads(line) for line in open(verdicts)]
    ours, left, bounds = rows(numbers, "numbers"), rows(lines, "text"), thresholds(binary)
    bad = False
    print(f"{'rule':<28} {'rejected':>9} {'agreement':>10} {'apart':>6}   what datatrove ended with")
    for rule in theirs[0]["verdicts"]:
        rejected, errors, apart = 0, {}, []
        for index, found in enumerate(theirs):
            verdict = found["verdicts"][rule]
            number = ours[index][rule]
            rejected += verdict is False
            if isinstance(verdict, str):
                errors[verdict] = errors.get(verdict, 0) + 1
            if verdict != kept(number, bounds[rule]):
                apart.append((index, verdict, number))
        share = 1 - len(apart) / len(theirs)
        bad |= share < AGREEMENT_MIN
        print(f"{rule:<28} {rejected:>9} {100 * share:>9.3f}% {len(apart):>6}   {errors or ''}")
        for index, verdict, number in apart[: int(listed)]:
            print(f"    document {index}: datatrove {verdict}, we measured {number}: {excerpt(texts[index])}")
    apart = [index for index, found in enumerate(theirs) if found["c4_lines"] != left.get(index, "")]
    share = 1 - len(apart) / len(theirs)
    bad |= share < AGREEMENT_MIN
    print(f"{'what drop_lines leaves':<28} {'':>9} {100 * share:>9.3f}% {len(apart):>6}")
    for index in apart[: int(listed)]:
        print(f"    document {index}: {excerpt(texts[index])}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
