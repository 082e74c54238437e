"""Reads the `.wandb` file of an offline run: protobuf records in LevelDB's log format."""

import json
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7


def records(path: Path):
    """Yields every record of the file."""
    data, position, parts = path.read_bytes(), HEADER, []  # W&B puts 7 bytes of its own first
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:  # the end of a block is padding
            position += BLOCK - position % BLOCK
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # 1 whole, 2 first, 3 middle, 4 last
        parts.append(data[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def contents(run: Path) -> dict[str, dict]:
    """What an offline run logged.

    Its group and tags, config, the last value of every metric, the rows of history, the summary
    and the metric over which each metric is drawn.
    """
    (path,) = run.glob("run-*.wandb")
    found: dict = {"run": {}, "config": {}, "metrics": {}, "rows": [], "summary": {}, "over": {}}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found["run"] |= {"group": record.run.run_group, "job_type": record.run.job_type}
            found["run"]["tags"] = list(record.run.tags)
            updates = record.run.config.update
        else:
            updates = record.config.update if kind == "config" else []
        for item in updates:
            found["config"][item.key] = json.loads(item.value_json)
        items = {"history": record.history.item, "summary": record.summary.update}.get(kind, [])
        logged = {x.key or "/".join(x.nested_key): json.loads(x.value_json) for x in items}
        found["metrics"] |= logged
        if kind == "history":
            found["rows"].append(logged)
        elif kind == "summary":
            found["summary"] |= logged
        elif kind == "metric":
            found["over"][record.metric.name or record.metric.glob_name] = record.metric.step_metric
    return found
