"""The half of the provider seam that every provider shares: one level-triggered loop over a `Machine` (design.md §2, decisions/0011).

Layer: the floor; stdlib only. A provider brings its machine (processes here, pods in a cluster) and the ledger.
"""
