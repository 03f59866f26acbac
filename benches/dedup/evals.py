"""What dedup_near and dedup_exact find of labelled near duplicates: `schelling_point` of PyPI `evals`.

    benches/dedup/evals.sh

Each of the 2 x 1,000 groups has 11 texts that are made of one another by changing the order of sentences and
words. A pair counts as found when both texts are in one cluster: rejects name the row that they are similar to,
and rows that are joined so are one cluster. Precision is the share of the pairs in clusters that are of one group.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter

import pyarrow.dataset as ds

SETTINGS = (
    "dedup_exact: { field: text, normalize: { unicode: false, collapse_whitespace: false } }",
    "dedup_near: { field: text }",
    "dedup_near: { field: text, verify: false, bands: 14, rows: 8 }",
    "dedup_near: { field: text, similar_above: 0.5 }",
    "dedup_near: { field: text, similar_above: 0.6, unit: { words: 3 } }",
    "dedup_near: { field: text, similar_above: 0.5, unit: { words: 3 } }",
)


def run(binary, folder, step):
    """The row that each rejected row was rejected for."""
    for name in ("out", ".textmill"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    with open(os.path.join(folder, "p.yaml"), "w") as file:
        file.write(
            "textmill: 1\nname: dedup\nsource: { files: { path: docs.jsonl } }\n"
            f"steps:\n  - {step}\nsave: {{ parquet: out }}\n"
        )
    subprocess.run([binary, "run", "p.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    runs = os.path.join(folder, ".textmill/runs")
    (run,) = os.listdir(runs)
    rejects = ds.dataset(os.path.join(runs, run, "rejects"), format="parquet").to_table(["textmill_row", "evidence"])
    return {
        int(row["textmill_row"]): int(json.loads(row["evidence"])["duplicate_of"]) for row in rejects.to_pylist()
    }


def clusters(count, joins):
    parent = list(range(count))

    def root(row):
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for row, other in joins.items():
        parent[root(row)] = root(other)
    return [root(row) for row in range(count)]


def pairs(sizes):
    return sum(n * (n - 1) // 2 for n in sizes)


def main(binary, data, folder):
    for name in ("owt_5", "wikipedia_5"):
        with open(os.path.join(data, f"{name}.jsonl")) as file:
            groups = [[json.loads(line)[str(n)] for n in range(11)] for line in file]
        texts = [text for group in groups for text in group]
        with open(os.path.join(folder, "docs.jsonl"), "w") as file:
            for text in texts:
                file.write(json.dumps({"text": text}) + "\n")
        for step in SETTINGS:
            joins = run(binary, folder, step)
            if step.startswith("dedup_exact"):
                print(f"{name:<12} {step}\n    {len(joins)} rejected; {len(texts) - len(set(texts))} are copies")
                continue
            roots = clusters(len(texts), joins)
            found = pairs(Counter(roots).values())
            right = pairs(Counter((root, row // 11) for row, root in enumerate(roots)).values())
            wanted = len(groups) * pairs([11])
            print(
                f"{name:<12} {step}\n    pair recall {right / wanted:.4f}, precision {right / max(found, 1):.4f}, "
                f"{len(joins)} of {len(groups) * 10} repeats rejected",
                flush=True,
            )


if __name__ == "__main__":
    folder = tempfile.mkdtemp()
    try:
        main(os.path.abspath(sys.argv[1]), sys.argv[2], folder)
    finally:
        shutil.rmtree(folder)
