"""A deterministic simulator of the shipped server, workers and clients, driven by one seed.

    python -m simulator SEED            replay a seed and tell its story (from the folder of the tests)
    python -m simulator 0 2000          many seeds, one line for each violation

Each party runs the shipped code in a greenlet; files, network, clocks, chance and child processes are
handed in (`disk`, `doors`, `network`, `machines`). `weather` draws what goes wrong, `oracle` knows
what must hold, `world` puts a run together, `planted` has bugs that the oracle must catch.
"""
