"""The rules of `quality` beside datatrove's filters: MB of text per CPU second.

    benches/quality/run.sh [MEGABYTES]        (100 by default)

Documents are those of `tests/parity/corpus.py`: Python's own library and the texts of packages, prose and code. CPU
time is user and system time of the contender's process. The step alone is a run with it less a run without it.
datatrove's filters take a small part of the documents, one filter after the other in one process, each document
through all of them; its time to start is measured with an empty part, and taken off.
"""

import json
import os
import subprocess
import sys
import time

FILTERED = 300  # documents for datatrove
PUBLISHED = "[gopher_quality, gopher_repetition, c4, fineweb]"
RULES = {
    "nothing (reading, writing)": None,
    "all rules of all sets, measured": "{ field: text, rules: [], score_into: numbers }",
    "the four published sets, judged": f"{{ field: text, rules: {PUBLISHED} }}",
    "all six sets, judged": "{ field: text, rules: [gopher_quality, gopher_repetition, c4, fineweb, code, teacher] }",
}


def measured(command, folder):
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    words = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed: {words.decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started


def run(binary, folder, number, quality):
    step = f"  - quality: {quality}" if quality else "  - limit: 1000000000"
    pipeline = f"textmill: 1\nname: q{number}\nsource: {{ files: {{ path: docs.jsonl }} }}\nsteps:\n{step}\nsave: {{ parquet: out{number} }}\n"
    with open(os.path.join(folder, f"q{number}.yaml"), "w") as file:
        file.write(pipeline)
    return measured([binary, "run", f"q{number}.yaml"], folder)


def datatrove(path):
    """What `by-datatrove` runs."""
    import logging

    from datatrove.data import Document
    from datatrove.pipeline import filters

    logging.disable(logging.CRITICAL)
    texts = [json.loads(line)["text"] for line in open(path)]
    for make in (filters.GopherRepetitionFilter, filters.GopherQualityFilter, filters.C4QualityFilter, filters.FineWebQualityFilter):
        one = make()
        for text in texts:
            try:
                one.filter(Document(text=text, id=""))
            except Exception:
                continue


def main(binary, python, megabytes, folder):
    here = os.path.dirname(os.path.abspath(__file__))
    corpus = os.path.join(here, "../../tests/parity/corpus.py")
    source = os.path.join(folder, "corpus.jsonl")
    subprocess.run([sys.executable, corpus, "small", source], check=True)
    # Without the made ones, which are to be odd, not many.
    texts = [text for text in (json.loads(line)["text"] for line in open(source)) if len(text) <= 10_000]
    size = sum(len(text.encode()) for text in texts) / 1e6
    copies = max(1, round(float(megabytes) / size))
    with open(os.path.join(folder, "docs.jsonl"), "w") as file:
        for copy in range(copies):
            file.writelines(json.dumps({"n": copy, "text": text}) + "\n" for text in texts)
    without = None
    for number, (name, quality) in enumerate(RULES.items()):
        cpu, wall = run(binary, folder, number, quality)
        without = without or cpu
        alone = f"; the step alone {size * copies / (cpu - without):6.1f}" if quality else ""
        print(f"{name:<32} {size * copies / cpu:7.1f} MB per CPU second, {wall:5.1f} s{alone}", flush=True)
    if not os.path.exists(python):
        print("datatrove: not measured; scripts/parity.sh sets it up")
        return
    for name, count in (("none", 0), ("part", FILTERED)):
        with open(os.path.join(folder, f"{name}.jsonl"), "w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts[:count])
    part = sum(len(text.encode()) for text in texts[:FILTERED]) / 1e6
    start, _ = measured([python, __file__, "by-datatrove", "none.jsonl"], folder)
    cpu, wall = measured([python, __file__, "by-datatrove", "part.jsonl"], folder)
    print(f"{'datatrove, its four filters':<32} {part / (cpu - start):7.2f} MB per CPU second, {wall:5.1f} s for {part:.1f} MB")


if __name__ == "__main__":
    if sys.argv[1] == "by-datatrove":
        datatrove(sys.argv[2])
    else:
        main(*sys.argv[1:])
