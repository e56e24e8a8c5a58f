"""`pack`: a corpus becomes a set. The map of its files, from callers to what they call.

Whole             pack -> listing, packplan (-> clips, settings), engines -> pack_shard (-> quality), finish
Between them      arrow_file
Whose folder      outfolder; what is done in it  workfolder
"""
