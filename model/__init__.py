"""A multimodal encoder-decoder small enough to train on a laptop, and its training program.

`config` says how big, `transformer` is the network, `tokenizer` and `data` feed it, and
`python -m model.train` trains it alone, under torchrun or under Holdfast. Nothing here knows
about clusters: of Holdfast it uses `orchestrator.runtime.training` only.
"""
