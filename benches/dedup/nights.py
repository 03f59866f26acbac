"""What comparing with earlier releases costs a row as they become more: CPU per row and bytes of the index.

    benches/dedup/nights.sh [NIGHTS] [ROWS]        (31 nights of 10,000 rows by default)

A pipeline publishes ROWS new texts of about 1.5 KB every night and compares them with all earlier nights. The first
run of a night adds the last release to the saved index, and is what a night costs; it is then run again twice, which
only looks up, and the least of the three is the second figure. CPU time is user and system time of the process,
reading and writing included. The same night without `against` stands beside it.
"""

import glob
import os
import random
import shutil
import sys
import tempfile
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from compare import WORDS_OF_A_DOCUMENT, measured

PIPELINE = (
    "textmill: 1\nname: nightly\nsource: {{ files: {{ path: docs.parquet }} }}\nsteps:\n"
    "  - dedup_near: {{ field: text{against} }}\nsave: {{ parquet: {out} }}\n"
)


def texts_of(night, rows):
    """Texts of random words, no two alike."""
    rng = random.Random(night)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(50_000)]
    sums = list(accumulate(1 / (rank + 10) for rank in range(len(vocabulary))))
    return [" ".join(rng.choices(vocabulary, cum_weights=sums, k=WORDS_OF_A_DOCUMENT)) for _ in range(rows)]


def main(binary, nights, rows, folder):
    for name, against, out in (("p", ", against: [{ dataset: out }]", "out"), ("alone", "", "alone")):
        with open(os.path.join(folder, f"{name}.yaml"), "w") as file:
            file.write(PIPELINE.format(against=against, out=out))
    for night in range(nights):
        table = pa.table({"text": texts_of(night, rows)})
        pq.write_table(table, os.path.join(folder, "docs.parquet"), compression="zstd")
        run = [binary, "run", "p.yaml", "--epoch", str(night)]
        took = [measured("textmill", run, cwd=folder)[1:] for _ in range(3)]
        alone = [binary, "run", "alone.yaml", "--epoch", "0"]
        least = min(measured("textmill", alone, cwd=folder)[1] for _ in range(3))
        size = sum(map(os.path.getsize, glob.glob(os.path.join(folder, ".textmill/indexes/*"))))
        earlier = night * rows
        per_row = f"{size / earlier:6.0f} bytes of index a row" if night else ""
        microseconds = 1e6 / rows
        print(
            f"against {night:>3} releases: {took[0][0] * microseconds:6.1f} us of CPU a row with adding the last one, "
            f"{min(cpu for cpu, _ in took) * microseconds:6.1f} without, {least * microseconds:6.1f} against none; "
            f"peak {took[0][1]:.0f} MiB; {per_row}",
            flush=True,
        )


if __name__ == "__main__":
    folder = tempfile.mkdtemp()
    try:
        main(os.path.abspath(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), folder)
    finally:
        shutil.rmtree(folder)
