"""Prints how `language` agrees with fastText's lid.176 on the sample. Usage: compare.py DATASET.

A paragraph counts for a language if the source and fastText agree on it; for none of the sixteen if the source
says another. What is written in Chinese characters is left out of these: it is Chinese here.
"""

import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet

TOLD = "ar de en es fr hi it ja ko nl pt ru sv tr vi zh".split()
CHINESE = "yue wuu gan hak hsn cjy nan".split()
# Codes of the sources that fastText has another one for.
SAME = {"pes": "fa", "prs": "fa", "nb": "no", "nn": "no", "cmn": "zh"}

folder = Path(sys.argv[1])
rows = [row for part in sorted(folder.glob("data/*/*.parquet")) for row in pyarrow.parquet.read_table(part).to_pylist()]

same = sum(row["model"] == row["label"] for row in rows)
print(f"with lid.176: {same} of {len(rows)} as fastText")

told, agree, others, taken, other_languages = Counter(), Counter(), 0, Counter(), set()
for row in rows:
    said = row["said"].replace("_", "-").split("-")[0]
    said = SAME.get(said, said)
    if said in TOLD and said == row["label"]:
        told[said] += 1
        agree[said] += row["built_in"] == said
    elif said not in TOLD + CHINESE + ["und"]:
        others += 1
        other_languages.add(said)
        if row["built_in"] != "und":
            taken[said, row["built_in"]] += 1

share = sum(agree.values()) / sum(told.values())
print(f"without a model: {sum(agree.values())} of {sum(told.values())} as fastText, {share:.2%}")
for language in TOLD:
    print(f"  {language} {agree[language]} of {told[language]}")
undetermined = others - sum(taken.values())
print(f"of {others} in {len(other_languages)} other languages {undetermined} are und, {undetermined / others:.2%}")
print("  taken for another:", ", ".join(f"{a} for {b} {count}" for (a, b), count in taken.most_common(12)))
assert same / len(rows) >= 0.999 and share >= 0.98 and undetermined / others >= 0.94
