"""Looks at the accounts of a run of model.yaml. Usage: model.py ACCOUNTS FORMAT STRUCTURED

A model of 135M parameters writes what it will: a sentence may be cut, and without a schema that the server holds
it to, most of its JSON cannot be read. What must be right is where each row ends.
"""

import json
import sys

accounts, name, structured = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
tally = accounts["tally"]
text, rating = tally["steps"]
assert accounts["balances"] and tally["open"] == 0, tally
assert text["rejected"].get("too_long") == 1, tally
assert not tally["failed"], tally
# llama.cpp holds a model to a schema in its chat API only: responses pass over it, and a forced tool as well.
if structured == "json_schema" and name == "openai":
    assert not rating["rejected"].get("unparsable"), tally
calls = accounts["calls"]["text"]
assert calls["tokens_in"] > 0 and calls["tokens_out"] > 0 and calls["uncounted"] == 0, calls
print(f"the real model: {name}, {structured}: kept {tally['kept']}, text {text['rejected']}, rating {rating['rejected']}")
