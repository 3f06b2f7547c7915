"""Writes the Parquet files of this folder from rows.json with pyarrow, in the format of data sets on the Hugging Face hub.

    python -m pip install pyarrow==26.0.1
    python test/data/goldens/parquet.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

here = Path(__file__).parent
rows = json.loads((here / "rows.json").read_text("utf8"))


def write(name, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), here / f"{name}.parquet", **options)


def sharegpt(row):
    system, user, assistant = (one["content"] for one in row["messages"])
    return {
        "id": len(user),  # a column that no row format uses
        "system": system,
        "conversations": [{"from": "human", "value": user}, {"from": "gpt", "value": assistant}],
    }


def alpaca(row):
    system, user, assistant = (one["content"] for one in row["messages"])
    instruction, _, given = user.partition("\n\n")
    return {"instruction": instruction, "input": given or None, "output": assistant, "system": system}


write("text", rows["text"], compression="zstd", row_group_size=2)
write("completion", rows["completion"], compression="snappy")
# Rows of two formats: the missing fields of a row are null.
write("mixed", [{**dict.fromkeys(("text", "prompt", "completion")), **row} for row in (rows["text"][0], rows["completion"][0])])
# Every message has all fields, and the unused ones are null.
messages = [{"messages": [{**one, "name": None} for one in row["messages"]], "tools": None} for row in rows["messages"]]
write("messages", messages, compression="gzip")
write("sharegpt", [sharegpt(row) for row in rows["messages"]], compression="none")
write("alpaca", [alpaca(row) for row in rows["messages"]], use_dictionary=False, write_page_index=True)
write("labels", rows["labels"], compression="brotli", data_page_version="2.0")

# Pages of a few values, so that conversations span pages.
turns = [one for row in rows["messages"] for one in row["messages"]]
pages = [{"messages": [turns[(i + k) % len(turns)] for k in range(i % 7 + 1)], "tools": None} for i in range(40)]
small = {"data_page_size": 64, "write_batch_size": 2, "row_group_size": 30}
write("pages", pages, compression="snappy", use_dictionary=["messages.list.element.role"], **small)
write("pages-v2", pages, compression="zstd", data_page_version="2.0", write_page_checksum=True, **small)
predicted = [{"id": f"00{i}", "text": f"t{i}", "label": "abc"[i], "note": f'a "note", with\nlines {i}'} for i in range(3)]
write("predict", predicted)
write("gzip", rows["completion"], compression="gzip")
write("pages-lz4", rows["completion"], compression="lz4", use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY")

# 36 MB of texts in one row group, in pages of 1 MiB.
text = "the sea was wide, " * 50
write("large", [{"text": text}] * 40_000, compression="brotli", use_dictionary=False, row_group_size=40_000)
