"""Exit outputs of a run's test samples as a file of the policy benchmark: float16, with provenance.

python benchmarks/freeze.py runs/mine my-network "network, training, data, date"
"""

import argparse
from pathlib import Path

from eenet.outputs import ExitOutputs, load_outputs, save_outputs

FOLDER = Path(__file__).with_name("outputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a finished `eenet pipeline`")
    parser.add_argument("name", help="name of the new file")
    parser.add_argument("provenance", help="what one has to know to make the outputs again")
    arguments = parser.parse_args()
    outputs = load_outputs(arguments.run_dir / "stage1/outputs/test.safetensors")
    kept = ("network", "data", "eenet", "torch", "class_names", "cost_unit")
    metadata = {name: outputs.metadata[name] for name in kept if name in outputs.metadata}
    frozen = ExitOutputs(
        costs=outputs.costs,
        logits=outputs.logits.half(),
        labels=outputs.labels,
        metadata={**metadata, "provenance": arguments.provenance},
    )
    path = FOLDER / f"{arguments.name}.safetensors"
    save_outputs(frozen, path)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {frozen.logits.shape}")


if __name__ == "__main__":
    main()
