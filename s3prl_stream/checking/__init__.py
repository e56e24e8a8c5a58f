"""`verify` and `repair`: what of a set is damaged, and the same set without it. The map of its files.

To check          verify -> inventory (what should be there), examine (-> content) or, of tars made elsewhere,
                  examine_indexed; duplicates
What was found    findings
To mend           repair -> repair_shard
"""
