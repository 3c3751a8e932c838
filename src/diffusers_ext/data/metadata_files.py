"""Reads the metadata file of a folder of images: the names of its columns, and its rows."""

import json
import os

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


Table = tuple[list[str], list[dict]]


def is_file_name(column: str) -> bool:
    """Whether a column holds the names of image files: `file_name`, or `x_file_name`."""
    return column == "file_name" or column.endswith("_file_name")


def read_csv(path: str, caption_column: str | None = None) -> Table:
    """Reads a CSV file. Quoted values may have line breaks.

    Numbers become numbers, except in captions and file names, which are text whatever they look like. Dates and times
    stay text everywhere.
    """
    table = _read_csv(path, {})
    texts = {
        field.name: pa.string()
        for field in table.schema
        if field.name == caption_column or is_file_name(field.name) or pa.types.is_temporal(field.type)
    }
    if any(table.schema.field(name).type != pa.string() for name in texts):
        table = _read_csv(path, texts)
    return table.column_names, table.to_pylist()


def _read_csv(path: str, types: dict[str, pa.DataType]) -> pa.Table:
    # One block, because the types and the line breaks of a block are not known to the next.
    blocks = pyarrow.csv.ReadOptions(block_size=min(max(1, os.path.getsize(path)), 2**31 - 1))
    return pyarrow.csv.read_csv(
        path,
        read_options=blocks,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types),
    )


def read_jsonl(path: str, caption_column: str | None = None) -> Table:
    """Reads a file with a JSON object per line."""
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_read_object(line, number))
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def _read_object(line: str, number: int) -> dict:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} must be a JSON object with a file_name, not {line.strip()[:60]}")
    return row


def read_parquet(path: str, caption_column: str | None = None) -> Table:
    """Reads a parquet file."""
    table = pyarrow.parquet.read_table(path)
    return table.column_names, table.to_pylist()


METADATA_READERS = {
    "metadata.csv": read_csv,
    "metadata.jsonl": read_jsonl,
    "metadata.parquet": read_parquet,
}
