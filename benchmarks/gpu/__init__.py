"""What has to be measured on a GPU, in programs that also run, small, on the CPU. docs/results/gpu.md has the order.

`bundle` makes archives for a machine without network, and `call` runs the programs there with time limits.
"""
