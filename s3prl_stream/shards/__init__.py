"""Sets of shards: how they are made, read, checked and mended. The map of its files, from callers to what they call.

To read a set     shardset (open_shards) -> folder (a packed or indexed one), memory (samples that are no set)
                  of a sample  bytes; of tars made elsewhere  indexed -> foreign_sample
                  which rows   selection -> where, amounts, whole_index; weights, find_clips
                  ahead        read_ahead; at_once, kept
                  what all of them are to the plan  member
Where files lie   store: on a disk  local_store -> whole_files
                  over a network  object_store -> object_fetches, coalesce
                                  -> object_requests -> object_tries, object_clients -> aws_profile
                  who waits for a store, and whether still  wanted
To pack           pack -> listing, packplan (-> clips, arrange), engines -> pack_shard (-> quality, writer), finish
                  between them  arrow_file
                  settings; whose folder it is  outfolder; who does what  claims; what is done  workfolder
                  what is half written  scratch; who is alone in a folder  alone
                  in several processes  workers, progress
Tars              tar writes headers, writer a whole one; tarwalk -> tarheader over what tar_reads gives reads any
To index tars     foreign -> known_layouts, braces, scan (-> tarwalk, foreign_sample),
of others         durations -> table_lengths, join_table; index_folder, foreign_index (-> choose_run)
                  without an index, front to back  sequential
To check a set    verify -> inventory, examine (-> index_files, content), examine_indexed, duplicates; findings
                  of index rows, for readers too  index_files
To make another   repair -> repair_shard, subset -> subset_shard (-> writer), into a new_set; feature_set of `extract`
of one            lhotse_cuts
What is written   layout (names, columns); manifest, left_out, extra_files; rows, write_index; keys, npy
"""
