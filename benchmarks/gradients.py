"""The derivative of every interpreter's map, ours and the libraries', against finite differences, as a record.

    python benchmarks/gradients.py --results-dir results

The record is of the family `gradients`; a row is a map: library, the relative errors of its derivative at x and at the
weights (None: autograd gives nothing where there is something), and how far the map is from ours. The network is the
same as that of `interpreters.py`, which prints the same numbers beside seconds.
"""

import argparse
import time
import warnings
from importlib.metadata import version

import pytorch_grad_cam
import torch
from interpreters import GRADIENTS, distance
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from side_by_side import subject

from interp_lib import interpreters, storage
from interp_lib.interpreters.derivatives import derivative_errors
from interp_lib.models import predict, released
from interp_lib.study import records

IMAGES, DIRECTIONS = 4, 9


def grad_cam_map(model, x, classes):
    """pytorch-grad-cam's GradCAM++ before it is scaled and up-sampled; its ReLU is part of it."""
    made = []
    for c in classes.T:
        with pytorch_grad_cam.GradCAMPlusPlus(model, [model.conv3]) as peer:
            targets = [ClassifierOutputTarget(int(one)) for one in c]
            made.append(raw_map(peer, x, targets))
    return torch.stack(made, 1)


def raw_map(peer, x, targets):
    """The library's own steps up to the sum over channels: (N, h, w), without a graph since it works in numpy."""
    peer.model.zero_grad()
    outputs = peer.activations_and_grads(x)
    sum(target(output) for target, output in zip(targets, outputs, strict=True)).backward(retain_graph=True)
    activations = peer.activations_and_grads.activations[0].cpu().data.numpy()
    gradients = peer.activations_and_grads.gradients[0].cpu().data.numpy()
    weighted = peer.get_cam_image(x, peer.target_layers[0], targets, activations, gradients, False)
    return torch.from_numpy(weighted).relu()


def rows_of(model, x, classes):
    """A row a map: ours first, each followed by the libraries' versions of it."""
    named = {}
    for name, (maps, reference) in GRADIENTS.items():
        named[name] = maps
        library, _, rest = name.strip().partition(" ") if reference else ("interp_lib", "", name)
        number, _, rest = rest.partition(" ") if reference else ("", "", rest)
        at_x, at_weights = derivative_errors(maps, model, x, classes, directions=DIRECTIONS)
        yield {
            "library": f"{library} {number}".strip(),
            "map": rest.replace("the same", "IntegratedGradients, softplus"),
            "x": at_x.median,
            "x_largest": at_x.largest,
            "weights": at_weights.median,
            "weights_largest": at_weights.largest,
            "off": distance(name, model, x, classes) if reference else None,
        }
        if name == "gradcam_pp":
            own, theirs = maps(model, x, classes).detach().relu(), grad_cam_map(model, x, classes)
            at_x, at_weights = derivative_errors(grad_cam_map, model, x, classes, directions=DIRECTIONS)
            yield {
                "library": f"pytorch-grad-cam {version('grad-cam')}",
                "map": "GradCAMPlusPlus",
                "x": at_x.median,
                "x_largest": at_x.largest,
                "weights": at_weights.median,
                "weights_largest": at_weights.largest,
                "off": float((theirs - own).abs().sum() / own.abs().sum()),
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="Int", choices=released.METHODS, help="of the released network")
    parser.add_argument("--results-dir", default=str(records.RESULTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    model, subset, what = subject(args.method, IMAGES)
    if "UNTRAINED" in what:
        parser.error(f"{what}; a record needs the paper's network and images")
    print(what)
    weights = predict.fingerprint(model)
    model, x = model.double(), subset.x.double() * 0.98 + 0.01
    classes = torch.stack([subset.y, (subset.y + 1) % model.num_classes], 1)
    settings = {
        "measurement": "gradients",
        "dataset": "mnist",
        "title": what,
        "model": "small",
        "networks": "released",
        "method": args.method,
        "weights": weights,
        "images": IMAGES,
        "classes": 2,
        "directions": DIRECTIONS,
        "against": "central differences in float64, step 1e-7",
        "maps": [n.strip() for n in GRADIENTS],
        "interpreters": sorted(set(GRADIENTS) & set(interpreters.INTERPRETERS)),
    }
    began, rows = time.perf_counter(), []
    for row in rows_of(model, x, classes):
        rows.append(row)
        shown = ["none" if row[key] is None else f"{row[key]:.1e}" for key in ("x", "weights")]
        print(f"{row['library']:24}{row['map']:34}{shown[0]:>10}{shown[1]:>10}  {row['off']}")
    record = records.Record("gradients-mnist-small-released", settings, rows)
    record.provenance = storage.provenance(time.perf_counter() - began)
    print(records.write(record, args.results_dir))


if __name__ == "__main__":
    main()
