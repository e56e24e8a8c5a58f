"""`index`: tars made elsewhere become a set where they lie. The map of its files, from callers to what they call.

Whole             foreign -> known_layouts, scan (-> table_lengths), join_table, index_folder,
                  foreign_index (-> choose_run)
Tables            durations, which table_lengths and join_table ask
"""
