"""What a GPU makes of the library: ``python -m bench.gpu run``, eight minutes on one card.

Four parts, each with an end to its time and its most useful units first: hypergradients of many
problems at once beside two CPU cores; the networks of Carnerero-Cano et al. 2023 on CIFAR-10; the
small CNN of Wang et al. 2021 at the poster's largest widths; AlexNet as its reference model.

A unit is a record, filed by its code, its arguments and, where seconds are measured, the card: run
again, the script computes what is missing. It needs torch, numpy, scipy, scikit-learn, numba,
pandas, jaxtyping, tqdm and PyYAML, and nothing else of ``requirements.txt``; data and knobs come in
one file (:mod:`bench.gpu.pack`).
"""

from bench.gpu import substitutes

substitutes.install()
