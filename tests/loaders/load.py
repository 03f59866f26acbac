"""Loads a dataset folder in pyarrow, polars, duckdb and datasets; all must see the same rows."""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import duckdb
import polars
import pyarrow.parquet

folder = sys.argv[1]
glob = f"{folder}/data/*/*.parquet"

arrow = pyarrow.parquet.read_table(f"{folder}/data/0").to_pylist()
frame = polars.read_parquet(glob).to_dicts()
relation = duckdb.sql(f"SELECT * FROM read_parquet('{glob}')")
rows = [dict(zip(relation.columns, row)) for row in relation.fetchall()]
loaded = datasets.load_dataset(folder, cache_dir=f"{folder}/../cache")
assert list(loaded) == ["train"], loaded
hugging = loaded["train"].to_list()

assert len(arrow) == 3, arrow
for name, other in [("polars", frame), ("duckdb", rows), ("datasets", hugging)]:
    assert other == arrow, f"{name} differs from pyarrow:\n{other}\n{arrow}"

first = arrow[0]
assert (first["n"], first["share"], first["flag"], first["tags"]) == (1, 0.5, True, ["a", "b"]), first
assert json.loads(first["any"]) == {"k": 1}, first
assert isinstance(first["item"]["title"], str), first
assert isinstance(first["item"]["notes"], list), first
assert first["item"]["meta"]["level"] in ("easy", "hard"), first
assert first["textmill_row"] == "0" and first["textmill_calls"][0]["step"] == "item", first
assert arrow[2]["tags"] is None and arrow[2]["share"] is None, arrow[2]
print("pyarrow, polars, duckdb and datasets read the same 3 rows")
