"""What makes it fast and changes no number: folding, convolutions, stacks, compiled layers.

`fold` holds what others call; `parts`, `training_step` and `convolution` what it is made of; `proof` and `contract`
hold every fold to the network itself; `trunk` and `compiled` are the layers in C++, `objective` whole attacks;
`stack` computes several networks as one.
"""
