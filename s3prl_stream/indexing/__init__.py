"""`index`: tars made elsewhere become a set where they lie. The map of its files, from callers to what they call.

Whole             foreign -> known_layouts, scan, durations, index_folder, foreign_index (-> choose_run)
Lengths of clips  durations -> table_lengths, join_table
"""
