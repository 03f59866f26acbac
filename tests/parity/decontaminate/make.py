"""Makes the rows and the pipelines that measure `decontaminate`.

Usage: make.py HUMANEVAL.jsonl.gz REPHRASED.jsonl MODEL.onnx FOLDER

- edits.jsonl: HumanEval's tasks and prompts as they are, and each prompt with one edit of each kind at five places.
- rephrased.jsonl: the tasks in other words, `{"text": …}` a line in HumanEval's order; empty ones are skipped.
- library.jsonl: the documented functions of 5 to 40 lines in the files of this Python's library, none in folders.
"""

import ast
import gzip
import json
import random
import re
import sys
import sysconfig
import textwrap
from pathlib import Path

humaneval, rephrased, model, folder = sys.argv[1:]
folder = Path(folder)
tasks = [json.loads(line) for line in gzip.open(humaneval, "rt")]


def edits():
    draw = random.Random(1)
    for number, task in enumerate(tasks):
        prompt = task["prompt"]
        yield number, "verbatim", prompt + task["canonical_solution"]
        yield number, "verbatim prompt", prompt
        words = [match.span() for match in re.finditer(r"\w+", prompt)]
        for _ in range(5):
            start, end = draw.choice(words)
            before, word, after = prompt[:start], prompt[start:end], prompt[end:]
            half = len(word) // 2
            yield number, "insert", before + "really " + word + after
            yield number, "delete", before + after
            yield number, "replace", before + "something" + after
            yield number, "punctuation", before + word + "!?" + after
            yield number, "punctuation inside", before + word[:half] + "-" + word[half:] + after
            yield number, "case", before + word.swapcase() + after


def library():
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = path.read_text(errors="replace")
        lines = source.split("\n")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
                if 5 <= node.end_lineno - node.lineno + 1 <= 40:
                    yield f"{path.name}:{node.name}", textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))


def write(name, rows, embeddings):
    rows = list(rows)
    with open(folder / f"{name}.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    stages = f"\n      embeddings: {{ model: {json.dumps(model)} }}" if embeddings else ""
    (folder / f"{name}.yaml").write_text(
        f"""textmill: 1
name: {name}
source: {{ files: {{ path: {name}.jsonl }} }}
steps:
  - decontaminate:
      fields: [text]
      against: [{{ files: {json.dumps(humaneval)}, name: HumanEval }}]{stages}
save: {{ parquet: {name} }}
"""
    )


around = "Some words before it that mean nothing at all.\n\n{}\n\nAnd some that come after it.\n"
write(
    "edits",
    ({"kind": kind, "item": tasks[number]["task_id"], "text": around.format(text)} for number, kind, text in edits()),
    False,
)
texts = [json.loads(line)["text"] for line in open(rephrased)]
write(
    "rephrased",
    ({"kind": "rephrased", "item": task["task_id"], "text": text} for task, text in zip(tasks, texts) if text.strip()),
    True,
)
write("library", ({"kind": "library", "item": name, "text": text} for name, text in library()), True)
