"""Compute the same functions faster, equal up to rounding: folding, convolutions, stacks, compiled layers.

`fold` holds the functions that other packages call; `parts`, `training_step` and `convolution` hold their building
blocks; `models.proof` and `models.contract` check every fold against the network itself; `trunk` and `compiled` give
Small's layers in C++, and `objective` whole attacks on Small in C++; `stack` computes several networks as one function.
"""
