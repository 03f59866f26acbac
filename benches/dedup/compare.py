"""dedup_near beside rensa and text-dedup: MB of text per CPU second, peak memory, planted pairs found.

    benches/dedup/run.sh [DOCUMENTS]        (200,000 by default)

All three read the same Parquet file, cut texts into runs of 5 words, and use 17 bands of 7 hashes. A
document is about 1.5 KB of random words with a common word's frequencies; every tenth one repeats an earlier one with
a few words changed, which is known, so that recall and false merges can be counted. CPU time is user and
system time of the contender's process and its children, reading and writing included.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

import pyarrow as pa
import pyarrow.parquet as pq

BANDS, ROWS, WORDS = 17, 7, 5
WORDS_OF_A_DOCUMENT = 235
# Words changed in a planted copy: one touches up to 5 of the 231 shingles of either side, so that 2 leave a
# similarity of about 0.92 and 6 of about 0.77.
CHANGES = (1, 2, 3, 4)


def documents(count, rng):
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(50_000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    texts, origin = [], []
    for index in range(count):
        if index % 10 == 9:
            first = index - 1 - rng.randrange(min(index - 1, 5000)) if index > 9 else 0
            while origin[first] is not None:
                first -= 1
            words = texts[first].split(" ")
            for at in rng.sample(range(len(words)), rng.choice(CHANGES)):
                words[at] = rng.choice(vocabulary) + "x"
            origin.append(first)
        else:
            words = rng.choices(vocabulary, weights, k=WORDS_OF_A_DOCUMENT)
            origin.append(None)
        texts.append(" ".join(words))
    return texts, origin


def shingles(text):
    words = text.split(" ")
    return {" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1)}


def by_rensa(path, out):
    """As rensa's documentation does it in bulk: token sets from Python, digests and bands in Rust."""
    import rensa

    lsh = rensa.RMinHashLSH(threshold=0.8, num_perm=BANDS * ROWS, num_bands=BANDS)
    dropped = []
    for batch in pq.ParquetFile(path).iter_batches(1000, columns=["n", "text"]):
        numbers, texts = batch.column("n").to_pylist(), batch.column("text").to_pylist()
        for number, text in zip(numbers, texts):
            minhash = rensa.RMinHash(num_perm=BANDS * ROWS, seed=42)
            minhash.update(list(shingles(text)))
            if lsh.query(minhash):
                dropped.append(number)
            lsh.insert(number, minhash)
    pq.write_table(pa.table({"n": dropped}), out)


def peak_mib(pid):
    """The peak memory of a live process since it was started; the kernel's account of a finished one has that of
    the process it was forked from, too."""
    try:
        with open(f"/proc/{pid}/status") as status:
            line = next((line for line in status if line.startswith("VmHWM:")), None)
            return int(line.split()[1]) / 1024 if line else 0
    except OSError:
        return 0


def measured(name, command, **kwargs):
    """Runs a command; seconds of wall and CPU time and its peak memory in MiB."""
    started, peak = time.monotonic(), 0
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=words, **kwargs)
        while True:
            peak = max(peak, peak_mib(process.pid))
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            time.sleep(0.02)
        if status:
            words.seek(0)
            sys.exit(f"{name} failed: {words.read().decode()[-2000:]}")
    return time.monotonic() - started, used.ru_utime + used.ru_stime, peak


def similarity(one, other):
    one, other = shingles(one), shingles(other)
    return len(one & other) / len(one | other)


def report(name, took, dropped, texts, origin):
    wall, cpu, rss = took
    megabytes = sum(map(len, texts)) / 1e6
    planted = {n for n, first in enumerate(origin) if first is not None}
    near = {n for n in planted if similarity(texts[n], texts[origin[n]]) >= 0.8}
    # text-dedup keeps any one of a cluster, so a pair counts as found when either of its two is dropped.
    found = sum(1 for n in near if n in dropped or origin[n] in dropped)
    false = len(dropped - planted - {first for first in origin if first is not None})
    print(
        f"{name:<11} {megabytes / cpu:6.1f} MB per CPU second, {wall:6.1f} s, peak {rss:5.0f} MiB; "
        f"{found / len(near):.4f} of {len(near)} pairs at 0.8 or more found, "
        f"{false} documents dropped that are no copies",
        flush=True,
    )


def main(binary, count, folder):
    texts, origin = documents(count, random.Random(1))
    path = os.path.join(folder, "docs.parquet")
    pq.write_table(pa.table({"n": list(range(count)), "text": texts}), path, compression="zstd")

    pipeline = (
        "textmill: 1\nname: dedup\nsource: { files: { path: docs.parquet } }\nsteps:\n"
        "  - dedup_near: { field: text, similar_above: 0.8, bands: 17, rows: 7 }\nsave: { parquet: out }\n"
    )
    with open(os.path.join(folder, "p.yaml"), "w") as file:
        file.write(pipeline)
    took = measured("textmill", [binary, "run", "p.yaml"], cwd=folder)
    kept = pq.read_table(os.path.join(folder, "out/data"), columns=["n"])["n"].to_pylist()
    report("textmill", took, set(range(count)) - set(kept), texts, origin)

    out = os.path.join(folder, "rensa.parquet")
    took = measured("rensa", [sys.executable, __file__, "by-rensa", path, out])
    report("rensa", took, set(pq.read_table(out)["n"].to_pylist()), texts, origin)

    out = os.path.join(folder, "text-dedup")
    command = [sys.executable, "-m", "text_dedup.minhash", "--path", "parquet", "--data_files", path]
    command += ["--split", "train", "--cache_dir", os.path.join(folder, "cache"), "--output", out]
    command += ["--column", "text", "--idx_column", "n", "--ngram", str(WORDS), "--num_proc", "1"]
    command += ["--num_perm", str(BANDS * ROWS), "--b", str(BANDS), "--r", str(ROWS), "--threshold", "0.8"]
    command += ["--min_length", "1", "--hash_func", "xxh3", "--hash_bits", "32"]
    took = measured("text-dedup", command, env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": folder})
    import datasets

    # It leaves the column `n` out of what it writes; texts are unique.
    kept = set(datasets.load_from_disk(out)["text"])
    report("text-dedup", took, {n for n, text in enumerate(texts) if text not in kept}, texts, origin)


if __name__ == "__main__":
    if sys.argv[1] == "by-rensa":
        by_rensa(*sys.argv[2:])
    else:
        folder = sys.argv[3]
        try:
            main(os.path.abspath(sys.argv[1]), int(sys.argv[2]), folder)
        finally:
            shutil.rmtree(folder)
