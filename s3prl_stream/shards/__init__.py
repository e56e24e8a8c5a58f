"""Sets of shards: their format, and how they are read. The map of its files, from callers to what they call.

What is written   layout (names, columns); manifest, left_out, extra_files; rows, write_index; keys, npy
To read a set     shardset (open_shards) -> folder (a packed or indexed one), memory (samples that are no set)
                  of a sample  bytes; of tars made elsewhere  indexed -> foreign_sample
                  which rows   selection -> where, amounts, whole_index; weights, find_clips
                  of index files  index_files
                  ahead        read_ahead
                  what all of them are to the plan  member
Tars              tar writes headers, writer a whole one; tarwalk -> tarheader over what tar_reads gives reads any
                  without an index, front to back  sequential
To write a set    arrange, in which order; scratch, where what is half written lies; claims, who does what
                  of another one  subset -> subset_shard (-> writer), into a new_set; lhotse_cuts
                  of features     feature_set, for `extract`
                  in several processes  workers

Where files lie is the business of the folder `stores`; sets are made in `packing` and `indexing`, looked over in
`checking`.
"""
