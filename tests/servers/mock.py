"""Looks at the accounts of a run of mock.yaml: whatever the simulator broke, every row is kept. Usage: mock.py ACCOUNTS"""

import json
import sys

tally = json.load(open(sys.argv[1]))["tally"]
assert tally["kept"] == 60 and tally["failed"] == 0, tally
