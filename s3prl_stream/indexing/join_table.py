"""What a table says of the samples that were found in tars, put before what the tars say; and how well it fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.indexing.durations import Table
from s3prl_stream.indexing.scan import Scan, note_metadata, scanned_rows
from s3prl_stream.shards.tarwalk import shown

DURATION_TOLERANCE_SECONDS = 0.05
"""By which a table's duration may differ from the audio's (or by 1 %) without being noted: tables round and trim."""


def join_table(scans: Sequence[Scan], table: Table) -> tuple[dict[str, Any], set[str]]:
    """Put what a table says into the scratch files of scans.

    Returns:
        (`IndexReport.table`, the names of metadata that samples have from the table).
    """
    used: set[str] = set()
    columns: set[str] = set()
    num_without, num_different, first_difference = 0, 0, None
    for scan in scans:
        with open(f"{scan.scratch}.joined", "w", encoding="utf-8") as joined:
            for row in scanned_rows(scan):
                del row["crc32c"]
                found = table.find(row["source_key"])
                if found is None:
                    num_without += 1
                else:
                    key, seconds, metadata = found
                    used.add(key)
                    columns.update(metadata)
                    note_metadata(metadata, scan.kinds, scan.name_counts)
                    row["metadata"].update(metadata)
                    own = row["frames"] / row["sample_rate"]
                    if seconds is not None and abs(seconds - own) > max(DURATION_TOLERANCE_SECONDS, 0.01 * own):
                        num_different += 1
                        difference = f"{shown(row['source_key'])}: {seconds} s, the audio has {own:.3f} s"
                        first_difference = first_difference or difference
                joined.write(json.dumps(row) + "\n")
        Path(joined.name).replace(scan.scratch)
    wrong = {scan.name: scan.table_differs for scan in scans if scan.table_differs}
    fit = {
        "rows": table.num_rows,
        "samples_without_row": num_without,
        "rows_without_sample": table.num_keys - len(used),
        "rows_twice": len(table.twice),
        "durations_differ": num_different,
        "first_difference": first_difference,
        "lengths_believed": sum(scan.num_believed for scan in scans),
        "lengths_measured": sum(scan.num_measured for scan in scans),
        "tars_that_differ": list(wrong),
        "first_wrong_length": next((f"{name}: {how}" for name, how in wrong.items()), None),
    }
    return fit, columns
